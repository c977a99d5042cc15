"""Surrogates are measured once in a while, Functions with their own backward compared each time."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - as everybody names it

import clarke
from clarke.audit import turn
from clarke.verdict import Verdict

SMOOTH, SURROGATE, WRONG = Verdict.SMOOTH, Verdict.SURROGATE, Verdict.NOT_CLARKE
LADDER = clarke.Settings(quick=False)


@pytest.fixture
def measured(monkeypatch):
    """At which calls the ladder was climbed, or a rate measured."""
    found = []
    for name in ("judge", "judge_opened"):
        judge = getattr(turn, name)
        monkeypatch.setattr(
            turn, name, lambda *a, judge=judge, **k: found.append(1) or judge(*a, **k)
        )
    return found


def verdicts(step, steps, settings=None):
    with clarke.audit(lambda _: None, settings=settings, seconds=60) as audit:
        for number in range(steps):
            step(number)
    return list(audit.steps)


class Spike(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return (x > 0).float()

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        return grad / (1 + x.abs()) ** 2


class Swish(torch.autograd.Function):
    scale = 1.0

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x.sigmoid()

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        s = x.sigmoid()
        return Swish.scale * grad * s * (1 + x * (1 - s))


class OwnRelu(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x > 0)
        return x.clamp(min=0) * (x > 0)

    @staticmethod
    def backward(ctx, grad):
        return Swish.scale * grad * ctx.saved_tensors[0]


def spiking():
    one, two = nn.Linear(3, 4), nn.Linear(4, 2)
    return lambda _: two(Spike.apply(one(torch.randn(5, 3)))).square().mean().backward()


def rounded():
    one, two = nn.Linear(3, 4), nn.Linear(4, 2)

    def step(_):
        code = 3 * one(torch.randn(5, 3))
        two(code + (code.round() - code).detach()).square().mean().backward()

    return step


def advantage():
    net = nn.Linear(3, 3)

    def step(_):
        out = net(torch.randn(5, 3))
        chosen = out[:, :2].log_softmax(1)[:, 0]
        (-(chosen * (1 - out[:, 2].detach())).mean() + out[:, 2].square().mean()).backward()

    return step


@pytest.mark.parametrize("make", [spiking, rounded, advantage], ids=lambda make: make.__name__)
def test_a_surrogate_is_measured_the_first_and_the_eighth_time(make, measured):
    torch.manual_seed(0)
    step = make()
    steps = verdicts(step, 9)
    assert {s.verdict for s in steps} == {SURROGATE}
    assert len(measured) == 2
    assert ["measured at an earlier call" in s.reason for s in steps] == [
        number not in (0, 7) for number in range(9)
    ]
    assert verdicts(step, 1, LADDER)[0].verdict is SURROGATE


def test_a_gradient_that_is_not_finite_is_no_surrogates():
    weight = torch.tensor([0.3, 0.7], requires_grad=True)

    def step(number):
        factor = float("inf") if number == 2 else 1.0
        (factor * (weight + (weight.round() - weight).detach()).sum()).backward()

    found = [s.verdict for s in verdicts(step, 4)]
    assert found[2] is not SURROGATE
    assert found[:2] + found[3:] == [SURROGATE] * 3


@pytest.mark.parametrize("function", [Swish, OwnRelu], ids=lambda f: f.__name__)
def test_a_backward_that_goes_wrong_later_is_found(function, measured, monkeypatch):
    torch.manual_seed(0)
    one, two = nn.Linear(3, 4), nn.Linear(4, 2)

    def step(number):
        monkeypatch.setattr(Swish, "scale", 1.25 if number == 3 else 1.0)
        two(function.apply(one(torch.randn(5, 3)))).square().mean().backward()

    found = [s.verdict for s in verdicts(step, 5)]
    assert found == [SMOOTH, SMOOTH, SMOOTH, WRONG, SMOOTH]
    # A comparison inside of a Function asks for the whole ladder once, and again after a doubt.
    assert len(measured) == (1 if function is Swish else 3)


def test_one_wrong_entry_beside_large_ones_is_found(monkeypatch):
    class Scaled(torch.autograd.Function):
        off = 0.0

        @staticmethod
        def forward(_ctx, x):
            return x * torch.tensor([1e8, 1.0])

        @staticmethod
        def backward(_ctx, grad):
            return grad * torch.tensor([1e8, 1.0 + Scaled.off])

    weight = torch.tensor([0.5, 0.5], requires_grad=True)

    def step(number):
        monkeypatch.setattr(Scaled, "off", 0.5 if number == 2 else 0.0)
        weight.grad = None
        Scaled.apply(weight).sin().sum().backward()

    found = [s.verdict for s in verdicts(step, 3)]
    assert found[2] not in (SMOOTH, Verdict.BOULIGAND, Verdict.CLARKE)


class Codes:
    """Pseudo-labels: detached values that reach the loss by an index and a comparison."""

    def __init__(self):
        self.net = nn.Linear(3, 4)

    def __call__(self, number):
        torch.manual_seed(number)
        seen = torch.randn(6, 3)
        sure, label = self.net(seen).detach().softmax(1).max(1)
        loss = F.cross_entropy(self.net(seen + 0.1), label, reduction="none")
        (loss * (sure > 0.3)).mean().backward()


def test_indices_and_masks_of_detached_values_are_constants(measured, monkeypatch):
    recalled = []
    recall = clarke.fast.QuickJudge.recall
    monkeypatch.setattr(
        clarke.fast.QuickJudge, "recall", lambda *a, **k: recalled.append(1) or recall(*a, **k)
    )
    torch.manual_seed(0)
    step = Codes()
    assert {s.verdict for s in verdicts(step, 4)} == {SMOOTH}
    assert not measured
    assert len(recalled) == 3
    assert verdicts(step, 1, LADDER)[0].verdict is SMOOTH


def test_a_mask_of_detached_values_at_a_tie_is_not_constant():
    weight = torch.tensor([0.0, 1.0], requires_grad=True)

    def step(number):
        with torch.no_grad():
            weight[0] = 0.5 if number < 2 else 0.0
        ((weight + 1) * (weight.detach() > 0)).sum().backward()

    found = [s.verdict for s in verdicts(step, 3)]
    assert found[:2] == [SMOOTH] * 2
    assert found[2] is Verdict.UNDECIDED


@pytest.mark.parametrize("behind", [True, False])
def test_ctc_holds_behind_log_softmax_only(behind, measured):
    torch.manual_seed(0)
    net = nn.Linear(3, 4)

    def step(_):
        scores = net(torch.randn(2, 6, 3))
        lp = (scores.log_softmax(-1) if behind else 0.1 * scores - 1).transpose(0, 1)
        F.ctc_loss(lp, torch.tensor([[1, 2], [3, 1]]), (6, 6), (2, 2)).backward()

    found = {s.verdict for s in verdicts(step, 2)}
    assert found == {SMOOTH if behind else WRONG}
    assert len(measured) == (0 if behind else 2)


def test_a_gaussian_process_is_compared(measured):
    scale, points = torch.zeros((), requires_grad=True), torch.linspace(0, 1, 5)[:, None]

    def step(_):
        kernel = torch.exp(-((points - points.T) ** 2) / scale.exp()) + 0.1 * torch.eye(5)
        factor = torch.linalg.cholesky(kernel)
        scale.grad = None
        (factor.diagonal().log().sum() + torch.cholesky_solve(points, factor).sum()).backward()

    assert {s.verdict for s in verdicts(step, 2)} == {SMOOTH}
    assert not measured


def test_a_triangle_that_stands_for_a_matrix_is_still_found(measured):
    matrix = torch.tensor([[2.0, 0.5], [0.5, 1.0]], requires_grad=True)

    def step(_):
        torch.linalg.cholesky(matrix).sum().backward()

    assert {s.verdict for s in verdicts(step, 2)} == {WRONG}
    assert len(measured) == 2
