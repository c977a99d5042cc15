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
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch

from clarke.capture import all_finite, input_slots
from clarke.constraints import flatten, random_tangents
from clarke.deadline import UNLIMITED
from clarke.decide.sober import sober_adjoints
from clarke.decide.tolerance import REPLAY_SPACING, coarsest_epsilon, peak
from clarke.errors import ReplayError
from clarke.kinks.steps import ComparisonRule
from clarke.numerics import (
    BESIDE_DENSE,
    BESIDE_NEAREST,
    BESIDE_RATIO,
    BESIDE_ROUNDINGS,
    BESIDE_ULPS,
    NEAR_PART,
)
from clarke.steering import Pieces

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from clarke.capture import OpRecord
    from clarke.deadline import Deadline
    from clarke.steering import Program, Run

    Array = NDArray[np.float64]

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
        mended: Infinite slopes were left out, as of values that are constant there.
    """

    moved: Array
    value: float
    error: float
    gradient: Array
    noise: Array
    mended: bool = False

    @property
    def distance(self) -> float:
        """How far it is, in the largest coordinate."""
        return float(np.abs(self.moved).max(initial=0.0))


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
        sparse: Fewer scales do, since only values are looked at.
        edges: Points that an operation refuses are out of the domain: no value, and no error.
        deadline: When to stop looking.
    """

    def __init__(
        self,
        program: Program,
        generator: torch.Generator,
        *,
        pieces: Pieces | None = None,
        sparse: bool = False,
        edges: bool = False,
        deadline: Deadline = UNLIMITED,
    ) -> None:
        self.program = program
        self._edges = edges
        self.deadline = deadline
        self._generator = generator
        self._sparse = sparse
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
        fewer = self._sparse and self._spacing == REPLAY_SPACING
        ratio = float(BESIDE_RATIO) ** (2 if fewer else 1)
        found, step = [], 0.5
        while step >= least:
            found.append(step)
            # Far from the point where cancellation leaves little room; and below the spacing of
            # numbers around 1, where only coordinates near zero move.
            close = step > BESIDE_DENSE and not self._large
            alone = step < REPLAY_SPACING and not self._point.any()
            step /= ratio**0.5 if close else max(ratio, 4.0**4) if alone else ratio
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
        """Samples along a ray, from far to near. Large coordinates move in proportion.

        A value that is constant only near the point may be so by rounding, as the cosine of a small
        angle is 1: what rounding can have done is then at least what it was farther out.
        """
        size = peak(direction)
        found: list[Sample] = []
        blurred: Sample | None = None
        for step in self.steps if size > 0 else ():
            self.deadline.ask("looking at the program beside the point")
            moved = tuple(
                p + (step / size) * torch.clamp(p.abs(), min=1.0) * d
                for p, d in zip(self.program.point, direction, strict=True)
            )
            sample = self._sample(moved, step)
            if not sample.mended:
                blurred = sample
            elif blurred is not None:
                sample = replace(
                    sample,
                    error=max(sample.error, blurred.error),
                    noise=np.fmax(sample.noise, blurred.noise),
                )
            found.append(sample)
        return tuple(found)

    def _undefined(self, point: Sequence[torch.Tensor]) -> Sample:
        """A point at which an operation refuses its input: out of its domain."""
        nothing = np.full(self._point.shape, math.nan)
        return Sample(flatten(point) - self._point, math.nan, 0.0, nothing, nothing)

    def look(self, point: Sequence[torch.Tensor]) -> Sample:
        """The sample at any point."""
        self.deadline.ask("looking at the program beside the point")
        return self._sample(point, math.inf)

    def _sample(self, point: Sequence[torch.Tensor], step: float) -> Sample:
        try:
            run = self.program.run(point, pieces=self._pieces)
        except ReplayError:
            if step == math.inf or not self._edges:
                raise
            return self._undefined(point)
        exact = {x.untyped_storage().data_ptr() for x in run.leaves}
        analysis = self.program.analysis
        held = self._pieces is Pieces.HELD
        read = _read_backward(run, (analysis.trace if held else analysis.recorded).ops)
        gradient, adjoints = sober_adjoints(self.program, run)
        moved = flatten(point) - self._point
        mended = step < math.inf and not all_finite(gradient)
        if mended:
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
        noise = np.zeros_like(moved)
        if blur > 0 and step < math.inf:
            noise = blur / reach
        return Sample(moved, value, error, flatten(gradient), noise, mended)

    def _near(self, point: Sequence[torch.Tensor], away: float) -> list[list[torch.Tensor]]:
        """Points so close to `point` that almost surely they see the same sides of all kinks."""
        return [
            [
                q + NEAR_PART * away * r
                for q, r in zip(point, random_tangents(self.program, self._generator), strict=True)
            ]
            for _ in range(2)
        ]


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
