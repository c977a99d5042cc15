"""Sums in ``.grad`` whose parts need different sides of their kinks: judged as one program."""

import pytest
import torch
from torch import nn
from torch.nn.functional import relu

import clarke
from clarke import Verdict

WRONG = "sum that .grad holds"


def up(w):
    return relu(w).sum()


def down(w):
    return -relu(-w).sum()


@pytest.fixture
def w():
    return torch.zeros(3, requires_grad=True)


def judged(*losses, on_wrong=lambda report: None):
    with clarke.audit(on_wrong, seconds=20) as watch:
        for loss in losses:
            loss().backward()
    return watch


def two_losses_of_one_step(w):
    shared = w * 2
    (relu(shared).sum()).backward(retain_graph=True)
    (-relu(-shared).sum()).backward()


def roots_of_one_call(w):
    torch.autograd.backward([up(w), down(w)])


def microbatches(w):
    for sign in (1.0, -1.0, 1.0):
        x = torch.full((2,), sign)
        (sign * relu(x @ w[:2])).backward()


def two_models_that_share(w):
    class Model(nn.Module):
        def __init__(self, sign):
            super().__init__()
            self.w, self.sign, self.own = w, sign, nn.Parameter(torch.ones(3))

        def forward(self):
            return self.sign * relu(self.sign * self.w * self.own).sum()

    Model(1).forward().backward()
    Model(-1).forward().backward()


def smooth_ones_between(w):
    up(w).backward()
    (w * 3).sum().backward()
    down(w).backward()
    w.exp().sum().backward()


def clipped_before_the_optimizer(w):
    optimizer = torch.optim.SGD([w], 0.0)
    up(w).backward()
    down(w).backward()
    w.grad.add_(1e-30)
    nn.utils.clip_grad_norm_([w], 0.1)
    optimizer.step()


def scaled(w):
    scaler = torch.amp.GradScaler("cpu")
    optimizer = torch.optim.SGD([w], 0.0)
    scaler.scale(up(w)).backward()
    scaler.scale(down(w)).backward()
    scaler.step(optimizer)


def checkpointed(w):
    from torch.utils.checkpoint import checkpoint

    checkpoint(up, w, use_reentrant=False).backward()
    checkpoint(down, w, use_reentrant=False).backward()


FORMS = [
    two_losses_of_one_step,
    roots_of_one_call,
    microbatches,
    two_models_that_share,
    smooth_ones_between,
    clipped_before_the_optimizer,
    scaled,
    checkpointed,
]


@pytest.mark.parametrize("form", FORMS, ids=lambda f: f.__name__)
def test_wrong_in_every_form(form, w):
    with clarke.audit(lambda report: None, seconds=20) as watch:
        form(w)
    assert watch.steps[-1].joint is Verdict.NOT_CLARKE
    assert watch.summary().correct is False


def test_two_parts_that_were_repaired_or_not(w):
    watch = judged(lambda: up(w), lambda: down(w), lambda: up(w), w.sum, on_wrong="repair")
    assert [s.joint for s in watch.steps][1:] == [Verdict.CLARKE, *[Verdict.BOULIGAND] * 2]
    assert [s.repaired for s in watch.steps] == [False, True, False, False]
    # The sum of the first two is w; the third may add 0 or 1, the last adds 1.
    assert torch.equal(w.grad, torch.full((3,), 2.0))
    assert watch.summary().repaired == 1


def test_a_repaired_part_is_added_up_with_its_new_gradient(w):
    watch = judged(lambda: up(w) + down(w), lambda: up(w), lambda: down(w), on_wrong="repair")
    assert [s.repaired for s in watch.steps] == [True, False, True]
    assert torch.equal(w.grad, torch.full((3,), 2.0))
    assert watch.summary().correct is False  # as a gradient that was repaired always counts


def test_raising_leaves_the_earlier_part(w):
    with clarke.audit("raise", seconds=20):
        (w * 5).sum().backward()
        up(w).backward()
        with pytest.raises(clarke.WrongGradientError) as raised:
            down(w).backward()
    assert WRONG in str(raised.value)
    assert torch.equal(w.grad, torch.full((3,), 5.0))
    report = raised.value.report
    assert report.certificate is not None
    assert report.certificate.verify()


def test_the_report_of_the_sum_names_parameters_and_calls():
    net = nn.Linear(1, 2, bias=False)
    nn.init.zeros_(net.weight)
    found = []
    with clarke.audit(found.append, seconds=20) as watch:
        for sign in (1, -1):
            (sign * relu(sign * net(torch.ones(1, 1)))).sum().backward()
    (report,) = found
    assert report.names == ("weight",)
    assert report.verdict is Verdict.NOT_CLARKE
    assert torch.equal(report.gradient[0], torch.zeros(2, 1, dtype=torch.float64))
    assert "call 1" in str(report)
    assert "call 2" in str(report)
    assert watch.reports[0].certificate is not None  # the first wrong ones keep their proof


def test_the_first_gradient_is_kept_although_the_second_adds_to_its_memory(w):
    def first():
        return (w.abs() + relu(w)).sum()

    def second():
        return (relu(w) - 3 * relu(-w)).sum()

    # |w| + 2 relu(w) - 3 relu(-w): slopes 3 on the right, 2 on the left, and autograd returns 0.
    watch = judged(first, second)
    assert watch.steps[-1].joint is Verdict.NOT_CLARKE
    w.grad = None
    watch = judged(lambda: first() + 2 * w.sum(), lambda: second() + w.sum())  # 5, 4, and 3
    assert watch.steps[-1].joint is Verdict.NOT_CLARKE


def test_more_parts_after_time_ran_out_are_not_judged_again(w, monkeypatch):
    from clarke.audit import sums

    asked = []

    def late(deadline, step, settings):
        asked.append(step)
        return sums.Decision(Verdict.UNDECIDED, "Time ran out.", out_of_time=True)

    monkeypatch.setattr(sums, "judge_within", late)
    watch = judged(*[lambda s=s: (s * relu(s * w)).sum() for s in (1, -1, 1, -1)])
    assert [s.joint for s in watch.steps[1:]] == [Verdict.UNDECIDED] * 3
    assert len(asked) == 1
    assert "time ran out when fewer" in watch.steps[-1].joint_reason


def test_custom_functions_at_kinks_are_named(w):
    class Doubled(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x * 2

        @staticmethod
        def backward(ctx, grad):
            return grad * 2

    watch = judged(lambda: relu(Doubled.apply(w)).sum(), lambda: down(w))
    assert watch.steps[-1].joint is Verdict.UNDECIDED
    assert "Doubled" in watch.steps[-1].joint_reason


def test_what_does_not_add_up_keeps_no_programs(w, monkeypatch):
    from clarke.audit import groups

    kept = []
    monkeypatch.setattr(groups, "kept_of", lambda *args: kept.append(args) or "not kept")
    with clarke.audit(seconds=20):
        for _ in range(5):
            w.grad = None
            up(w).backward()
    assert len(kept) == 1  # of the first call, nobody knew
