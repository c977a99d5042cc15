"""Make a point with a fault simpler for as long as the fault stays."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING

import torch

from clarke.hunt.subject import rows_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from clarke.hunt.subject import Point

_COUNTED = 10  # whole numbers up to here are equally easy to read
_PAIRED = 12  # entries up to which every two are moved together
_DIGITS = 1e9  # what a sum of numbers with few digits loses to rounding
_SHORT = 3  # digits with which an entry is left as it is, where others would have to move
_SIMPLE = (0.0, 1.0, -1.0, 2.0, -2.0, 3.0, 0.5, -0.5, 4.0, 5.0, 10.0, 0.25, 0.1, 100.0, 1000.0)


def shrunk(
    point: Point,
    holds: Callable[[Point], bool],
    follow: Callable[[Point, tuple[int, int], float], Point | None] | None = None,
) -> Point:
    """The simplest point found at which `holds` is still true.

    Args:
        point: Where it is true.
        holds: Whether the fault is there; false when time is up.
        follow: The point with another value of one entry, and others moved so that the same kinks
            are touched; None where there is none.
    """
    follows = () if follow is None else (partial(_followed, follow),)
    for _ in range(3):
        before = point
        for change in (_whole, _aligned, _together, _single, *follows, _along):
            point = _greedy(point, change, holds)
        if all(torch.equal(a, b) for a, b in zip(before, point, strict=True)):
            break
    return point


def complexity(value: float) -> tuple[int, int, float, bool]:
    """How hard a number is to read: zero, whole numbers, short decimals; small ones first."""
    if value == 0:
        return (0, 0, 0.0, math.copysign(1, value) < 0)
    digits = len(repr(abs(value)).replace("e", "").replace("-", "").replace(".", "").strip("0"))
    small = value.is_integer() and abs(value) <= _COUNTED
    return (1, 0 if small else digits, abs(value), value < 0)


def rows_dropped(point: Point, holds: Callable[[Point], bool]) -> Point:
    """The point with fewer rows in all inputs that have as many, where the fault stays."""
    row, size = 0, rows_of(point)
    while size is not None and row < size and size > 1:
        keep = [i for i in range(size) if i != row]
        fewer = tuple(x[keep] if x.dim() else x for x in point)
        if holds(fewer):
            point, size = fewer, size - 1
        else:
            row += 1
    return point


def _greedy(
    point: Point,
    change: Callable[[Point, int], Iterator[Point]],
    holds: Callable[[Point], bool],
) -> Point:
    """Take the first simplification that holds, place by place."""
    place = 0
    while True:
        tried = False
        for simpler in change(point, place):
            tried = True
            if _weight(simpler) < _weight(point) and holds(simpler):
                point = simpler
                break
        if not tried:
            return point
        place += 1


def _weight(point: Point) -> tuple[object, ...]:
    """What shrinking makes less: non-zero entries, then digits, distinct values and sizes."""
    values = [v for x in point for v in x.reshape(-1).tolist()]
    ranks = [complexity(v) for v in values]
    return (
        sum(r[0] for r in ranks),
        sum(r[1] for r in ranks),
        sum(r[2] for r in ranks),
        sum(r[3] for r in ranks),
    )


def _simpler(value: float) -> Iterator[float]:
    rounded = [float(f"{value:.{digits}g}") for digits in (1, 2, 3)] if math.isfinite(value) else []
    for candidate in (*_SIMPLE, *rounded):
        if complexity(candidate) < complexity(value):
            yield candidate


def _whole(point: Point, place: int) -> Iterator[Point]:
    """All of an input at once: zeros, ones, rounded."""
    if place >= len(point):
        return
    x = point[place]
    for new in (torch.zeros_like(x), torch.ones_like(x), x.round(), (10 * x).round() / 10):
        yield (*point[:place], new, *point[place + 1 :])


def _aligned(point: Point, place: int) -> Iterator[Point]:
    """Entries that correspond in all inputs of one shape, so that vectors stay parallel."""
    size = max((x.numel() for x in point), default=0)
    if place >= size:
        return
    alike = [x.numel() == size for x in point]
    for new in (0.0, 1.0):
        changed = [x.clone() for x in point]
        for x, chosen in zip(changed, alike, strict=True):
            if chosen:
                x.view(-1)[place] = new
        yield tuple(changed)


def _together(point: Point, place: int) -> Iterator[Point]:
    """All entries of one size at once, so that what is equal or opposite stays so."""
    sizes = sorted({abs(v) for x in point for v in x.reshape(-1).tolist()} - {0.0}, reverse=True)
    if place >= len(sizes):
        return
    size = sizes[place]
    for new in _simpler(size):
        yield tuple(torch.where(x.abs() == size, x.sign() * new, x) for x in point)


def _single(point: Point, place: int) -> Iterator[Point]:
    """One entry."""
    for i, x in enumerate(point):
        if place < x.numel():
            for new in _simpler(float(x.reshape(-1)[place])):
                changed = x.clone()
                changed.view(-1)[place] = new
                yield (*point[:i], changed, *point[i + 1 :])
            yield point  # there was an entry, even if nothing is simpler
            return
        place -= x.numel()


def _entries(point: Point) -> list[tuple[tuple[int, int], float]]:
    """All entries: the tensor and the place in it, and the value there."""
    return [((i, j), v) for i, x in enumerate(point) for j, v in enumerate(x.reshape(-1).tolist())]


def _followed(
    follow: Callable[[Point, tuple[int, int], float], Point | None], point: Point, place: int
) -> Iterator[Point]:
    """An unwieldy entry becomes simple, and others stay on the kinks with it."""
    flat = _entries(point)
    if place >= len(flat):
        return
    yield point
    (i, j), value = flat[place]
    if complexity(value)[1] > _SHORT:
        for new in (0.0, 1.0, float(round(value)), 0.5):
            found = follow(point, (i, j), new)
            if found is not None:
                yield found


def _along(point: Point, place: int) -> Iterator[Point]:
    """An unwieldy entry becomes simple, and others move with it, so that a sum or product stays."""
    flat = _entries(point)
    if place >= len(flat):
        return
    yield point
    (i, j), value = flat[place]
    if not complexity(value)[1]:
        return
    others = flat if len(flat) <= _PAIRED else ()
    for new in (0.0, 1.0, -1.0, float(round(value)), 2.0, 0.5):
        shift = new - value
        yield tuple(_round(x + shift) for x in point)
        for (a, b), old in others:
            if (a, b) == (i, j):
                continue
            for moved in (old + shift, old - shift, old * new / value, old * value / (new or 1.0)):
                changed = [x.clone() for x in point]
                changed[i].view(-1)[j] = new
                changed[a].view(-1)[b] = float(f"{moved:.12g}")
                yield tuple(changed)


def _round(x: torch.Tensor) -> torch.Tensor:
    return (x * _DIGITS).round() / _DIGITS
