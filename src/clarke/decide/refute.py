"""The exact answer: all limiting gradients, membership in their hull, or separation from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from clarke.constraints import flatten, unflatten
from clarke.decide.enumerate import Cell, Cells, Enumeration
from clarke.decide.limits import Limits
from clarke.decide.live import Live, find_live
from clarke.decide.model import Witness
from clarke.feasibility import (
    Method,
    Separation,
    convex_weights,
    find_witness,
    separating_direction,
    verify_contradiction,
    verify_separation,
)
from clarke.steering import natural_gradient, select_along, selected_gradient

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from clarke.steering import Program

    Array = NDArray[np.float64]

_SAMPLES = 8
_STEPS = (1e-5, 1e-6, 1e-7)


@dataclass(frozen=True, eq=False)
class Refutation:
    """Proof that a gradient is not a Clarke gradient.

    Attributes:
        gradient: (n,) AD's gradient.
        points: (k, n) the gradients of all selections that could not be excluded.
        direction: (n,) unit vector with ``<direction, g> > <direction, p>`` for every point p.
        gap: The smallest difference.
        distance: Distance of g to the hull of the points.
        exclusions: For every dropped branch its rows, some non-negative combination of which
            vanishes.
        program: For running the program nearby.
    """

    gradient: Array
    points: Array
    direction: Array
    gap: float
    distance: float
    exclusions: tuple[Array, ...]
    program: Program
    weights: tuple[float, ...] = ()
    witnesses: tuple[Witness, ...] = ()

    def verify(self, *, run: bool = True) -> bool:
        """Check separation and exclusions in exact arithmetic, and gradients at nearby points."""
        return not self.defects(run=run)

    def defects(self, *, run: bool = True) -> tuple[str, ...]:
        """What is wrong with the proof, in words; empty when it holds."""
        found = []
        if not verify_separation(self.points, self.gradient, self.direction):
            found.append("the direction does not separate the gradient from the set")
        for i, rows in enumerate(self.exclusions):
            outcome = find_witness(rows)
            if outcome.direction is not None:
                found.append(f"excluded branch {i} is feasible")
            elif outcome.exact_multipliers is not None and not verify_contradiction(
                rows, outcome.exact_multipliers
            ):
                found.append(f"the contradiction of excluded branch {i} does not hold")
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
            values = []
            for step in _STEPS:
                moved = [p + step * d for p, d in zip(self.program.point, direction, strict=True)]
                values.append(float(self.direction @ flatten(natural_gradient(self.program, moved))))
            if not min(limit - v for v in values[1:]) > 0.25 * self.gap:
                return False
        return True


@dataclass(frozen=True, eq=False)
class Exact:
    """The selections around a point and what they say of a gradient."""

    cells: Cells
    live: Live

    def certain(self) -> list[Cell]:
        """Cells with a direction inside."""
        return [c for c in self.cells.cells if c.certain]

    def all_points(self) -> Array:
        """(k, n) distinct gradients of everything that was not excluded."""
        return distinct([c.gradient for c in self.cells.cells])


def distinct(points: Sequence[Array], tolerance: float = 1e-9) -> Array:
    """The distinct rows of a list of points, up to rounding, in order of first appearance."""
    kept: list[Array] = []
    scale = max((float(np.abs(p).max(initial=0.0)) for p in points), default=0.0)
    seen: dict[bytes, None] = {}
    for p in points:
        key = (np.round(p / (tolerance * scale)) if scale > 0 else p).tobytes()
        if key in seen:
            continue
        seen[key] = None
        if len(kept) < 512 and any(
            np.abs(p - q).max(initial=0.0) <= tolerance * scale for q in kept
        ):
            continue
        kept.append(p)
    return np.stack(kept)


def enumerate_exactly(
    program: Program, generator: torch.Generator, limits: Limits | None = None
) -> Exact:
    """Enumerate the selections around the program's point.

    Raises:
        BudgetError: The problem is too large.
    """
    live = find_live(program, generator)
    return Exact(Enumeration(program, live, generator, limits).run(), live)


def mix_cells(
    exact: Exact, program: Program, gradient: Array, tolerance: float
) -> tuple[tuple[Witness, ...], tuple[float, ...]] | None:
    """Witnesses and weights that write the gradient by certain cells, or None."""
    cells = exact.certain()
    if not cells:
        return None
    points = np.stack([c.gradient for c in cells])
    scale = max(float(np.abs(points).max(initial=0.0)), float(np.abs(gradient).max(initial=0.0)))
    gaps = np.abs(points - gradient).max(axis=1, initial=0.0)
    nearest = int(gaps.argmin())
    if gaps[nearest] <= tolerance * scale:
        return (cell_witness(cells[nearest], program),), (1.0,)
    weights = convex_weights(points, gradient, tolerance=tolerance)
    if weights is None:
        return None
    used = np.flatnonzero(weights > 0)
    total = float(weights[used].sum())
    return (
        tuple(cell_witness(cells[i], program) for i in used),
        tuple(float(weights[i]) / total for i in used),
    )


def cell_witness(cell: Cell, program: Program) -> Witness:
    """A certain cell as a witness."""
    direction = cell.direction if cell.direction is not None else np.zeros(0)
    values = cell.rows @ direction
    sizes = np.linalg.norm(cell.rows, axis=1) * np.linalg.norm(direction)
    return Witness(
        direction=unflatten(direction, program.point),
        choices=cell.choices,
        gradient=unflatten(cell.gradient, program.point),
        rows=cell.rows,
        coefficients=direction,
        kinks=cell.kinks,
        margin=float((values / sizes).min(initial=np.inf)),
        methods=(Method.RATIONAL_ELIMINATION,),
    )


def refute(
    exact: Exact, program: Program, gradient: Array, tolerance: float
) -> Refutation | None:
    """A proof that the gradient is outside of the hull of everything possible, or None."""
    if not exact.cells.cells:
        return None
    points = exact.all_points()
    scale = max(float(np.abs(points).max(initial=0.0)), float(np.abs(gradient).max(initial=0.0)))
    found: Separation | None = separating_direction(points, gradient, tolerance=tolerance)
    if found is None or found.distance <= tolerance * scale:
        return None
    return Refutation(
        gradient=gradient,
        points=points,
        direction=found.direction,
        gap=found.gap,
        distance=found.distance,
        exclusions=tuple(e.rows for e in exact.cells.exclusions),
        program=program,
    )


def nearest_correct(exact: Exact, gradient: Array) -> Array | None:
    """The limiting gradient closest to AD's, among those that are certain."""
    cells = exact.certain()
    if not cells:
        return None
    return min((c.gradient for c in cells), key=lambda p: float(np.linalg.norm(p - gradient)))


def gradient_along(
    program: Program, direction: Sequence[torch.Tensor]
) -> tuple[torch.Tensor, ...]:
    """The gradient of the selection that is active along a direction."""
    choices, _ = select_along(program, direction)
    return selected_gradient(program, choices)
