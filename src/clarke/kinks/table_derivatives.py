"""Derivatives that were differentiated again (gradient penalties, products with Hessians).

The derivative of an operation with pieces has those of its pieces, and steps from one to the next
unless what it multiplies vanishes there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

import torch

from clarke.kinks import singular as at
from clarke.kinks.lowering import Lowerer, Lowering, Part
from clarke.kinks.model import Call, Hazard, KinkRule, broadcast_shape
from clarke.kinks.regions import RegionRule
from clarke.kinks.singular import SingularRule

_Pieces = tuple[torch.Tensor, ...]
_ATEN: Final = torch.ops.aten


def _slope(call: Call) -> torch.Tensor:
    """The derivative of what comes behind the operation."""
    found: torch.Tensor = call.args[0]
    return found


def _second(call: Call) -> torch.Tensor:
    found: torch.Tensor = call.args[1]
    return found


def _none(call: Call) -> torch.Tensor:
    return torch.zeros_like(_slope(call))


def _above(call: Call) -> _Pieces:
    return (_second(call) - call.arg(2, "threshold"),)


def _between(call: Call) -> _Pieces:
    return (_second(call) - call.arg(2, "min_val"), _second(call) - call.arg(3, "max_val"))


def _between_threes(call: Call) -> _Pieces:
    return (_second(call) + 3, _second(call) - 3)


def _hardswish(call: Call) -> _Pieces:
    return (_none(call), _slope(call) * ((2 * _second(call) + 3) / 6), _slope(call))


def _beside_zero(call: Call) -> _Pieces:
    return (_second(call) + call.arg(2, "lambd"), _second(call) - call.arg(2, "lambd"))


def _elu_split(call: Call) -> _Pieces:
    return (call.args[5],)


def _elu(call: Call) -> _Pieces:
    """By the argument or, in place, by the result, which has its sign."""
    alpha, scale, input_scale, is_result, x = call.args[1:6]
    below = torch.where(x > 0, torch.zeros_like(x), x)
    if is_result:
        return (_slope(call) * (input_scale * (below + alpha * scale)), _slope(call) * scale)
    grown = torch.exp(below * input_scale)
    return (_slope(call) * (alpha * scale * input_scale * grown), _slope(call) * scale)


def _loss_split(call: Call) -> _Pieces:
    gap, bound = call.args[1] - call.args[2], call.args[4]
    return (gap + bound, gap - bound)


def _huber(call: Call) -> _Pieces:
    gap, bound = call.args[1] - call.args[2], call.args[4]
    return (-bound * _slope(call), _slope(call) * gap, bound * _slope(call))


def _smooth_l1(call: Call) -> _Pieces:
    gap, bound = call.args[1] - call.args[2], call.args[4]
    return (-_slope(call), _slope(call) * (gap / bound), _slope(call))


def _each(name: str) -> Lowering:
    """A loss's derivative: a rule for the elements, behind the share that each has in a mean."""

    def lowering(lo: Lowerer) -> tuple[Part, ...] | None:
        slope, x, y = lo.arg(0, "grad_output"), lo.arg(1, "self"), lo.arg(2, "target")
        reduction, bound = int(lo.arg(3, "reduction")), float(lo.arg(4, "beta"))
        shape = broadcast_shape(x.value, y.value)
        if name == "smooth_l1_loss_backward" and bound == 0:
            side = lo(_ATEN.sign.default, lo(_ATEN.sub.Tensor, x, y))
            slope = lo(_ATEN.mul.Tensor, lo(_ATEN.expand.default, slope, list(shape)), side)
        elif reduction == 0:
            return None
        else:
            slope = lo(_ATEN.expand.default, slope, list(shape))
            slope = lo(getattr(_ATEN, name).default, slope, x, y, 0, bound)
        if reduction == 1:
            slope = lo(_ATEN.div.Scalar, slope, shape.numel())
        return (slope,)

    return lowering


def _prelu(lo: Lowerer) -> tuple[Part, ...]:
    slope, x, weight = lo.arg(0, "grad_output"), lo.arg(1, "self"), lo.arg(2, "weight")
    above = lo(_ATEN.threshold_backward.default, slope, x, 0)
    below = lo(_ATEN.sub.Tensor, slope, above)
    first = lo(_ATEN.add.Tensor, above, lo(_ATEN.mul.Tensor, below, weight))
    return (first, lo(_ATEN.mul.Tensor, below, x))


def _rrelu(lo: Lowerer) -> tuple[Part, ...] | None:
    slope, x, noise = lo.arg(0, "grad_output"), lo.arg(1, "self"), lo.arg(2, "noise")
    if lo.arg(5, "training"):  # the noise is 1 above zero
        above = lo(_ATEN.threshold_backward.default, slope, x, 0)
        below = lo(_ATEN.sub.Tensor, slope, above)
        return (lo(_ATEN.add.Tensor, above, lo(_ATEN.mul.Tensor, below, noise.value)),)
    below = (float(lo.arg(3, "lower")) + float(lo.arg(4, "upper"))) / 2
    return (lo(_ATEN.leaky_relu_backward.default, slope, x, below, False),)


def derivatives() -> Iterator[tuple[str, KinkRule]]:
    """(operator with overload, rule)."""

    def steps(
        split: Callable[[Call], _Pieces], pieces: Callable[[Call], Any], by: int = 1
    ) -> RegionRule:
        return RegionRule(split, pieces, jumps=True, by=by)

    yield "threshold_backward", steps(_above, lambda c: (_none(c), _slope(c)))
    yield (
        "leaky_relu_backward",
        steps(lambda c: (_second(c),), lambda c: (_slope(c) * c.arg(2, ""), _slope(c))),
    )
    yield "hardtanh_backward", steps(_between, lambda c: (_none(c), _slope(c), _none(c)))
    yield "hardswish_backward", steps(_between_threes, _hardswish)
    yield "hardshrink_backward", steps(_beside_zero, lambda c: (_slope(c), _none(c), _slope(c)))
    yield "softshrink_backward", steps(_beside_zero, lambda c: (_slope(c), _none(c), _slope(c)))
    yield "elu_backward", steps(_elu_split, _elu, by=5)
    yield "huber_loss_backward", RegionRule(_loss_split, _huber)
    yield "smooth_l1_loss_backward", RegionRule(_loss_split, _smooth_l1)
    yield (
        "binary_cross_entropy_backward",
        SingularRule(at.kept_probability_is_extreme, Hazard.FORMULA),
    )


def lowered_derivatives() -> Iterator[tuple[str, Lowering]]:
    """(operator with overload, lowering)."""
    for name in ("smooth_l1_loss_backward", "huber_loss_backward"):
        yield name, _each(name)
    yield "_prelu_kernel_backward", _prelu
    yield "rrelu_with_noise_backward", _rrelu
