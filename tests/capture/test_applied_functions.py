"""Custom Functions that nobody declared: their backward against what their forward computes."""

import numpy as np
import pytest
import torch
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

import clarke
from clarke.verdict import Verdict
from reference.leaves import leaf


def function(forward, backward, *, once=False):
    """A Function of one tensor, with `backward(x, grad)`."""

    def back(ctx, grad):
        (x,) = ctx.saved_tensors
        return backward(x, grad)

    class Own(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return forward(x)

    Own.backward = staticmethod(once_differentiable(back) if once else back)
    return Own.apply


def verdicts(program, *inputs):
    """What `check` and an audit say."""
    report = clarke.check(program, inputs)
    with clarke.audit(on_wrong=lambda report: None, seconds=20) as audit:
        program(*inputs).backward()
    return report, audit.steps[0]


class Attention(torch.autograd.Function):
    """Several arguments, results and numbers; the new style."""

    @staticmethod
    def forward(x, y, scale):
        weights = torch.softmax(x @ y.T * scale, -1)
        return weights @ y, weights

    @staticmethod
    def setup_context(ctx, inputs, output):
        x, y, ctx.scale = inputs
        ctx.save_for_backward(x, y, output[1])

    @staticmethod
    def backward(ctx, grad, grad_weights):
        x, y, weights = ctx.saved_tensors
        inner = grad @ y.T + grad_weights
        inner = weights * (inner - (inner * weights).sum(-1, keepdim=True)) * ctx.scale
        return inner @ y, inner.T @ x + weights.T @ grad, None


class InPlace(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.mark_dirty(x)
        return x.mul_(3)

    @staticmethod
    def backward(ctx, grad):
        return 3 * grad


class AndACount(torch.autograd.Function):
    """Its second result is no differentiable one."""

    @staticmethod
    def forward(ctx, x):
        size = x.norm()
        ctx.mark_non_differentiable(size)
        return x * 2, size

    @staticmethod
    def backward(ctx, grad, _):
        return grad * 2


def in_a_helper(x):
    return x.exp() * torch.relu(x)


def with_gradients_on(x):
    with torch.enable_grad():
        y = x.detach().requires_grad_()
        return (y * y).detach()


RIGHT = {
    "a square": function(lambda x: x * x, lambda x, g: 2 * x * g),
    "once differentiable": function(lambda x: x * x, lambda x, g: 2 * x * g, once=True),
    "the identity": function(lambda x: x, lambda x, g: g),
    "a view": function(lambda x: x.view_as(x), lambda x, g: g),
    "a copy": function(lambda x: x.clone(), lambda x, g: g),
    "detached inside": function(
        lambda x: x.detach().exp() * x.data, lambda x, g: g * x.exp() * (1 + x)
    ),
    "through a helper": function(in_a_helper, lambda x, g: g * x.exp() * (torch.relu(x) + (x > 0))),
    "gradients on inside": function(with_gradients_on, lambda x, g: 2 * x * g),
    "written part by part": function(
        lambda x: torch.empty_like(x).copy_(x).mul_(x), lambda x, g: 2 * x * g
    ),
    "a mask": function(lambda x: x * (x > 0), lambda x, g: g * (x > 0)),
    "a mask with a wild value elsewhere": function(
        lambda x: torch.where(x > 100, x * 7, x), lambda x, g: g
    ),
    "attention": lambda x: sum(
        p.sum() for p in Attention.apply(x.reshape(1, -1), x.reshape(-1, 1) * x, 0.3)
    ),
    "in place": lambda x: InPlace.apply(x * 1),
    "in place of a part": lambda x: torch.cat([x * 1, InPlace.apply((x * 2)[:1])]),
    "a result that is a constant": lambda x: AndACount.apply(x)[0],
    "in a checkpoint": lambda x: checkpoint(RIGHT["a square"], x * 1, use_reentrant=False),
}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", RIGHT)
def test_a_right_backward_is_the_gradient(name, dtype):
    weights = torch.tensor([1.0, 2.0, 0.5], dtype=dtype)

    def program(x):
        y = RIGHT[name](x)
        return (y * weights[: y.numel()].reshape(y.shape)).sum() if y.dim() else y

    for found in verdicts(program, leaf(0.25, 1.75, dtype=dtype)):
        assert found.verdict is Verdict.SMOOTH, found


def test_a_constant_result_is_as_if_detached():
    def program(x):
        y, size = AndACount.apply(x)
        return (y * size).sum()

    for found in verdicts(program, leaf(0.25, 1.75)):
        assert found.verdict is Verdict.SURROGATE
        assert "detach" in found.reason


WRONG = {
    "half": (function(lambda x: x * x, lambda x, g: x * g), [2 * 0.25, 2 * 1.75 * 2]),
    "reversed": (function(lambda x: x.view_as(x), lambda x, g: -g), [1, 2]),
    "of the wrong entry": (function(lambda x: x.sin(), lambda x, g: (g * x.cos()).flip(0)), None),
    "left out": (function(lambda x: x * 3, lambda x, g: None), [3, 6]),
    "no derivative of a mask": (function(lambda x: (x - 1) * (x > 1), lambda x, g: g), [0, 2]),
    "one more": (function(lambda x: torch.relu(x - 1), lambda x, g: g), [0, 2]),
}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_backward_is_wrong_with_numbers(name, dtype):
    own, right = WRONG[name]
    weights = torch.tensor([1.0, 2.0], dtype=dtype)
    report, step = verdicts(lambda x: (own(x * 1) * weights).sum(), leaf(0.25, 1.75, dtype=dtype))
    assert report.verdict is step.verdict is Verdict.NOT_CLARKE
    assert report.culprits[0].operation == step.culprits[0].operation == "Own"
    assert "changes at a rate of" in report.culprits[0].reason
    assert "surrogate=True" in str(report)
    assert report.certificate.verify()
    if right is not None:
        assert report.element[0].tolist() == pytest.approx(right)


STEPS = {
    "round": lambda x: x.round(),
    "sign": lambda x: x.sign(),
    "a comparison": lambda x: (x > 1).to(x.dtype),
    "a lattice": lambda x: (x / 0.1).round().clamp(-8, 7) * 0.1,
    "integers": lambda x: x.long().to(x.dtype),
    "the nearest of a codebook": lambda x: torch.tensor([-1.0, 0.3, 2.0], dtype=x.dtype)[
        (x[:, None] - torch.tensor([-1.0, 0.3, 2.0], dtype=x.dtype)).abs().argmin(1)
    ],
    "scaled signs": lambda x: x.sign() * x.abs().mean(),
}


@pytest.mark.parametrize("point", [(0.25, 1.75), (0.0, 0.5)])
@pytest.mark.parametrize("name", STEPS)
def test_a_forward_that_is_a_step_makes_a_surrogate(name, point):
    own = function(STEPS[name], lambda x, g: g)
    for found in verdicts(lambda x: (own(x * 1) * torch.arange(1.0, 3)).sum(), leaf(*point)):
        assert found.verdict is Verdict.SURROGATE
        assert "jumps by" in found.reason
        assert found.culprits[0].operation == "Own"


def test_a_step_with_its_true_derivative_is_no_surrogate():
    own = function(lambda x: x.round(), lambda x, g: 0 * g)
    for found in verdicts(lambda x: own(x).sum() + x.sum(), leaf(0.25, 1.75)):
        assert found.verdict is Verdict.SMOOTH


def test_what_the_author_says():
    class Reversal(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.view_as(x)

        @staticmethod
        def backward(ctx, grad):
            return -grad

    clarke.register_function(Reversal, surrogate=True)
    for found in verdicts(lambda x: Reversal.apply(x).sum(), leaf(1.0)):
        assert found.verdict is Verdict.SURROGATE
        assert "declared so by its author" in found.reason
    with pytest.raises(clarke.UnsupportedError, match="declared so by its author"):
        clarke.grad(lambda x: Reversal.apply(x).sum(), (leaf(1.0),))
    with pytest.raises(clarke.RegistrationError, match="declared already"):
        clarke.register_function(Reversal, pieces=lambda x: x)
    with pytest.raises(clarke.RegistrationError, match="either surrogate=True, or the pieces"):
        clarke.register_function(RIGHT["a square"].__self__)


@pytest.mark.parametrize(
    ("slope", "verdict"),
    [(0.0, Verdict.BOULIGAND), (1.0, Verdict.BOULIGAND), (0.25, Verdict.CLARKE)],
)
def test_at_a_kink_of_its_forward_any_generalized_gradient_is_right(slope, verdict):
    own = function(lambda x: x.clamp(min=0), lambda x, g: g * ((x > 0) + slope * (x == 0)))
    for found in verdicts(lambda x: own(x).sum(), leaf(0.0, 1.0)):
        assert found.verdict is verdict


def test_at_a_kink_of_its_forward_others_are_wrong():
    own = function(lambda x: x.max(), lambda x, g: g * (x == x.max()))
    report, step = verdicts(own, leaf(1.0, 1.0))
    assert report.gradient[0].tolist() == [1, 1]
    assert report.verdict is step.verdict is Verdict.NOT_CLARKE
    assert sorted(clarke.grad(own, (leaf(1.0, 1.0),))[0].tolist()) == [0, 1]
    vertices = clarke.subdifferential(own, (leaf(1.0, 1.0),)).vertices().tolist()
    assert sorted(vertices) == [[0, 1], [1, 0]]


HIDDEN = {
    "in NumPy": function(
        lambda x: torch.from_numpy(np.sin(x.detach().numpy())), lambda x, g: g * x.cos()
    ),
    "with a number from NumPy": function(
        lambda x: x * float(np.max(x.detach().numpy())),
        lambda x, g: g * x.max() + (x == x.max()) * (g * x).sum(),
    ),
    "with a number": function(
        lambda x: x * x.max().item(), lambda x, g: g * x.max() + (x == x.max()) * (g * x).sum()
    ),
    "partly in NumPy": function(
        lambda x: x * torch.from_numpy(x.detach().numpy().copy()), lambda x, g: 2 * g * x
    ),
}


@pytest.mark.parametrize("name", HIDDEN)
def test_what_forward_computes_elsewhere_is_undecided(name):
    for found in verdicts(lambda x: HIDDEN[name](x * 1).sum(), leaf(0.25, 1.75)):
        assert found.verdict is Verdict.UNDECIDED
        assert found.culprits[0].operation == "Own"
        assert "register_function" in found.reason


def test_a_backward_that_is_as_blind_as_the_record_is_not_called_right():
    own = function(lambda x: x * torch.from_numpy(x.detach().numpy().copy()), lambda x, g: g * x)
    for found in verdicts(lambda x: own(x * 1).sum(), leaf(0.25, 1.75)):
        assert not found.verdict.correct


def test_gradients_of_gradients_go_through_the_backward():
    own = RIGHT["a square"]

    def penalty(x):
        (slope,) = torch.autograd.grad(own(x).sum(), x, create_graph=True)
        return (slope**2).sum()

    found = clarke.check(penalty, (leaf(0.5, 1.0),))
    assert found.verdict is Verdict.SMOOTH
    assert found.gradient[0].tolist() == [4, 8]


def test_an_evaluation_without_gradients_leaves_a_constant():
    own = RIGHT["a square"]

    def program(x):
        with torch.no_grad():
            target = own(x * 2)
        return (x * target).sum()

    with clarke.audit() as audit:
        program(leaf(0.5, 1.0)).backward()
    assert audit.steps[0].verdict in (Verdict.SMOOTH, Verdict.SURROGATE)
    plain = clarke.check(lambda x: (x * (x * 2).square().detach()).sum(), (leaf(0.5, 1.0),))
    assert clarke.check(program, (leaf(0.5, 1.0),)).verdict is plain.verdict


def test_random_state_and_arguments_stay_as_they_are():
    class Counts(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, seen):
            seen.add_(1)
            return (x + torch.rand(()).to(x.dtype)).round()

        @staticmethod
        def backward(ctx, grad):
            return grad, None

    def run(watch):
        torch.manual_seed(0)
        x, seen = leaf(0.5), torch.zeros(())
        with watch:
            y = Counts.apply(x, seen)
            y.sum().backward() if False else y.sum().detach()
        return seen.item(), torch.rand(()).item()

    import contextlib

    assert run(contextlib.nullcontext()) == run(clarke.audit())
