"""grid_sample, written with the pieces of its interpolation.

Between grid lines it is a polynomial of the sampling points. On one, where most samples of an
identity transformation stand, the weights of the pixels on either side are ``max(d, 0)`` and
``max(-d, 0)`` with ``d`` the distance from the line. Clipping and reflecting the coordinates bends
them likewise. The cubic kernel is continuously differentiable: it bends nowhere.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any, Final

import torch

from clarke.kinks.lowering import Lowerer, Part
from clarke.kinks.singular import NEAR, Singular, between_neighbours

_ATEN: Final = torch.ops.aten
_CUBIC: Final = -0.75  # the parameter of torch's cubic kernel
_BILINEAR, _NEAREST = 0, 1
_ZEROS, _BORDER = 0, 1


@dataclass(frozen=True, eq=False)
class _Axis:
    """Pixels and weights along one axis: constant numbers, differentiable weights."""

    taps: tuple[tuple[torch.Tensor, Any], ...]


def grid_sampler(lo: Lowerer) -> tuple[Part, ...] | None:
    """grid_sampler_2d and grid_sampler_3d; None where the nearest pixel is not unique."""
    x, grid = lo.arg(0, "input"), lo.arg(1, "grid")
    mode, padding, corners = (lo.arg(i, "") for i in (2, 3, 4))
    if not bool(torch.isfinite(grid.value).all()) or not grid.value.numel() or not x.value.numel():
        return None
    call = Singular(lo.op.func, (x.value, grid.value, mode, padding, corners), {}, frozenset({1}))
    if mode == _NEAREST and lo.varied(1) and bool(between_neighbours(call).any()):
        return None
    axes = [
        _axis(lo, grid, i, x.value.shape[-1 - i], mode, padding, corners=corners)
        for i in range(grid.value.shape[-1])
    ]
    return (_weighted(lo, x, axes),)


def _axis(
    lo: Lowerer, grid: Part, i: int, size: int, mode: int, padding: int, *, corners: bool
) -> _Axis:
    shifted = lo(_ATEN.add.Scalar, lo(_ATEN.select.int, grid, -1, i), 1.0)
    if corners:
        pixel = lo(_ATEN.mul.Scalar, shifted, (size - 1) / 2)
    else:
        pixel = lo(_ATEN.sub.Scalar, lo(_ATEN.mul.Scalar, shifted, size / 2), 0.5)
    # Where pixels may lie on one side only, since coordinates were clipped there.
    rises = falls = torch.ones_like(pixel.value)
    if mode in (_BILINEAR, _NEAREST) and padding != _ZEROS:
        if padding != _BORDER:
            pixel = _reflected(lo, pixel, size, corners=corners)
        low, high = (_near(pixel.value, bound, size) for bound in (0.0, size - 1.0))
        rises, falls = (~high).to(rises), (~low).to(falls)
        pixel = _clipped(lo, pixel, size, low, high)
    if mode == _NEAREST:
        return _checked([(pixel.value.round().to(torch.int64), None)], size, padding, corners)
    if mode == _BILINEAR:
        return _checked(_linear(lo, pixel, size, rises, falls), size, padding, corners)
    return _checked(_cubic(lo, pixel), size, padding, corners)


def _near(value: torch.Tensor, place: torch.Tensor | float, size: int) -> torch.Tensor:
    room = NEAR * torch.finfo(value.dtype).eps * (size + value.abs())
    return (value - place).abs() <= room


def _bend(lo: Lowerer, value: Part, bent: torch.Tensor) -> tuple[Part, Part]:
    """``max(v - v0, 0)`` and ``max(v0 - v, 0)`` with kinks, at the recorded v0, where `bent`."""
    # As autograd does at a grid line, where it takes the cell that begins there.
    up = lo(_ATEN.sub.Tensor, value, torch.where(bent, value.value, value.value - 1))
    down = lo(_ATEN.rsub.Tensor, value, torch.where(bent, value.value, value.value - 1))
    return lo(_ATEN.clamp_min.default, up, 0.0), lo(_ATEN.relu.default, down)


def _clipped(lo: Lowerer, pixel: Part, size: int, low: torch.Tensor, high: torch.Tensor) -> Part:
    """Clipping to the pixels there are; at a bound autograd takes the constant side."""
    value, last = pixel.value, size - 1.0
    inside = (value > 0) & (value < last) & ~low & ~high
    if size == 1:
        return lo(_ATEN.mul.Scalar, pixel, 0.0)  # type: ignore[no-any-return]
    at_low = torch.where(low, value, value - 1)
    rising = lo(_ATEN.relu.default, lo(_ATEN.sub.Tensor, pixel, at_low))
    at_high = torch.where(high, value, value + 1)
    falling = lo(_ATEN.relu.default, lo(_ATEN.rsub.Tensor, pixel, at_high))
    top = lo(_ATEN.add.Scalar, lo(_ATEN.neg.default, falling), last)
    found = lo(_ATEN.where.self, high, top, value.clamp(0.0, last))
    found = lo(_ATEN.where.self, low, rising, found)
    return lo(_ATEN.where.self, inside, pixel, found)  # type: ignore[no-any-return]


def _reflected(lo: Lowerer, pixel: Part, size: int, *, corners: bool) -> Part:
    low, high = (0.0, size - 1.0) if corners else (-0.5, size - 0.5)
    if high == low:
        return lo(_ATEN.mul.Scalar, pixel, 0.0)  # type: ignore[no-any-return]
    span = high - low
    turns = (pixel.value - low) / span
    folds = _near(pixel.value, low + turns.round() * span, size)
    number = torch.where(folds, turns.round(), turns.floor())
    odd = number.remainder(2) == 1
    up, down = _bend(lo, pixel, folds)
    beyond = lo(_ATEN.sub.Tensor, pixel, low + number * span)
    beyond = lo(_ATEN.where.self, folds, lo(_ATEN.add.Tensor, up, down), beyond)
    signed = lo(_ATEN.mul.Tensor, beyond, torch.where(odd, -1.0, 1.0).to(pixel.value))
    ends = torch.where(odd, high, low).to(pixel.value)
    return lo(_ATEN.add.Tensor, signed, ends)  # type: ignore[no-any-return]


def _linear(
    lo: Lowerer, pixel: Part, size: int, rises: torch.Tensor, falls: torch.Tensor
) -> list[tuple[torch.Tensor, Any]]:
    value = pixel.value
    on_line = _near(value, value.round(), size)
    first = torch.where(on_line, value.round(), value.floor())
    up, down = _bend(lo, pixel, on_line)
    between = lo(_ATEN.sub.Tensor, pixel, first)
    # Beyond a bound no pixel has a weight, whatever the coordinate before clipping did.
    right = lo(_ATEN.mul.Tensor, lo(_ATEN.where.self, on_line, up, between), rises)
    left = lo(_ATEN.mul.Tensor, down, on_line.to(value) * falls)
    middle = lo(_ATEN.rsub.Scalar, lo(_ATEN.add.Tensor, left, right), 1.0)
    k = first.to(torch.int64)
    return [(k, middle), (k + 1, right), (k - 1, left)]


def _cubic(lo: Lowerer, pixel: Part) -> list[tuple[torch.Tensor, Any]]:
    first = pixel.value.floor()
    t = lo(_ATEN.sub.Tensor, pixel, first)

    def polynomial(x: Part, *coefficients: float) -> Part:
        total = lo(_ATEN.mul.Scalar, x, coefficients[0])
        for c in coefficients[1:-1]:
            total = lo(_ATEN.mul.Tensor, lo(_ATEN.add.Scalar, total, c), x)
        return lo(_ATEN.add.Scalar, total, coefficients[-1])  # type: ignore[no-any-return]

    def near(x: Part) -> Part:
        return polynomial(x, _CUBIC + 2, -(_CUBIC + 3), 0.0, 1.0)

    def far(x: Part) -> Part:
        return polynomial(x, _CUBIC, -5 * _CUBIC, 8 * _CUBIC, -4 * _CUBIC)

    rest = lo(_ATEN.rsub.Scalar, t, 1.0)
    k = first.to(torch.int64)
    return [
        (k - 1, far(lo(_ATEN.add.Scalar, t, 1.0))),
        (k, near(t)),
        (k + 1, near(rest)),
        (k + 2, far(lo(_ATEN.add.Scalar, rest, 1.0))),
    ]


def _checked(taps: list[tuple[torch.Tensor, Any]], size: int, padding: int, corners: Any) -> _Axis:
    """Pixel numbers inside of the image; -1 for those that count as zero."""
    return _Axis(tuple((_inside(k, size, padding, corners=bool(corners)), w) for k, w in taps))


def _inside(number: torch.Tensor, size: int, padding: int, *, corners: bool) -> torch.Tensor:
    if padding == _ZEROS:
        return torch.where((number >= 0) & (number < size), number, -1)
    if padding == _BORDER:
        return number.clamp(0, size - 1)
    span = 2 * (size - 1) if corners else 2 * size
    if span == 0:
        return torch.zeros_like(number)
    place = number.remainder(span)
    back = span - place - (0 if corners else 1)
    return torch.where(place < size, place, back).clamp(0, size - 1)


def _weighted(lo: Lowerer, x: Part, axes: list[_Axis]) -> Part:
    batch, channels, *sizes = x.value.shape
    shape = axes[0].taps[0][0].shape  # batch first
    plain = lo(_ATEN.clone.default, x, memory_format=torch.contiguous_format)
    pixels = lo(_ATEN.view.default, plain, [batch, channels, -1])
    total = None
    for chosen in itertools.product(*(a.taps for a in axes)):
        place, valid = torch.zeros(shape, dtype=torch.int64), torch.ones(shape, dtype=torch.bool)
        weight = None
        stride = 1
        for (number, w), size in zip(chosen, reversed(sizes), strict=True):
            valid = valid & (number >= 0)
            place = place + number.clamp(min=0) * stride
            stride *= size
            if w is not None:
                weight = w if weight is None else lo(_ATEN.mul.Tensor, weight, w)
        if not bool(valid.any()):
            continue
        index = place.reshape(batch, 1, -1).expand(batch, channels, -1)
        term = lo(_ATEN.gather.default, pixels, 2, index)
        factor: Any = valid.to(x.value.dtype)
        if weight is not None:
            factor = lo(_ATEN.mul.Tensor, weight, factor)
            factor = lo(_ATEN.clone.default, factor, memory_format=torch.contiguous_format)
            factor = lo(_ATEN.view.default, factor, [batch, 1, -1])
        else:
            factor = factor.reshape(batch, 1, -1)
        term = lo(_ATEN.mul.Tensor, term, factor)
        total = term if total is None else lo(_ATEN.add.Tensor, total, term)
    if total is None:  # all of it lies outside of the image
        zeros = torch.zeros(batch, channels, place.reshape(batch, -1).shape[1])
        total = lo(_ATEN.clone.default, zeros.to(x.value))
    return lo(_ATEN.view.default, total, [batch, channels, *shape[1:]])  # type: ignore[no-any-return]
