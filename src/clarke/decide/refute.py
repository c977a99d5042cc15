"""Proof that a gradient lies outside of the hull of everything that nearby gradients tend to."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from clarke.constraints import flatten, unflatten
from clarke.deadline import UNLIMITED
from clarke.decide.alike import check_same
from clarke.decide.allowed import allowed_error
from clarke.decide.certificate import Argument
from clarke.decide.elements import distinct
from clarke.decide.exact import (
    Exact,
    part_entries,
    part_limits,
    recomputed_limits,
    rounding_of_set,
    verified,
)
from clarke.decide.limits import Limits
from clarke.decide.limitset import LimitSet, separates
from clarke.decide.live import Live, find_live
from clarke.decide.recomputed import Defect
from clarke.decide.verification import check_direction, fresh_generator
from clarke.numerics import (
    GRANTED,
    QUOTIENT_RADII,
    QUOTIENT_ROUNDINGS,
    QUOTIENT_SHARE,
    QUOTIENT_STEPS,
    REFUTED_STEPS,
    SET_AGREES,
)
from clarke.steering import Pieces, natural_gradient

if TYPE_CHECKING:
    from collections.abc import Container, Sequence

    from numpy.typing import NDArray

    from clarke.deadline import Deadline
    from clarke.steering import Program, Run

    Array = NDArray[np.float64]
    Tensors = tuple[torch.Tensor, ...]

_SAMPLES = 8
_STEPS = tuple(zip(REFUTED_STEPS[::2], REFUTED_STEPS[1::2], strict=True))


class _Rate(NamedTuple):
    """A difference quotient, and how far roundings may have moved it."""

    value: float
    noise: float


@dataclass(frozen=True, eq=False)
class Separation(Argument):
    """The gradient lies outside of the hull of everything that nearby gradients tend to.

    Attributes:
        limits: The gradients of all selections that could not be excluded.
        direction: (n,) unit vector with ``<direction, g> > <direction, p>`` for every element p.
        gap: The smallest difference.
        distance: Distance of g to the hull of the elements.
        allowed: (n,) how far every entry may be off; the direction separates all such vectors.
        part: The touched kinks that were enumerated, where only the entries that depend on them
            are refuted; the set's elements are zero in all others. Empty for the whole.
    """

    limits: LimitSet
    direction: Array
    gap: float
    distance: float
    allowed: Array
    part: tuple[int, ...] = ()

    @property
    def points(self) -> Array:
        """(k, n) the distinct elements, for sets of up to 4096 combinations."""
        if self.limits.count > 4096:
            return np.zeros((0, len(self.direction)))
        points = self.limits.elements()
        return points[distinct(points, self.allowed, UNLIMITED)]

    def check(self, program: Program, vector: Tensors, *, run: bool) -> None:
        """Enumerate again, with every exclusion; separate in exact arithmetic."""
        gradient = flatten(vector)
        check_direction(gradient, self.direction)
        entries = np.ones(len(gradient), dtype=bool)
        if self.part:
            entries = part_entries(program, self.part)
            live = find_live(program, fresh_generator())
            if live.branches:
                raise Defect("a step has no parts that can be judged apart")
            limits = part_limits(program, live, self.part, entries, fresh_generator(), verified())
        else:
            limits = recomputed_limits(program)
        check_same(self.limits, limits)
        least = allowed_error(program, gradient) + rounding_of_set(program, limits)
        shape = self.allowed.shape == gradient.shape
        if not shape or not bool((self.allowed >= np.where(entries, least, 0.0) / GRANTED).all()):
            raise Defect("less counts as rounding than the program can leave")
        if bool((self.direction[~entries] != 0).any()):
            raise Defect("the direction leaves the part that is refuted")
        own = replace(self, limits=limits)
        own._check_separation(np.where(entries, gradient, 0.0), program.deadline)  # noqa: SLF001 - a copy of this one
        if run and not own.beside_on_the_other_side(program, gradient):
            raise Defect("gradients at nearby points are not on the other side")

    def _check_separation(self, gradient: Array, deadline: Deadline) -> None:
        nearest = gradient - np.sign(self.direction) * self.allowed
        if not separates(self.limits, nearest, self.direction, deadline):
            raise Defect("the direction does not separate the gradient from the set")
        far = self.limits.element(self.limits.extreme(self.direction))
        gap = float(self.direction @ gradient - self.direction @ far)
        distance = self.limits.place(gradient, self.allowed, deadline).distance
        if not abs(gap - self.gap) <= SET_AGREES * gap:
            raise Defect("the gap is another one")
        if not abs(distance - self.distance) <= SET_AGREES * distance:
            raise Defect("the distance to the set is another one")

    def own_defects(self, program: Program, vector: Tensors, *, run: bool) -> tuple[str, ...]:
        """What the judge asks of its own proof: separation, and gradients beside the point."""
        gradient = flatten(vector)
        if not separates(self.limits, gradient, self.direction, program.deadline):
            return ("the direction does not separate the gradient from the set",)
        if run and not self.beside_on_the_other_side(program, gradient):
            return ("gradients at nearby points are not on the other side",)
        return ()

    def beside_on_the_other_side(self, program: Program, gradient: Array) -> bool:
        """Gradients beside the point, or rates of values there, must be on the set's side."""
        return gradients_on_the_other_side(
            program, gradient, self.direction, 0.25 * self.gap
        ) or self._values_on_the_other_side(program, gradient)

    def _values_on_the_other_side(self, program: Program, gradient: Array) -> bool:
        """The function's own values near the point must change as the set says, not as g says.

        This asks no derivative formula: at points nearby the rate along `direction` is taken from
        values alone, with two steps that must agree.
        """
        generator = torch.Generator().manual_seed(1)
        limit = float(self.direction @ gradient)
        along = unflatten(self.direction, program.point)
        for _ in range(_SAMPLES):
            ray = [torch.randn(p.shape, dtype=p.dtype, generator=generator) for p in along]
            for radius in QUOTIENT_RADII:
                near = [p + radius * d for p, d in zip(program.point, ray, strict=True)]
                rates = [_rate(program, near, along, radius * s) for s in QUOTIENT_STEPS]
                allowed = QUOTIENT_SHARE * self.gap
                if any(not r.noise <= allowed for r in rates):
                    return False
                if not abs(rates[0].value - rates[1].value) <= allowed:
                    return False
                if not limit - rates[1].value > 0.25 * self.gap:
                    return False
        return True


def _rate(
    program: Program, near: Sequence[torch.Tensor], along: Sequence[torch.Tensor], step: float
) -> _Rate:
    ends = [[p + sign * step * d for p, d in zip(near, along, strict=True)] for sign in (1.0, -1.0)]
    runs = [program.run(tuple(e), pieces=Pieces.NATURAL, grad=False) for e in ends]
    high, low = (float(r.output) for r in runs)
    # Further results serve backward passes, and may hold memory that was never written to.
    first = {op.outputs[0] for op in program.analysis.recorded.ops if op.outputs}
    size = max(largest_value(r, first) for r in runs)
    noise = QUOTIENT_ROUNDINGS * torch.finfo(torch.float64).eps * size / step
    return _Rate((high - low) / (2 * step), noise)


def gradients_on_the_other_side(
    program: Program, gradient: Array, direction: Array, gap: float
) -> bool:
    """Whether gradients just beside the point are separated from another by more than a gap.

    At a distance that rounding loses they are that one itself, and prove nothing.
    """
    limit = float(direction @ gradient)

    def separated(steps: tuple[float, ...]) -> bool:
        generator = torch.Generator().manual_seed(1)
        for _ in range(_SAMPLES):
            ray = [torch.randn(p.shape, dtype=p.dtype, generator=generator) for p in program.point]
            for step in steps:
                moved = [p + step * d for p, d in zip(program.point, ray, strict=True)]
                value = float(direction @ flatten(natural_gradient(program, moved)))
                if not limit - value > gap:
                    return False
        return True

    return any(separated(steps) for steps in _STEPS)


def largest_value(run: Run, slots: Container[int | None]) -> float:
    """The largest finite number in some tensors of a replay: the measure of its roundings."""
    found = [
        float(torch.nan_to_num(t.detach().abs(), 0.0, 0.0, 0.0).max())
        for s, t in run.tensors.items()
        if s in slots and t.is_floating_point() and t.numel()
    ]
    return max(found, default=1.0)


def refute(exact: Exact, program: Program, gradient: Array, allowed: Array) -> Separation | None:
    """A proof that the gradient is outside of the hull of everything possible, or None."""
    if not exact.limits.count:
        return None
    placed = exact.limits.place(gradient, allowed, program.deadline)
    if placed.direction is None:
        return None
    return Separation(
        limits=exact.limits,
        direction=placed.direction,
        gap=placed.gap,
        distance=placed.distance,
        allowed=allowed,
    )


def refute_part(
    program: Program,
    live: Live,
    kinks: Sequence[int],
    entries: NDArray[np.bool_],
    gradient: Array,
    allowed: Array,
    generator: torch.Generator,
    limits: Limits,
) -> Separation | None:
    """A proof that some entries of a gradient are wrong, or None; their kinks are enumerated alone.

    Args:
        program: The program.
        live: Which kinks can change the gradient.
        kinks: The touched kinks on which these entries of a selection's gradient depend.
        entries: (n,) which they are.
        gradient: (n,) the gradient.
        allowed: (n,) how far its entries may be off.
        generator: Private randomness.
        limits: Budget.

    Raises:
        BudgetError: The part is too large.
    """
    own = part_limits(program, live, kinks, entries, generator, limits)
    if not own.count:
        return None
    target = np.where(entries, gradient, 0.0)
    room = np.where(entries, allowed + rounding_of_set(program, own), 0.0)
    placed = own.place(target, room, program.deadline)
    if placed.direction is None:
        return None
    return Separation(
        limits=own,
        direction=placed.direction,
        gap=placed.gap,
        distance=placed.distance,
        allowed=room,
        part=tuple(kinks),
    )
