"""What a custom Function's forward writes to in place, which no graph of its own keeps."""

import pytest
import torch
from torch import nn

import clarke
from clarke.verdict import Verdict


class Normed(torch.autograd.Function):
    """A power of what is positive, divided by its sum in place: as sparse softmaxes do."""

    @staticmethod
    def forward(ctx, x):
        powers = torch.clamp(x, min=0) ** 1.5
        powers /= powers.sum(-1, keepdim=True)
        ctx.save_for_backward(x, powers)
        return powers

    @staticmethod
    def backward(ctx, grad):
        x, result = ctx.saved_tensors
        slopes = 1.5 * torch.clamp(x, min=0).sqrt()
        whole = (torch.clamp(x, min=0) ** 1.5).sum(-1, keepdim=True)
        return slopes * (grad - (grad * result).sum(-1, keepdim=True)) / whole


class Doubled(Normed):
    """The same with twice the slope."""

    @staticmethod
    def backward(ctx, grad):
        return 2 * Normed.backward(ctx, grad)


@pytest.mark.parametrize(
    "low",
    [
        lambda x: x.clamp(min=0),
        lambda x: x.clamp(0, 2),
        lambda x: x.clamp_min(0),
        lambda x: nn.functional.hardtanh(x, 0.0, 2.0),
        torch.relu,
    ],
)
def test_powers_of_what_a_bound_holds_at_zero_are_flat_there(low):
    def function(x):
        powers = low(x) ** 1.5
        return (powers / powers.sum() * WEIGHTS).sum()

    for values in ((0.4, -1.3, 0.7), (0.4, 0.0, 0.7)):
        x = torch.tensor(values, dtype=torch.float64, requires_grad=True)
        assert clarke.check(function, (x,), seconds=30).verdict is Verdict.SMOOTH


def test_powers_of_what_a_bound_does_not_hold_stay_steep():
    x = torch.tensor([0.0], dtype=torch.float64, requires_grad=True)
    for bounds in ((-1.0, 0.0), (None, 0.0), (0.0, -1.0)):
        report = clarke.check(lambda x, b=bounds: (x.clamp(*b) ** 0.5).sum(), (x,), seconds=30)
        assert report.verdict is not Verdict.SMOOTH


WEIGHTS = torch.tensor([0.3, -0.8, 0.5], dtype=torch.float64)


def judged(function, *values):
    x = torch.tensor(values, dtype=torch.float64, requires_grad=True)
    return clarke.check(lambda x: (function.apply(x) * WEIGHTS).sum(), (x,), seconds=30)


def test_a_forward_that_writes_in_place_is_run_again():
    assert judged(Normed, 0.4, 1.3, 0.7).verdict is Verdict.SMOOTH
    assert judged(Normed, 0.4, -1.3, 0.7).verdict is Verdict.SMOOTH
    assert judged(Doubled, 0.4, 1.3, 0.7).verdict is Verdict.NOT_CLARKE


def test_a_view_that_is_written_to_is_told_or_left_open():
    class Halves(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            whole = x**2
            whole[:1] *= 3
            return whole

        @staticmethod
        def backward(ctx, grad):
            (x,) = ctx.saved_tensors
            return 2 * x * grad * torch.tensor([3.0, 1.0, 1.0], dtype=x.dtype)

    assert judged(Halves, 0.4, 1.3, 0.7).verdict in (Verdict.SMOOTH, Verdict.UNDECIDED)


def test_views_that_are_made_behind_the_write_are_followed():
    class Shifted(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            whole = x**2
            whole.scatter_add_(0, torch.tensor([1]), torch.tensor([-1.0], dtype=x.dtype))
            ctx.save_for_backward(x, whole)
            return (whole.unsqueeze(0) * whole.unsqueeze(0)).sum(0)

        @staticmethod
        def backward(ctx, grad):
            x, whole = ctx.saved_tensors
            return 4 * x * whole * grad

    assert judged(Shifted, 0.4, 1.3, 0.7).verdict is Verdict.SMOOTH
