"""What a program does beside its point: values and gradients along rays, at every scale.

Rules know what an operation does at its own special points. What a program makes of them, where a
guard puts another branch in the place of one point or an unselected branch is NaN, is seen beside
the point only: whether values come back to the point's own, whether difference quotients stay
bounded, and where gradients tend to.

Two errors have to be told from the function. Far from the point it bends: of all scales at which
something settles, the smallest counts. Near it values are rounding: each comes with a bound of what
rounding can have done to it, from its derivatives by all that was computed on the way.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch

from clarke.capture import input_slots
from clarke.constraints import flatten, random_tangents
from clarke.deadline import UNLIMITED
from clarke.decide.sober import sober_adjoints
from clarke.decide.tolerance import REPLAY_SPACING, coarsest_epsilon
from clarke.kinks.steps import ComparisonRule
from clarke.numerics import (
    BESIDE_AGREES,
    BESIDE_ARRIVES,
    BESIDE_DENSE,
    BESIDE_FAR,
    BESIDE_GROWTH,
    BESIDE_JUMP,
    BESIDE_NEAREST,
    BESIDE_RATIO,
    BESIDE_ROUNDINGS,
    BESIDE_SMALL,
    BESIDE_ULPS,
)
from clarke.steering import Pieces

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from clarke.capture import OpRecord
    from clarke.deadline import Deadline
    from clarke.steering import Program, Run

    Array = NDArray[np.float64]

_FEWEST = 5  # scales in a row at which gradients have to agree
_SHOWN = 7  # scales in a row at which quotients have to grow, or values to keep their distance
RAY_PAIRS = 3  # random rays, each with its opposite
_LARGE = 200_000  # values in a program from which fewer scales are looked at


@dataclass(frozen=True, eq=False)
class Sample:
    """One point beside the program's own.

    Attributes:
        moved: (n,) how far it is from the point, exactly.
        value: The result there.
        error: What rounding can have done to the value.
        gradient: (n,) AD's gradient there, zeros times infinity as zeros.
        noise: (n,) what rounding can have done to the gradient.
    """

    moved: Array
    value: float
    error: float
    gradient: Array
    noise: Array

    @property
    def distance(self) -> float:
        """How far it is, in the largest coordinate."""
        return float(np.abs(self.moved).max(initial=0.0))


@dataclass(frozen=True)
class Steep:
    """Values beside a point differ from its own by more than any multiple of the distance.

    Attributes:
        jump: What they differ by however near they are; 0 where they come back to it.
    """

    jump: float

    def __str__(self) -> str:
        if math.isinf(self.jump):
            return "Values beside the point are not bounded"
        if self.jump > 0:
            return (
                f"Values beside the point stay {self.jump:.1e} away from its own, however near "
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


class Beside:
    """Samples of a program along rays from its point.

    Attributes:
        program: The program.
        deadline: When to stop looking.
        guarded: Whether a comparison is tied at the point.
        here: The sample at the point itself.

    Args:
        program: The program.
        generator: Private randomness.
        pieces: How operations with kinks are replayed; by default as suits the program.
        deadline: When to stop looking.
    """

    def __init__(
        self,
        program: Program,
        generator: torch.Generator,
        *,
        pieces: Pieces | None = None,
        deadline: Deadline = UNLIMITED,
    ) -> None:
        self.program = program
        self.deadline = deadline
        self._generator = generator
        guards = [
            position
            for position, s in program.analysis.sites.items()
            if isinstance(s.rule, ComparisonRule) and s.touch.count
        ]
        # A guard has other pieces beside the point than at it. Elsewhere a value that rounding
        # keeps off a kink is off it at any distance.
        self.guarded = bool(guards)
        self._pieces = pieces or (Pieces.TRUE if guards else Pieces.HELD)
        self._spacing = REPLAY_SPACING
        if guards:
            probes = program.run(probe=True, grad=False).probes
            if any(bool((probes[g].switching != 0).any()) for g in guards):
                # Tied in the program's own numbers only: nothing nearer than these can be told.
                self._spacing = coarsest_epsilon(program.analysis.trace)
        self._point = flatten(program.point)
        self.here = self._sample(program.point, math.inf)

    @cached_property
    def steps(self) -> tuple[float, ...]:
        """Distances, falling, down to where the program's numbers no longer tell points apart."""
        apart = self._spacing * np.abs(self._point) / np.maximum(np.abs(self._point), 1.0)
        least = float(BESIDE_ULPS) * float(apart.max(initial=0.0)) or float(BESIDE_NEAREST)
        ratio = float(BESIDE_RATIO)
        found, step = [], 0.5
        while step >= least:
            found.append(step)
            # Far from the point where cancellation leaves little room; and below the spacing of
            # numbers around 1, where only coordinates near zero move.
            close = step > BESIDE_DENSE and not self._large
            sparse = step < REPLAY_SPACING and not self._point.any()
            step /= ratio**0.5 if close else ratio**4 if sparse else ratio
        return tuple(found)

    @cached_property
    def _large(self) -> bool:
        run = self.program.run(pieces=Pieces.NATURAL, grad=False)
        return sum(t.numel() for t in run.tensors.values()) > _LARGE

    def rays(self, pairs: int) -> Iterator[tuple[torch.Tensor, ...]]:
        """Random directions, each followed by its opposite."""
        # On a line one pair is all there are.
        for _ in range(1 if self._large or self._point.size == 1 else pairs):
            direction = random_tangents(self.program, self._generator)
            yield direction
            yield tuple(-d for d in direction)

    def along(self, direction: Sequence[torch.Tensor]) -> tuple[Sample, ...]:
        """Samples along a ray, from far to near. Large coordinates move in proportion."""
        size = max((float(d.abs().max()) for d in direction if d.numel()), default=0.0)
        found: list[Sample] = []
        for step in self.steps if size > 0 else ():
            self.deadline.ask("looking at the program beside the point")
            moved = tuple(
                p + (step / size) * torch.clamp(p.abs(), min=1.0) * d
                for p, d in zip(self.program.point, direction, strict=True)
            )
            found.append(self._sample(moved, step))
        return tuple(found)

    def _sample(self, point: Sequence[torch.Tensor], step: float) -> Sample:
        run = self.program.run(point, pieces=self._pieces)
        exact = {x.untyped_storage().data_ptr() for x in run.leaves}
        analysis = self.program.analysis
        held = self._pieces is Pieces.HELD
        read = _read_backward(run, (analysis.trace if held else analysis.recorded).ops)
        gradient, adjoints = sober_adjoints(self.program, run)
        moved = flatten(point) - self._point
        if step < math.inf and not all(bool(torch.isfinite(g).all()) for g in gradient):
            near = self._near(point, float(np.abs(moved).max(initial=0.0)))
            run = self.program.run(point, pieces=self._pieces)
            gradient, adjoints = sober_adjoints(self.program, run, near)
        value = float(run.output.detach().sum())
        terms = {
            # What is not finite is times zero, or beside the point.
            slot: float(
                torch.nan_to_num((a * run.tensors[slot].detach()).abs(), 0.0, math.inf, 0.0).sum()
            )
            for slot, a in adjoints.items()
            if run.tensors[slot].untyped_storage().data_ptr() not in exact
        }
        unit = float(BESIDE_ROUNDINGS) * torch.finfo(self.program.dtype).eps
        error = unit * (abs(value) + sum(terms.values()))
        # Rounding wobbles from point to point: its slope is its size by the distance.
        blur = 4 * unit * sum(terms[slot] for slot in read if slot in terms)
        reach = step * np.maximum(np.abs(self._point), 1.0)
        noise = blur / reach if blur > 0 else np.zeros_like(moved)
        return Sample(moved, value, error, flatten(gradient), noise)

    def _near(self, point: Sequence[torch.Tensor], away: float) -> list[list[torch.Tensor]]:
        """Points so close to `point` that almost surely they see the same sides of all kinks."""
        return [
            [
                q + 1e-3 * away * r
                for q, r in zip(point, random_tangents(self.program, self._generator), strict=True)
            ]
            for _ in range(2)
        ]


def steep_beside(
    program: Program,
    generator: torch.Generator,
    *,
    pieces: Pieces | None = None,
    deadline: Deadline = UNLIMITED,
) -> Steep | None:
    """Whether values leave the point's own without bound, on some random ray."""
    beside = Beside(program, generator, pieces=pieces, deadline=deadline)
    for direction in beside.rays(RAY_PAIRS):
        found = steepness(beside.here, beside.along(direction))
        if found is not None:
            return found
    return None


@lru_cache(maxsize=256)
def _saved_by(kind: type) -> tuple[str, ...]:
    """Names of what a kind of backward node has saved."""
    return tuple(name for name in dir(kind) if name.startswith("_saved_"))


def _read_backward(run: Run, ops: Sequence[OpRecord]) -> set[int]:
    """Slots of the values that the backward pass reads, and of all that these come from.

    Rounding them moves the gradient; rounding the terms of a sum at the end does not.
    """
    saved: set[int] = set()
    for node in {t.grad_fn for t in run.tensors.values() if t.grad_fn is not None}:
        for name in _saved_by(type(node)):
            value = getattr(node, name)
            if isinstance(value, torch.Tensor) and value.numel():
                saved.add(value.data_ptr())
    read = {slot for slot, t in run.tensors.items() if t.numel() and t.data_ptr() in saved}
    for op in reversed(ops):
        if any(slot in read for slot in op.outputs):
            read.update(input_slots(op))
    return read


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
        if quotients and abs(gap) + 8 * error < BESIDE_GROWTH * abs(quotients[-1][1]) * s.distance:
            return None  # it grew from afar only
        if abs(gap) > 8 * BESIDE_SMALL * error:
            quotients.append((s.distance, gap / s.distance, error / s.distance))
    if _grow(quotients):
        return Steep(0.0)
    away = _arrival(near, gaps, errors)
    return Steep(away) if away > 0 else None


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
    sign = math.copysign(1.0, quotients[-1][1])
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
    error = 2 * spread
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
