"""The limiting gradients as a Minkowski sum of small sets, and distances to its hull.

Where no path joins two live kinks, the gradient is a sum of one change for each kink, and kinks
whose switching gradients are linearly independent of the others' choose independently of them. The
set is then a sum of sets that are enumerated one by one: ``sum |x_i|`` over 20 coordinates has
2^20 limiting gradients, but 20 components of two.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

from clarke.deadline import UNLIMITED, Deadline
from clarke.decide.project import CLOSE, project
from clarke.numerics import EXACT_ENTRY_SECONDS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from clarke.decide.enumerate import Cell, Exclusion

    Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Component:
    """One summand.

    Attributes:
        changes: (k, n) what each cell adds to the base gradient.
        cells: The cells, in the same order.
        exclusions: Branches that were dropped.
    """

    changes: Array
    cells: tuple[Cell, ...]
    exclusions: tuple[Exclusion, ...]

    def certain(self) -> list[int]:
        """The cells that directions prove."""
        return [i for i, cell in enumerate(self.cells) if cell.certain]

    def spread(self) -> float:
        """The largest difference between two changes, in any entry; NaN if one is not finite."""
        return float(np.ptp(self.changes, axis=0).max(initial=0.0))

    def restricted(self, cells: list[int]) -> Component:
        """The same with some cells only."""
        return Component(self.changes[cells], tuple(self.cells[i] for i in cells), self.exclusions)


@dataclass(frozen=True, eq=False)
class Nearest:
    """The point of a hull that is nearest to a target.

    Attributes:
        point: (n,) the point.
        atoms: For each element of the set that was used, the cell taken in every component.
        weights: Their convex weights.
        distance: Euclidean distance to the target.
        gap: ``<direction, target> - max <direction, element>``: positive if separated.
        direction: (n,) unit vector from the point to the target.
    """

    point: Array
    atoms: tuple[tuple[int, ...], ...]
    weights: tuple[float, ...]
    distance: float
    gap: float
    direction: Array


@dataclass(frozen=True, eq=False)
class LimitSet:
    """A sum ``base + changes_1 + changes_2 + ...``: every combination is an element.

    Attributes:
        base: (n,) what the sums are added to.
        components: The summands; at least one element each.
    """

    base: Array
    components: tuple[Component, ...]

    @property
    def count(self) -> int:
        """How many combinations there are (some may coincide)."""
        total = 1
        for c in self.components:
            total *= len(c.changes)
        return total

    @property
    def finite(self) -> bool:
        """Whether no element has a NaN or an infinite entry."""
        return all(
            bool(np.isfinite(part).all())
            for part in (self.base, *(c.changes for c in self.components))
        )

    def certain(self) -> LimitSet | None:
        """The part that directions prove, or None if some component has no such element."""
        return self._restricted([c.certain() for c in self.components])

    def known(self) -> LimitSet | None:
        """The same with what follows without a direction; None if some component stays unknown.

        Around the point one of the selections that were not excluded is active: if all of a
        component's have one gradient, that is a limit whichever it is. Where switching functions
        vanish to first order, as that of ``|x * y|`` at 0, no direction says which.
        """
        bound = CLOSE * self._size()
        return self._restricted(
            [c.certain() or ([0] if c.spread() <= bound else []) for c in self.components]
        )

    def _restricted(self, kept: Sequence[list[int]]) -> LimitSet | None:
        """The set with some cells of every component only; None if one is left without any."""
        if not all(kept):
            return None
        parts = (c.restricted(k) for c, k in zip(self.components, kept, strict=True))
        return LimitSet(self.base, tuple(parts))

    def in_units(self, units: Array) -> LimitSet:
        """The same set with every coordinate divided by a unit of its own, (n,)."""
        parts = (Component(c.changes / units, c.cells, c.exclusions) for c in self.components)
        return LimitSet(self.base / units, tuple(parts))

    def element(self, atom: Sequence[int]) -> Array:
        """The sum of one cell from every component."""
        total = self.base.copy()
        for component, i in zip(self.components, atom, strict=True):
            total = total + component.changes[i]
        return total

    def elements(self) -> Array:
        """(k, n) all combinations; only for small sets."""
        points = self.base[None, :]
        for c in self.components:
            points = (points[:, None, :] + c.changes[None, :, :]).reshape(-1, len(self.base))
        return points

    def extreme(self, direction: Array) -> tuple[int, ...]:
        """The combination with the largest inner product."""
        return tuple(int(np.argmax(c.changes @ direction)) for c in self.components)

    def nearest(self, target: Array, deadline: Deadline = UNLIMITED) -> Nearest:
        """Project a target onto the hull."""
        size = max(float(np.abs(target).max(initial=0.0)), self._size())

        def extreme(direction: Array) -> tuple[tuple[int, ...], Array]:
            atom = self.extreme(direction)
            return atom, self.element(atom)

        near = project(extreme, target, target - self.base, size, deadline=deadline)
        toward = near.direction
        gap = float(toward @ target - toward @ self.element(self.extreme(toward)))
        return Nearest(near.point, near.names, near.weights, near.distance, gap, toward)

    def _size(self) -> float:
        size = float(np.abs(self.base).max(initial=0.0))
        return size + sum(float(np.abs(c.changes).max(initial=0.0)) for c in self.components)

    def scale(self, target: Array) -> float:
        """Largest absolute entry among base, changes and target."""
        return max(
            float(np.abs(self.base).max(initial=0.0)),
            float(np.abs(target).max(initial=0.0)),
            *(float(np.abs(c.changes).max(initial=0.0)) for c in self.components),
            0.0,
        )


def separates(
    limits: LimitSet, target: Array, direction: Array, deadline: Deadline = UNLIMITED
) -> bool:
    """Check ``<direction, target> > max <direction, element>`` in exact rational arithmetic."""

    def dot(a: Array, b: Array) -> Fraction:
        return sum(
            (Fraction(float(x)) * Fraction(float(y)) for x, y in zip(a, b, strict=True) if x and y),
            Fraction(0),
        )

    most = dot(direction, limits.base)
    for c in limits.components:
        deadline.afford(c.changes.size * EXACT_ENTRY_SECONDS, "checking the separation exactly")
        most += max(dot(direction, change) for change in c.changes)
    return dot(direction, target) > most
