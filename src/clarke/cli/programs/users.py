"""What the users of design and practice meet: losses, tests, training, NaN, stationarity."""

from __future__ import annotations

import torch

from clarke.cli.programs.model import Example


def bce_with_logits(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """Binary cross entropy with logits, smooth in x with slope ½: clamp and abs should cancel."""
    target = t.detach()
    return torch.clamp(x, min=0) - x * target + torch.log1p(torch.exp(-torch.abs(x)))


def box_distance(p: torch.Tensor) -> torch.Tensor:
    """Depth at the centre of a box: a four-way tie, where finite differences are no help."""
    low, high = torch.zeros(2, dtype=p.dtype), torch.full((2,), 2.0, dtype=p.dtype)
    return torch.cat([p - low, high - p]).amin()


def ppo_ratio(log_probability: torch.Tensor) -> torch.Tensor:
    """PPO's clipped objective on fresh data: every sample's ratio is 1 and its minimum is tied."""
    old = torch.tensor([-1.0, -0.5, -2.0], dtype=log_probability.dtype)
    advantage = torch.tensor([1.0, -0.5, 2.0], dtype=log_probability.dtype)
    ratio = torch.exp(log_probability - old)
    clipped = torch.clamp(ratio, 0.8, 1.2)
    return -torch.minimum(ratio * advantage, clipped * advantage).mean()


def clamp_at_bound(x: torch.Tensor) -> torch.Tensor:
    """A value on the bound of a clamp: releases of torch differ here, and either slope is valid."""
    return torch.clamp(x, min=0.0)


def guarded_sqrt(x: torch.Tensor) -> torch.Tensor:
    """The branch that where() discards is sqrt of a negative number, and its NaN comes through."""
    return torch.where(x > 0, torch.sqrt(x), x)


def root_of_abs(x: torch.Tensor) -> torch.Tensor:
    """An infinite slope: no generalized gradient exists at the point."""
    return torch.sqrt(torch.abs(x))


def stuck(x: torch.Tensor) -> torch.Tensor:
    """Autograd's zero is a valid Clarke gradient, yet the function falls to the right."""
    return -torch.relu(x)


def rounded(x: torch.Tensor) -> torch.Tensor:
    """A step: the value jumps, so there is no generalized gradient to return."""
    return torch.round(x) * 2 + x


USERS = (
    Example(
        "bce-with-logits",
        "clamp(x, min=0) - x t + log1p(exp(-|x|))",
        bce_with_logits,
        (0.0, 0.0),
        "author of a loss",
    ),
    Example("box-distance", "amin(p - low, high - p)", box_distance, ((1.0, 1.0),), "test author"),
    Example(
        "ppo-ratio",
        "-mean min(r A, clamp(r, 0.8, 1.2) A), r = 1",
        ppo_ratio,
        ((-1.0, -0.5, -2.0),),
        "trainer",
    ),
    Example("clamp-at-bound", "clamp(x, min=0)", clamp_at_bound, (0.0,), "upgrader of torch"),
    Example("guarded-sqrt", "where(x > 0, sqrt(x), x)", guarded_sqrt, (-1.0,), "NaN hunter"),
    Example("root-of-abs", "sqrt(|x|)", root_of_abs, (0.0,), "NaN hunter"),
    Example("stuck", "-relu(x)", stuck, (0.0,), "optimizer researcher"),
    Example("rounded", "2 round(x) + x", rounded, (0.5,), "author of a layer"),
)
