"""A suite of 30 tests as a library has them, whose inputs stand on kinks: `make upgrade-demo`."""

import pytest
import torch
from torch.nn import functional

pytestmark = pytest.mark.clarke(seconds=20)
HALVES = (-1.0, -0.5, 0.0, 0.5, 1.0)


def points(*values):
    """A leaf."""
    return torch.tensor(values, dtype=torch.float64, requires_grad=True)


def huber_by_hand(x):
    """Quadratic inside, linear outside, by a clamp."""
    inside = x.abs().clamp(max=1.0)
    return (0.5 * inside**2 + (x.abs() - inside)).sum()


def hinge(x):
    """max(0, 1 - x)."""
    return torch.clamp(1 - x, min=0).mean()


def cross_entropy_by_hand(x):
    """The form that does not overflow."""
    return (torch.clamp(x, min=0) + torch.log1p(torch.exp(-x.abs()))).mean()


def smooth_step(x):
    """A polynomial between two bounds."""
    t = x.clamp(0, 1)
    return (t * t * (3 - 2 * t)).sum()


def ppo(x):
    """The clipped objective of PPO."""
    ratio = torch.exp(x)
    return -torch.minimum(ratio, ratio.clamp(0.5, 1.0)).mean()


def total_variation(x):
    """Differences of neighbours."""
    return (x[1:] - x[:-1]).abs().sum()


def pinball(x):
    """A quantile loss."""
    return torch.maximum(0.9 * x, -0.1 * x).sum()


def dead_zone(x):
    """Nothing within half a unit."""
    return functional.softshrink(x, 0.5).square().sum() + functional.hardshrink(x, 0.5).sum()


def quantised(x):
    """A fake quantiser's clamp, without its rounding."""
    return (x.clamp(-0.5, 0.5) * 7).square().mean()


def iou(x):
    """Overlap of two intervals, [x0, x1] and [0, 1]."""
    inner = (torch.minimum(x[1], torch.ones_like(x[1])) - x[0].clamp(min=0)).clamp(min=0)
    return inner / (1 + (x[1] - x[0]).clamp(min=0.25) - inner)


LOSSES = (
    torch.relu,
    functional.relu6,
    functional.leaky_relu,
    functional.elu,
    functional.hardtanh,
    functional.hardsigmoid,
    functional.hardswish,
    functional.softplus,
    functional.gelu,
    functional.silu,
    torch.abs,
    torch.sigmoid,
    torch.tanh,
    hinge,
    huber_by_hand,
    cross_entropy_by_hand,
    smooth_step,
    ppo,
    total_variation,
    pinball,
    dead_zone,
    quantised,
    torch.amax,
    torch.logsumexp,
)


@pytest.mark.parametrize("loss", LOSSES, ids=lambda f: f.__name__)
def test_gradient_is_finite(loss):
    """Every loss has a gradient at points on its kinks."""
    x = points(*HALVES)
    more = (0,) if loss is torch.logsumexp else ()
    loss(x, *more).sum().backward()
    assert bool(torch.isfinite(x.grad).all())


@pytest.mark.parametrize("low", [0.0, 0.5])
def test_overlap_of_intervals(low):
    """Intervals whose ends coincide."""
    x = points(low, 1.0)
    iou(x).backward()
    assert x.grad.shape == (2,)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_losses_of_torch(reduction):
    """Losses of torch at targets that are met."""
    x, y = points(*HALVES), torch.tensor(HALVES, dtype=torch.float64)
    value = functional.smooth_l1_loss(x, y, reduction=reduction)
    (value + functional.l1_loss(x, y, reduction=reduction)).backward()
    assert bool((x.grad == 0).all())


def test_a_step_of_training():
    """A network whose weights are zero."""
    net = torch.nn.Sequential(torch.nn.Linear(2, 4), torch.nn.ReLU(), torch.nn.Linear(4, 1))
    for p in net.parameters():
        torch.nn.init.zeros_(p)
    net(torch.ones(3, 2)).clamp(min=0).mean().backward()
    assert all(p.grad is not None for p in net.parameters())


def test_values_are_clipped():
    """A value function's clipped loss."""
    value, old = points(0.2, -0.2, 0.0), torch.zeros(3, dtype=torch.float64)
    clipped = old + (value - old).clamp(-0.2, 0.2)
    torch.maximum((value - 1) ** 2, (clipped - 1) ** 2).mean().backward()
    assert value.grad.shape == (3,)
