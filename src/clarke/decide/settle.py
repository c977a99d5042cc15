"""What samples along a ray tell: whether values come back, and where gradients tend to.

Far from the point a function bends: of all scales at which something settles, the smallest counts.
Near it values and gradients are rounding, as far as their error bounds say.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch

from clarke.constraints import unflatten
from clarke.deadline import UNLIMITED
from clarke.decide.beside import RAY_PAIRS, Beside, Sample
from clarke.numerics import (
    AXIS_STEPS,
    BESIDE_AGREES,
    BESIDE_ARRIVES,
    BESIDE_FAR,
    BESIDE_FLOOR,
    BESIDE_GROWTH,
    BESIDE_JUMP,
    BESIDE_SMALL,
)
from clarke.steering import Pieces

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from clarke.deadline import Deadline
    from clarke.steering import Program

    Array = NDArray[np.float64]

_AXES = 4  # variables up to which points on the axes are looked at
_FEWEST = 5  # scales in a row at which gradients have to agree
_LEAVING = 4  # scales in a row at which values go away from the point's own
_SHOWN = 7  # scales in a row at which quotients have to grow, or values to keep their distance


@dataclass(frozen=True)
class Steep:
    """Values beside a point differ from its own by more than any multiple of the distance.

    Attributes:
        jump: What they differ by however near they are; 0 where they come back to it, NaN where
            there are none on some ray.
        beside: They are those of points beside the point, however near.
    """

    jump: float
    beside: bool = False

    def __str__(self) -> str:
        if self.beside:
            return f"At others beside it, however near: {replace(self, beside=False)}"
        if math.isnan(self.jump):
            return "On one side of the point the function is not defined, however near"
        if math.isinf(self.jump):
            return "Values beside the point are not bounded"
        if self.jump > 0:
            return (
                f"Values beside the point stay {self.jump:.2g} away from its own, however near "
                "they are"
            )
        return "Difference quotients grow without bound towards the point"


@dataclass(frozen=True, eq=False)
class Limit:
    """Where gradients along one ray tend to.

    Attributes:
        direction: The ray.
        gradient: (n,) the limit.
        error: (n,) how far successive estimates of it are apart.
    """

    direction: tuple[torch.Tensor, ...]
    gradient: Array
    error: Array


def steep_beside(
    program: Program,
    generator: torch.Generator,
    deadline: Deadline = UNLIMITED,
    *,
    edges: bool = False,
) -> Steep | None:
    """Whether values leave the point's own without bound, on some random ray.

    With `edges`, points that an operation refuses count as out of the function's domain.
    """
    natural = Pieces.NATURAL
    beside = Beside(program, generator, pieces=natural, sparse=True, edges=edges, deadline=deadline)
    undefined = False
    for direction in beside.rays(RAY_PAIRS):
        samples = beside.along(direction)
        found = steepness(beside.here, samples)
        if found is not None:
            return found
        nearest = [s.value for s in samples[-_SHOWN:]]
        undefined = undefined or (len(nearest) == _SHOWN and all(math.isnan(v) for v in nearest))
    return Steep(math.nan) if undefined and math.isfinite(beside.here.value) else None


def steep_on_axes(
    program: Program, generator: torch.Generator, deadline: Deadline = UNLIMITED
) -> Steep | None:
    """Whether the function is steep at points on a coordinate axis through the point.

    ``(|x| ** 0.5 + |y| ** 0.5) ** 2`` is not at 0 along any ray, but all along the axes.
    """
    size = sum(p.numel() for p in program.point)
    for axis in range(size if 1 < size <= _AXES else 0):
        unit = np.zeros(size)
        unit[axis] = 1.0
        direction = unflatten(unit, program.point)
        found: Steep | None = None
        for step in AXIS_STEPS:
            other = copy.copy(program)
            other.point = tuple(p + step * d for p, d in zip(program.point, direction, strict=True))
            found = steep_beside(other, generator, deadline)
            if found is None or math.isnan(found.jump):
                found = None
                break
        if found is not None:
            return replace(found, beside=True)
    return None


def steepness(here: Sample, samples: Sequence[Sample]) -> Steep | None:
    """Whether values along a ray leave the point's own by more than any multiple of the distance.

    At the smallest distances at which rounding lets them tell: values keep away, or difference
    quotients grow by at least a constant each time (those of a differentiable function settle).
    """
    nearest = samples[-_SHOWN:]
    if len(nearest) < _SHOWN or not math.isfinite(here.value):
        return None
    if any(math.isnan(s.value) for s in nearest):
        return None
    if all(math.isinf(s.value) for s in nearest):
        return Steep(math.inf)
    near = [s for s in samples if math.isfinite(s.value)]
    gaps = [s.value - here.value for s in near]
    errors = [s.error + here.error for s in near]
    sizes = [abs(g) for g in gaps[-_SHOWN:]]
    certain = all(g > BESIDE_SMALL * e for g, e in zip(sizes, errors[-_SHOWN:], strict=True))
    if certain and all(b >= BESIDE_JUMP * a for a, b in pairwise(sizes)):
        grows = sizes[-1] > sizes[0] and all(b > a for a, b in pairwise(sizes))
        unbounded = grows and sizes[-1] > 2 * sizes[-1 - len(sizes) // 2]
        return Steep(math.inf if unbounded else sizes[-1])
    quotients: list[tuple[float, float, float]] = []
    for s, gap, error in zip(near, gaps, errors, strict=True):
        if s.distance > BESIDE_FAR:
            continue
        if abs(gap) > 8 * BESIDE_SMALL * error:
            quotients.append((s.distance, gap / s.distance, error / s.distance))
    # What grew from afar only has smaller quotients nearer, though their digits are lost.
    at, last, _ = quotients[-1] if quotients else (0.0, 0.0, 0.0)
    goes_on = all(
        abs(g) + 8 * e >= BESIDE_GROWTH * abs(last) * s.distance
        for s, g, e in zip(near, gaps, errors, strict=True)
        if s.distance < at
    )
    told = [abs(g) for g, e in zip(gaps, errors, strict=True) if abs(g) > 8 * BESIDE_SMALL * e][
        -_LEAVING:
    ]
    if goes_on and len(told) == _LEAVING and all(b > 1.5 * a for a, b in pairwise(told)):
        return Steep(math.inf)
    away = _arrival(near, gaps, errors)
    if away > 0:
        return Steep(away)
    return Steep(0.0) if goes_on and _grow(quotients) else None


def _arrival(near: Sequence[Sample], gaps: Sequence[float], errors: Sequence[float]) -> float:
    """How far from the point's own value those along a ray arrive; 0 where that may be none.

    For quotients that cancel: near the point they are rounding, and farther out they still curve.
    """
    found: list[tuple[float, float]] = []
    for k in range(len(near) - 2):
        weights = _weights([s.distance for s in near[k : k + 3]])
        limit = sum(w * g for w, g in zip(weights, gaps[k : k + 3], strict=True))
        blur = sum(abs(w) * e for w, e in zip(weights, errors[k : k + 3], strict=True))
        found.append((limit, blur))
    sure = [
        (blur + abs(limit - found[k - 1][0]), k, limit)
        for k, (limit, blur) in enumerate(found)
        if k > 0 and near[k].distance <= BESIDE_ARRIVES
    ]
    if not sure:
        return 0.0
    error, best, limit = min(sure)
    kept = all(abs(other - limit) <= BESIDE_SMALL * (error + blur) for other, blur in found[best:])
    return abs(limit) if kept and abs(limit) > BESIDE_SMALL * error else 0.0


def _grow(quotients: Sequence[tuple[float, float, float]]) -> bool:
    """Whether (distance, quotient, error), from far to near, grow without bound."""
    if len(quotients) < _SHOWN:
        return False
    sign = math.copysign(1.0, quotients[-1][1] - quotients[0][1])
    added = []
    for (far, first, _), (near, second, error) in pairwise(quotients):
        more = sign * (second - first)
        if more <= 4 * error:
            return False
        added.append(more / math.log(far / near))
    return min(added[-3:]) >= BESIDE_GROWTH * max(added[:3])


def settled(samples: Sequence[Sample], direction: Sequence[torch.Tensor]) -> Limit | None:
    """The limit of gradients along a ray, from the smallest scales at which they settle.

    Differences of first and second order in the distance are extrapolated away. The estimates of
    some scales in a row have to agree, and nearer ones must not contradict them by more than
    rounding.
    """
    finite = [bool(np.isfinite(s.gradient).all()) and math.isfinite(s.value) for s in samples]
    known = [s for s, f in zip(samples, finite, strict=True) if f]
    if len(known) < _FEWEST or not any(finite[-_FEWEST:]):
        return None
    sizes = [np.abs(s.gradient) for s in known]
    scale = np.max(sizes[: len(sizes) // 3], axis=0)
    moving = np.max(sizes, axis=0) > 0
    clear = [
        f
        and bool(
            (~moving | (s.noise <= BESIDE_AGREES * np.maximum(np.abs(s.gradient), scale))).all()
        )
        for s, f in zip(samples, finite, strict=True)
    ]
    guesses = [
        _extrapolated(samples[k : k + 3]) if all(clear[k : k + 3]) else None
        for k in range(len(samples) - 2)
    ]
    spreads = [_spread(a, b) for a, b in pairwise(guesses)]
    runs = list(_agreeing(guesses, spreads, scale))
    long = [r for r in runs if r[1] - r[0] + 3 >= _FEWEST]
    if not long:
        return None
    first, last = long[-1]
    middle = min(range(first, last), key=lambda k: _size(spreads[k]))
    found, spread = guesses[middle], spreads[middle]
    if found is None or spread is None:
        return None
    error = np.maximum(2 * spread, float(BESIDE_FLOOR) * scale)
    allowed = 8 * error + BESIDE_AGREES * np.maximum(np.abs(found), scale)
    for start, _ in runs:  # something else, nearer but too short to be told
        other = guesses[start]
        if start > last and other is not None and bool((np.abs(other - found) > allowed).any()):
            return None
    edge = samples[last + 2]
    trend = 2 * np.abs(edge.gradient - found) / edge.distance
    for s, ok in zip(samples[last + 3 :], finite[last + 3 :], strict=True):
        room = allowed + s.noise + trend * s.distance
        if not ok or bool((np.abs(s.gradient - found) > room).any()):
            return None
    return Limit(tuple(direction), _digits(found, error), error)


def _weights(distances: Sequence[float]) -> list[float]:
    """Weights of values at some distances, of the polynomial through them at distance zero."""
    return [
        math.prod(h / (h - own) for i, h in enumerate(distances) if i != j)
        for j, own in enumerate(distances)
    ]


def _extrapolated(samples: Sequence[Sample]) -> Array:
    """The gradient at distance zero by the polynomial through those at some distances."""
    nearest = samples[-1].gradient
    total = np.array(nearest)
    for weight, s in zip(_weights([s.distance for s in samples]), samples[:-1], strict=False):
        total += weight * (s.gradient - nearest)
    return total


def _spread(a: Array | None, b: Array | None) -> Array | None:
    return None if a is None or b is None else np.abs(a - b)


def _size(spread: Array | None) -> float:
    return math.inf if spread is None else float(spread.max(initial=0.0))


def _agreeing(
    guesses: Sequence[Array | None], spreads: Sequence[Array | None], scale: Array
) -> Iterator[tuple[int, int]]:
    """First and last of each run of guesses in which neighbours agree, two at least."""
    start: int | None = None
    for k, spread in enumerate([*spreads, None]):
        own = guesses[k]
        # What vanishes in the limit is measured by what it was further out.
        agrees = (
            spread is not None
            and own is not None
            and bool((spread <= BESIDE_AGREES * np.maximum(np.abs(own), scale)).all())
        )
        if agrees and start is None:
            start = k
        elif not agrees and start is not None:
            yield start, k
            start = None


def _digits(values: Array, error: Array) -> Array:
    """Values without the digits that their error makes worthless."""
    out = np.array(values)
    for i, (value, bound) in enumerate(zip(values, error, strict=True)):
        if bound > 0 and math.isfinite(bound):
            places = -math.ceil(math.log10(8 * bound))
            out[i] = round(float(value), places) + 0.0
    return out
