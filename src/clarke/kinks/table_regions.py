"""Elementwise operations with pieces: their switching functions and pieces."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from clarke.kinks.model import Call
from clarke.kinks.regions import Differences, RegionRule

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from clarke.kinks.regions import Pairs

_Pieces = tuple[torch.Tensor, ...]


def _x(call: Call) -> torch.Tensor:
    x: torch.Tensor = call.args[0]
    return x


def _at(*points: float) -> Differences:
    """Switching functions ``x - point``."""
    return Differences(lambda call: tuple([(_x(call), p) for p in points]))


def _constant(x: torch.Tensor, value: float) -> torch.Tensor:
    return torch.full_like(x, value)


def _relu(call: Call) -> _Pieces:
    x = _x(call)
    return (torch.zeros_like(x), x)


def _leaky(call: Call) -> _Pieces:
    x = _x(call)
    return (x * call.arg(1, "negative_slope", 0.01), x)


def _prelu(call: Call) -> _Pieces:
    x = _x(call)
    return (x * call.args[1], x)


def _hardtanh_bounds(call: Call) -> tuple[float, float]:
    return call.arg(1, "min_val", -1.0), call.arg(2, "max_val", 1.0)


def _hardtanh(call: Call) -> _Pieces:
    x = _x(call)
    low, high = _hardtanh_bounds(call)
    return (_constant(x, low), x, _constant(x, high))


def _hardsigmoid(call: Call) -> _Pieces:
    x = _x(call)
    return (torch.zeros_like(x), (x + 3) / 6, torch.ones_like(x))


def _hardswish(call: Call) -> _Pieces:
    x = _x(call)
    return (torch.zeros_like(x), x * (x + 3) / 6, x)


def _elu(call: Call) -> _Pieces:
    x = _x(call)
    alpha, scale = call.arg(1, "alpha", 1.0), call.arg(2, "scale", 1.0)
    input_scale = call.arg(3, "input_scale", 1.0)
    return (alpha * scale * _expm1(_bounded(x * input_scale)), x * scale)


def _elu_slope(call: Call) -> bool:
    return bool(call.arg(1, "alpha", 1.0) * call.arg(3, "input_scale", 1.0) == 1)


def _celu(call: Call) -> _Pieces:
    x = _x(call)
    alpha = call.arg(1, "alpha", 1.0)
    return (alpha * _expm1(_bounded(x / alpha)), x)


def _expm1(x: torch.Tensor) -> torch.Tensor:
    """``exp(x) - 1`` with the slope ``exp(x)``: autograd's, result plus 1, loses digits at -30."""
    slope = torch.exp(x)
    return torch.expm1(x.detach()) + (slope - slope.detach())


def _bounded(x: torch.Tensor) -> torch.Tensor:
    # The exponential piece is unused above zero; keep it finite there so that no 0 * inf arises.
    return torch.where(x > 1, torch.zeros_like(x), x)


def _threshold_split(call: Call) -> _Pieces:
    return (_x(call) - call.arg(1, "threshold"),)


def _threshold(call: Call) -> _Pieces:
    x = _x(call)
    return (_constant(x, call.arg(2, "value")), x)


def _shrink_split(call: Call) -> _Pieces:
    x, bound = _x(call), call.arg(1, "lambd", 0.5)
    return (x + bound, x - bound)


def _hardshrink(call: Call) -> _Pieces:
    x = _x(call)
    return (x, torch.zeros_like(x), x)


def _softshrink(call: Call) -> _Pieces:
    x, bound = _x(call), call.arg(1, "lambd", 0.5)
    return (x + bound, torch.zeros_like(x), x - bound)


def _absolute(call: Call) -> _Pieces:
    x = _x(call)
    return (-x, x)


def _bounds(call: Call) -> tuple[Any, Any]:
    name = call.func._schema.name.rstrip("_").rsplit("::", 1)[-1]
    if name == "clamp_min":
        return call.arg(1, "min"), None
    if name == "clamp_max":
        return None, call.arg(1, "max")
    low, high = call.arg(1, "min"), call.arg(2, "max")
    if low is not None and high is not None:
        # torch: min(max(x, lo), hi); where lo > hi the result is hi everywhere.
        if isinstance(low, torch.Tensor) or isinstance(high, torch.Tensor):
            x = _x(call)
            low, high = _as_like(low, x), _as_like(high, x)
            low = torch.where(low > high, high, low)
        else:
            low = min(low, high)
    return low, high


def _as_like(bound: Any, x: torch.Tensor) -> torch.Tensor:
    if isinstance(bound, torch.Tensor):
        return bound.to(x.dtype)
    return _constant(x, bound)


def _clamp_pairs(call: Call) -> Pairs:
    x = _x(call)
    return tuple(
        [(x, _as_like(b, x) if _is_tensor(b) else b) for b in _bounds(call) if b is not None]
    )


def _is_tensor(value: Any) -> bool:
    return isinstance(value, torch.Tensor)


def _equal_bounds(call: Call) -> torch.Tensor | None:
    """Where two bounds are equal, of which one is a tensor and may move."""
    low, high = call.arg(1, "min"), call.arg(2, "max")
    if low is None or high is None or not isinstance(low, torch.Tensor):
        return None
    return torch.as_tensor(low == high)


def _clamp(call: Call) -> _Pieces:
    x = _x(call)
    low, high = _bounds(call)
    pieces: list[torch.Tensor] = []
    if low is not None:
        pieces.append(_as_like(low, x))
    pieces.append(x)
    if high is not None:
        pieces.append(_as_like(high, x))
    return tuple(pieces)


def _pair(call: Call) -> Pairs:
    return ((call.args[0], call.args[1]),)


def _maximum(call: Call) -> _Pieces:
    return (call.args[1], call.args[0])


def _minimum(call: Call) -> _Pieces:
    return (call.args[0], call.args[1])


def _number_split(call: Call) -> _Pieces:
    """``x - y``, where a NaN loses against a number."""
    x, y = call.args[0], call.args[1]
    gap = torch.where(torch.isnan(x), torch.full_like(x - y, -1.0), x - y)
    return (torch.where(torch.isnan(y), torch.ones_like(gap), gap),)


def _fmin_split(call: Call) -> _Pieces:
    x, y = call.args[0], call.args[1]
    gap = torch.where(torch.isnan(x), torch.ones_like(x - y), x - y)
    return (torch.where(torch.isnan(y), torch.full_like(gap, -1.0), gap),)


def _loss_split(default: float) -> Callable[[Call], _Pieces]:
    def split(call: Call) -> _Pieces:
        gap, bound = call.args[0] - call.args[1], call.arg(3, "", default)
        return (gap + bound, gap - bound)

    return split


def _loss_slope(call: Call) -> bool:
    return bool(call.arg(3, "", 1.0) != 0)


def _smooth_l1(call: Call) -> _Pieces:
    gap, beta = call.args[0] - call.args[1], call.arg(3, "beta", 1.0)
    return (-gap - beta / 2, gap * gap / (2 * beta), gap - beta / 2)


def _huber(call: Call) -> _Pieces:
    gap, delta = call.args[0] - call.args[1], call.arg(3, "delta", 1.0)
    return (-delta * (gap + delta / 2), gap * gap / 2, delta * (gap - delta / 2))


def _near_zero(x: torch.Tensor) -> torch.Tensor:
    return torch.where(x.abs() < 1, x, torch.zeros_like(x))


def _scaled_bessel(order: int) -> Callable[[Call], _Pieces]:
    """``exp(-|x|) I(x)``: near 0 by either sign, elsewhere as it is."""

    def pieces(call: Call) -> _Pieces:
        x = _x(call)
        near = _near_zero(x)
        bessel = torch.i0(near) if order == 0 else torch.special.i1(near)
        whole = torch.special.i0e(x) if order == 0 else torch.special.i1e(x)
        at = x.abs() < 1
        return (
            torch.where(at, torch.exp(near) * bessel, whole),
            torch.where(at, torch.exp(-near) * bessel, whole),
        )

    return pieces


def regions() -> Iterator[tuple[str, RegionRule]]:
    """Rules by operator name; in-place forms share the rule of the plain one."""
    relu = RegionRule(_at(0.0), _relu, signs_suffice=True)
    yield "relu", relu
    yield "leaky_relu", RegionRule(_at(0.0), _leaky)
    yield "_prelu_kernel", RegionRule(_at(0.0), _prelu)
    yield (
        "hardtanh",
        RegionRule(
            Differences(lambda c: tuple([(_x(c), b) for b in _hardtanh_bounds(c)])), _hardtanh
        ),
    )
    yield "hardsigmoid", RegionRule(_at(-3.0, 3.0), _hardsigmoid)
    yield "hardswish", RegionRule(_at(-3.0, 3.0), _hardswish)
    yield "elu", RegionRule(_at(0.0), _elu, one_slope=_elu_slope)
    yield "celu", RegionRule(_at(0.0), _celu, one_slope=lambda _: True)
    yield "threshold", RegionRule(_threshold_split, _threshold, jumps=True)
    yield "hardshrink", RegionRule(_shrink_split, _hardshrink, jumps=True)
    yield "softshrink", RegionRule(_shrink_split, _softshrink)
    yield "abs", RegionRule(_at(0.0), _absolute)
    clamp = RegionRule(Differences(_clamp_pairs), _clamp, overlap=_equal_bounds)
    yield "clamp", clamp
    yield "clamp.Tensor", clamp
    for name in ("clamp_min", "clamp_max"):
        yield name, clamp
        yield f"{name}.Tensor", clamp
    yield "maximum", RegionRule(Differences(_pair), _maximum)
    yield "minimum", RegionRule(Differences(_pair), _minimum)
    yield "fmax", RegionRule(_number_split, _maximum)
    yield "fmin", RegionRule(_fmin_split, _minimum)
    yield "smooth_l1_loss", RegionRule(_loss_split(1.0), _smooth_l1, one_slope=_loss_slope)
    yield "huber_loss", RegionRule(_loss_split(1.0), _huber, one_slope=_loss_slope)
    yield "special_i0e", RegionRule(_at(0.0), _scaled_bessel(0))
    yield "special_i1e", RegionRule(_at(0.0), _scaled_bessel(1))
