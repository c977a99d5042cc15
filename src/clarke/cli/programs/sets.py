"""Functions whose whole set of generalized gradients is known on paper."""

from __future__ import annotations

from typing import Any

import torch

from clarke.cli.programs.known_wrong import steep_relu
from clarke.cli.programs.model import Example


def cancelling_abs(x: torch.Tensor) -> torch.Tensor:
    """Identically zero, and autograd's halves cancel as they should."""
    return x.abs() - x.abs()


def abs_and_max(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Autograd mixes the pieces of both kinks; the mixture lies inside the set."""
    return x.abs() + torch.maximum(x, y)


def two_negatives(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Four limiting gradients {0, 2} x {0, 2}; autograd returns their mean."""
    return x + y - x.abs() - y.abs()


def five_planes(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Five of the six planes meet at zero; autograd takes their mean."""
    zero = torch.zeros_like(x)
    planes = [zero, 2 * x - 5 * y, 3 * x + 2 * y, 2 * x + 5 * y, 3 * x - 2 * y, zero - 100]
    return torch.stack(planes).amax(0)


def nested_max(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Kinks inside a kink: four limiting gradients, of which autograd returns the mean."""
    planes = [torch.full_like(x, -100.0), 3 * x + 2 * y.abs(), 2 * x + 5 * y.abs()]
    return torch.stack(planes).amax(0)


def flattened_abs(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Differentiable: the kink is multiplied by what vanishes with it, so it does not matter."""
    gap = x - y
    return (1 + gap.abs()) * gap


def two_clamps(x: torch.Tensor) -> torch.Tensor:
    """Equal to x; clamp's slopes at the two bounds are added, but only one side holds at once."""
    return torch.clamp(x, min=0) + torch.clamp(x, max=0)


def arsinh(x: torch.Tensor) -> torch.Tensor:
    """Differentiable with slope 1, by a formula in which sign and abs should cancel."""
    return torch.sign(x) * torch.log(x.abs() + torch.sqrt(x * x + 1))


def cusp(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """The pieces that autograd takes hold on no ray from the point, only along a curve."""
    return steep_relu(y * y - steep_relu(x))


class _GreedyPool(torch.autograd.Function):
    """A maximum that sends the whole gradient to every tied element."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        value = x.max()
        ctx.save_for_backward(x == value)
        return value

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
        (tied,) = ctx.saved_tensors
        result: torch.Tensor = grad * tied
        return result


def greedy_pool(x: torch.Tensor) -> torch.Tensor:
    """A hand-written maximum whose backward is the gradient of no selection."""
    result: torch.Tensor = _GreedyPool.apply(x)
    return result


_PAIR = (0.0, 0.0)

SETS = (
    Example("cancelling-abs", "|x| - |x|", cancelling_abs, (0.0,), "exact set {0}"),
    Example("abs-and-max", "|x| + max(x, y)", abs_and_max, _PAIR, "four limiting gradients"),
    Example("two-negatives", "x + y - |x| - |y|", two_negatives, _PAIR, "{0, 2} x {0, 2}"),
    Example(
        "five-planes",
        "max(0, 2x-5y, 3x+2y, 2x+5y, 3x-2y, -100)",
        five_planes,
        _PAIR,
        "five limiting gradients",
    ),
    Example("nested-max", "max(-100, 3x+2|y|, 2x+5|y|)", nested_max, _PAIR, "(3,±2), (2,±5)"),
    Example("flattened-abs", "(1 + |x-y|)(x-y)", flattened_abs, _PAIR, "exact set {(1,-1)}"),
    Example("two-clamps", "clamp(x, min=0) + clamp(x, max=0)", two_clamps, (0.0,), "set {1}"),
    Example("arsinh", "sign(x) log(|x| + sqrt(x² + 1))", arsinh, (0.0,), "exact set {1}"),
    Example("cusp", "h(y² - h(x)), h'(0)=1", cusp, _PAIR, "(0,0) and (-1,0) are limits"),
    Example(
        "greedy-pool",
        "a maximum with its own backward",
        greedy_pool,
        ((1.0, 1.0, 0.0),),
        "custom autograd.Function",
    ),
)
