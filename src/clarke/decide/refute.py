"""The exact answer: all limiting gradients, membership in their hull, or separation from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from clarke.constraints import flatten, unflatten
from clarke.decide.components import enumerate_components
from clarke.decide.limitset import LimitSet, separates
from clarke.decide.live import Live, find_live
from clarke.decide.model import Witness
from clarke.decide.rounding import Rounding
from clarke.feasibility import Method, find_witness, verify_contradiction
from clarke.steering import natural_gradient, select_along, selected_gradient

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from clarke.decide.enumerate import Cell
    from clarke.decide.limits import Limits
    from clarke.steering import Program

    Array = NDArray[np.float64]

_SAMPLES = 8
_STEPS = (1e-6, 1e-7)


@dataclass(frozen=True, eq=False)
class Exact:
    """The selections around a point.

    Attributes:
        limits: Gradients of all selections that could not be excluded.
        live: The kinks that were branched on.
    """

    limits: LimitSet
    live: Live


@dataclass(frozen=True, eq=False)
class Refutation:
    """Proof that a gradient is not a Clarke gradient.

    Attributes:
        gradient: (n,) AD's gradient.
        limits: The gradients of all selections that could not be excluded.
        direction: (n,) unit vector with ``<direction, g> > <direction, p>`` for every element p.
        gap: The smallest difference.
        distance: Distance of g to the hull of the elements.
        allowed: (n,) how far every entry may be off; the direction separates all such vectors.
        program: For running the program nearby.
    """

    gradient: Array
    limits: LimitSet
    direction: Array
    gap: float
    distance: float
    allowed: Array
    program: Program
    weights: tuple[float, ...] = ()
    witnesses: tuple[Witness, ...] = ()

    @property
    def points(self) -> Array:
        """(k, n) the distinct elements, for sets of up to 4096 combinations."""
        if self.limits.count > 4096:
            return np.zeros((0, len(self.gradient)))
        return distinct(self.limits.elements(), self.allowed)

    def verify(self, *, run: bool = True) -> bool:
        """Check separation and exclusions in exact arithmetic, and gradients at nearby points."""
        return not self.defects(run=run)

    def defects(self, *, run: bool = True) -> tuple[str, ...]:
        """What is wrong with the proof, in words; empty when it holds."""
        found = []
        nearest = self.gradient - np.sign(self.direction) * self.allowed
        if not separates(self.limits, nearest, self.direction):
            found.append("the direction does not separate the gradient from the set")
        for component in self.limits.components:
            for exclusion in component.exclusions:
                outcome = find_witness(exclusion.rows)
                if outcome.direction is not None:
                    found.append("an excluded branch is feasible")
                elif outcome.exact_multipliers is not None and not verify_contradiction(
                    exclusion.rows, outcome.exact_multipliers
                ):
                    found.append("the contradiction of an excluded branch does not hold")
        if run and not self._nearby_on_the_other_side():
            found.append("gradients at nearby points are not on the other side")
        return tuple(found)

    def _nearby_on_the_other_side(self) -> bool:
        """Gradients just beside the point must be separated from g as the set is."""
        generator = torch.Generator().manual_seed(1)
        limit = float(self.direction @ self.gradient)
        for _ in range(_SAMPLES):
            direction = [
                torch.randn(p.shape, dtype=p.dtype, generator=generator) for p in self.program.point
            ]
            for step in _STEPS:
                moved = [p + step * d for p, d in zip(self.program.point, direction, strict=True)]
                value = float(self.direction @ flatten(natural_gradient(self.program, moved)))
                if not limit - value > 0.25 * self.gap:
                    return False
        return True


def distinct(points: Array, allowed: Array) -> Array:
    """The distinct rows of (k, n) points, up to what entries may be off, in order of appearance."""
    kept = np.empty_like(points)
    count = 0
    for p in points:
        if not bool((np.abs(kept[:count] - p) <= 2 * allowed).all(axis=1).any()):
            kept[count] = p
            count += 1
    return kept[:count]


def rounding_of_set(program: Program, limits: LimitSet) -> Array:
    """(n,) how far rounding alone may have moved entries of the set's elements.

    By AD's selection and those along a line: a piece of slope zero tells nothing of another's.
    """
    generator = torch.Generator().manual_seed(0)
    line = [torch.randn(p.shape, generator=generator, dtype=torch.float64) for p in program.point]
    selections: list[dict[int, torch.Tensor] | None] = [None]
    selections += [select_along(program, tuple(s * p for p in line))[0] for s in (1, -1)]
    bounds = [
        flatten(Rounding(program, selected_gradient(program, c), c, double=True).bounds)
        for c in selections
    ]
    found: Array = np.max(bounds, axis=0) + limits.roundings(np.zeros(len(limits.base)))
    return found


def enumerate_exactly(
    program: Program, generator: torch.Generator, limits: Limits | None = None
) -> Exact:
    """Enumerate the selections around the program's point.

    Raises:
        BudgetError: The problem is too large, or selections do not describe it.
    """
    live = find_live(program, generator)
    return Exact(enumerate_components(program, live, generator, limits), live)


def mix_cells(
    exact: Exact, program: Program, gradient: Array, allowed: Array
) -> tuple[tuple[Witness, ...], tuple[float, ...]] | None:
    """Witnesses and weights that write the gradient by certain elements, or None."""
    limits = exact.limits.certain()
    if limits is None:
        return None
    single = _equal_element(limits, gradient, allowed)
    if single is not None:
        return (witness_of(limits, single, program),), (1.0,)
    placed = limits.place(gradient, allowed)
    if not placed.inside:
        return None
    total = sum(placed.weights)
    return (
        tuple(witness_of(limits, atom, program) for atom in placed.atoms),
        tuple(w / total for w in placed.weights),
    )


def _equal_element(limits: LimitSet, gradient: Array, allowed: Array) -> tuple[int, ...] | None:
    """An element equal to the gradient, if the set is small enough to look at all of it."""
    if limits.count > 4096:
        return None
    equal = np.flatnonzero((np.abs(limits.elements() - gradient) <= allowed).all(axis=1))
    if not len(equal):
        return None
    best = int(equal[0])
    sizes = [len(c.changes) for c in limits.components]
    atom: list[int] = []
    for size in reversed(sizes):
        atom.append(best % size)
        best //= size
    return tuple(reversed(atom))


def witness_of(limits: LimitSet, atom: Sequence[int], program: Program) -> Witness:
    """One element of a certain set as a witness: one direction inside all its cells at once."""
    cells = [c.cells[i] for c, i in zip(limits.components, atom, strict=True)]
    direction, rows = joint_direction(cells, len(limits.base))
    values = rows @ direction
    sizes = np.linalg.norm(rows, axis=1) * np.linalg.norm(direction)
    choices = joint_choices(cells)
    return Witness(
        direction=unflatten(direction, program.point),
        choices=choices,
        gradient=unflatten(limits.element(atom), program.point),
        rows=rows,
        coefficients=direction,
        kinks=np.concatenate([c.kinks for c in cells]) if cells else np.zeros(0, dtype=np.int64),
        margin=float((values / sizes).min(initial=np.inf)),
        methods=(Method.RATIONAL_ELIMINATION,),
    )


def joint_choices(cells: Sequence[Cell]) -> dict[int, torch.Tensor]:
    """The choices of several components, each of which leaves the others' kinks alone."""
    choices: dict[int, torch.Tensor] = {}
    for cell in cells:
        for position, choice in cell.choices.items():
            if position not in choices:
                choices[position] = choice.clone()
                continue
            mine = torch.from_numpy(cell.pinned(position))
            choices[position][mine] = choice[mine]
    return choices


def joint_direction(cells: Sequence[Cell], size: int) -> tuple[Array, Array]:
    """A direction inside all cells, and all their rows.

    The components' rows span independent spaces, so some direction agrees with each cell's own
    direction on that cell's rows.
    """
    rows = [c.rows for c in cells if len(c.rows)]
    if not rows:
        return np.ones(size), np.zeros((0, size))
    stacked = np.concatenate(rows)
    if len(rows) == 1:
        own = next(c.direction for c in cells if len(c.rows))
        return (np.ones(size) if own is None else own), stacked
    targets = np.concatenate(
        [_unit(c.rows @ c.direction) for c in cells if len(c.rows) and c.direction is not None]
    )
    direction = np.linalg.lstsq(stacked, targets, rcond=None)[0]
    if not bool(np.all(stacked @ direction > 0)):
        found = find_witness(stacked)
        if found.direction is not None:
            direction = found.direction
    return direction, stacked


def _unit(values: Array) -> Array:
    return values / float(np.abs(values).max())


def refute(exact: Exact, program: Program, gradient: Array, allowed: Array) -> Refutation | None:
    """A proof that the gradient is outside of the hull of everything possible, or None."""
    if not exact.limits.count:
        return None
    placed = exact.limits.place(gradient, allowed)
    if placed.direction is None:
        return None
    return Refutation(
        gradient=gradient,
        limits=exact.limits,
        direction=placed.direction,
        gap=placed.gap,
        distance=placed.distance,
        allowed=allowed,
        program=program,
    )


def nearest_correct(exact: Exact, gradient: Array) -> Array | None:
    """A limiting gradient close to AD's, among those that are known."""
    limits = exact.limits.known()
    if limits is None:
        return None
    if limits.count <= 4096:
        points = limits.elements()
        best: Array = points[int(np.linalg.norm(points - gradient, axis=1).argmin())]
        return best
    # Too many to compare: in every component the change that helps most on its own.
    total = limits.base.copy()
    for c in limits.components:
        gaps = np.linalg.norm(total + c.changes - gradient, axis=1)
        total = total + c.changes[int(gaps.argmin())]
    return total
