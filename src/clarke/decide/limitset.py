"""The limiting gradients as a Minkowski sum of small sets, and distances to its hull.

Where no path joins two live kinks, the gradient is a sum of one change for each kink, and kinks
whose switching gradients are linearly independent of the others' choose independently of them. The
set is then a sum of sets that are enumerated one by one: ``sum |x_i|`` over 20 coordinates has
2^20 limiting gradients, but 20 components of two.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import lcm
from operator import mul
from typing import TYPE_CHECKING

import numpy as np

from clarke.deadline import UNLIMITED, Deadline
from clarke.decide.flat import ChamberCells
from clarke.decide.project import project
from clarke.feasibility.exact_mean import exact_mean
from clarke.numerics import (
    EXACT_ENTRY_SECONDS,
    EXACT_MEAN,
    EXACT_MEAN_SIZE,
    EXACT_MEAN_STEPS,
    EXACT_SHARE,
    FLOPS,
    PROJECTION_CLOSE,
    SET_ROUNDINGS,
    UNIT,
    UNITS_NARROW,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from clarke.decide.cells import Cell, Exclusion

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
    cells: Sequence[Cell]
    exclusions: tuple[Exclusion, ...]

    def certain(self) -> list[int]:
        """The cells that directions prove."""
        if isinstance(self.cells, ChamberCells):
            return np.flatnonzero(self.cells.sure).tolist()
        return [i for i, cell in enumerate(self.cells) if cell.certain]

    @property
    def complete(self) -> bool:
        """Whether directions prove all of them."""
        return len(self.certain()) == len(self.cells)

    def spread(self) -> float:
        """The largest difference between two changes, in any entry; NaN if one is not finite."""
        return float(np.ptp(self.changes, axis=0).max(initial=0.0))

    def restricted(self, cells: list[int]) -> Component:
        """The same with some cells only."""
        if len(cells) == len(self.cells):
            return self
        if isinstance(self.cells, ChamberCells):
            which = np.array(cells, dtype=np.intp)
            return Component(self.changes[which], self.cells.taken(which), self.exclusions)
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
class Placed:
    """Where a vector lies, as seen from a set, when every entry may be off by its own bound.

    Attributes:
        inside: In the hull (True), outside of it (False), or too near its border to tell (None).
        atoms: If inside, elements with the vector as their mean: the cell of every component.
        weights: Their convex weights.
        direction: (n,) if outside, a unit vector that separates.
        gap: ``<direction, vector> - max <direction, element>``.
        distance: Euclidean distance to the hull.
    """

    inside: bool | None
    atoms: tuple[tuple[int, ...], ...]
    weights: tuple[float, ...]
    direction: Array | None
    gap: float
    distance: float


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
    def size(self) -> int:
        """How many variables there are, n."""
        return len(self.base)

    @property
    def count(self) -> int:
        """How many combinations there are (some may coincide)."""
        total = 1
        for c in self.components:
            total *= len(c.changes)
        return total

    def combinations(self) -> Iterator[tuple[tuple[int, ...], list[Cell]]]:
        """Every combination, with the cell that it takes in each component."""
        for atom in np.ndindex(*[len(c.cells) for c in self.components]):
            yield atom, [c.cells[i] for c, i in zip(self.components, atom, strict=True)]

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
        bound = PROJECTION_CLOSE * self._size()
        return self._restricted(
            [c.certain() or ([0] if c.spread() <= bound else []) for c in self.components]
        )

    def _restricted(self, kept: Sequence[list[int]]) -> LimitSet | None:
        """The set with some cells of every component only; None if one is left without any."""
        if not all(kept):
            return None
        parts = (c.restricted(k) for c, k in zip(self.components, kept, strict=True))
        return LimitSet(self.base, tuple(parts))

    def seen_from(self, target: Array, factors: Array) -> LimitSet:
        """The set less a target, every coordinate times a factor of its own, (n,)."""
        firsts = [c.changes[0] for c in self.components]
        parts = (
            Component((c.changes - first) * factors, c.cells, c.exclusions)
            for c, first in zip(self.components, firsts, strict=True)
        )
        # In this order, what all elements and the target share is taken off without a rounding.
        return LimitSet((self.base + sum(firsts) - target) * factors, tuple(parts))

    def spans(self, target: Array) -> Array:
        """(n,) the largest distance of each entry of an element from the target's."""
        seen = self.seen_from(target, np.ones(len(target)))
        low, high = seen.base.copy(), seen.base.copy()
        for c in seen.components:
            low, high = low + c.changes.min(axis=0), high + c.changes.max(axis=0)
        found: Array = np.maximum(np.abs(low), np.abs(high))
        return found

    def roundings(self, target: Array) -> Array:
        """(n,) what adding up float64 numbers can do to an entry of an element or the target."""
        sizes = np.abs(self.base) + np.abs(target)
        for c in self.components:
            sizes = sizes + np.abs(c.changes).max(axis=0, initial=0.0)
        found: Array = SET_ROUNDINGS * UNIT * sizes
        return found

    def place(self, target: Array, allowed: Array, deadline: Deadline = UNLIMITED) -> Placed:
        """Where a vector lies, entry by entry.

        Every coordinate is measured in its own size, so that an entry of size 1 counts beside one
        of 1e8; entries in which no element is farther from the target than allowed count as equal.
        Where that does not settle it, coordinates are measured in what each is allowed, and then
        the hull in its own axes: one that is flat in a slanted direction is round there.
        """
        spans = self.spans(target)
        apart = spans > allowed
        origin = np.zeros(len(target))
        tiny = np.finfo(np.float64).tiny  # of smaller numbers the inverses are out of range
        for near_to in (spans, np.maximum(allowed, UNITS_NARROW * spans)):
            units = np.maximum(near_to, tiny)
            factors = np.where(apart, 1.0 / np.where(apart, units, 1.0), 0.0)
            near = self.seen_from(target, factors).nearest(origin, deadline)
            room = allowed * factors
            if bool((np.abs(near.point) <= room).all()):
                distance = float(np.linalg.norm(near.point[apart] * units[apart]))
                return Placed(True, near.atoms, near.weights, None, 0.0, distance)
            if near.gap > float(np.abs(near.direction) @ room):
                direction, length = _unit(near.direction * factors)
                whole = self.seen_from(target, apart.astype(np.float64)).nearest(origin, deadline)
                return Placed(False, (), (), direction, near.gap / length, whole.distance)
        spans = np.maximum(spans, tiny)
        factors = np.where(apart, 1.0 / np.where(apart, spans, 1.0), 0.0)
        return self._place_along_axes(target, allowed, factors, deadline)

    def _place_along_axes(
        self, target: Array, allowed: Array, factors: Array, deadline: Deadline
    ) -> Placed:
        """The same with the hull measured along its own axes, for one that is nearly flat."""
        seen = self.seen_from(target, factors)
        clouds = [
            (c.changes - c.changes.mean(axis=0)) / len(c.changes) ** 0.5 for c in seen.components
        ]
        deadline.afford(4 * self.size**3 / FLOPS, "measuring the set along its axes")
        corner = np.linalg.qr(np.concatenate(clouds), mode="r")
        _, sizes, axes = np.linalg.svd(corner, full_matrices=True)
        room = np.abs(axes) @ (allowed * factors)
        sizes = np.maximum(np.append(sizes, np.zeros(self.size - len(sizes))), room)
        matrix = axes.T / np.where(sizes > 0, sizes, 1.0)
        parts = (Component(c.changes @ matrix, c.cells, c.exclusions) for c in seen.components)
        near = LimitSet(seen.base @ matrix, tuple(parts)).nearest(np.zeros(self.size), deadline)
        off = np.asarray(near.weights) @ np.stack([seen.element(a) for a in near.atoms])
        apart = factors > 0
        distance = float(np.linalg.norm(off[apart] / factors[apart]))
        if bool((np.abs(off) <= allowed * factors).all()):
            return Placed(True, near.atoms, near.weights, None, 0.0, distance)
        direction = (matrix @ near.direction) * factors
        if near.gap > float(np.abs(direction) @ allowed):
            direction, length = _unit(direction)
            return Placed(False, (), (), direction, near.gap / length, distance)
        return self._place_exactly(target, allowed, distance, deadline)

    def _place_exactly(
        self, target: Array, allowed: Array, distance: float, deadline: Deadline
    ) -> Placed:
        """The same in exact arithmetic, for a small one that is thinner than solvers see."""
        unknown = Placed(None, (), (), None, 0.0, distance)
        if self.size > EXACT_MEAN_SIZE or sum(c.changes.size for c in self.components) > EXACT_MEAN:
            return unknown
        part = deadline.part(EXACT_SHARE)
        ends = (target.tolist(), allowed.tolist())
        mean = exact_mean(_Extremes(self), *ends, part, int(EXACT_MEAN_STEPS))
        if mean is None:
            return unknown
        if mean.direction is None:
            return Placed(True, mean.names, tuple(map(float, mean.weights)), None, 0.0, distance)
        largest = max(map(abs, mean.direction))
        direction = np.array([float(d / largest) for d in mean.direction])
        direction /= np.linalg.norm(direction)
        if not separates(self, target - np.sign(direction) * allowed, direction, deadline):
            return unknown
        gap = float(direction @ target - direction @ self.element(self.extreme(direction)))
        return Placed(False, (), (), direction, gap, distance)

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

    def blocks(self, size: int) -> Iterator[Array]:
        """All combinations in the order of `elements`, so many at a time."""
        shape = tuple(len(c.changes) for c in self.components)
        for start in range(0, self.count, size):
            which = np.arange(start, min(start + size, self.count))
            cells = np.unravel_index(which, shape)
            points = np.repeat(self.base[None, :], len(which), axis=0)
            for c, own in zip(self.components, cells, strict=True):
                points += c.changes[own]
            yield points

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


def _unit(direction: Array) -> tuple[Array, float]:
    """A vector of length 1 along one whose squares may be out of range, and its length."""
    largest = float(np.abs(direction).max())
    length = float(np.linalg.norm(direction / largest))
    return direction / largest / length, largest * length


class _Extremes:
    """The elements of a set in whole numbers, and which of them lies farthest in a direction."""

    def __init__(self, limits: LimitSet) -> None:
        self._base = [Fraction(v) for v in limits.base.tolist()]
        clouds = [
            [[Fraction(v) for v in row] for row in c.changes.tolist()] for c in limits.components
        ]
        self._units = [
            lcm(*(row[i].denominator for cloud in clouds for row in cloud))
            for i in range(limits.size)
        ]
        self._clouds = [
            [[int(v * u) for v, u in zip(row, self._units, strict=True)] for row in cloud]
            for cloud in clouds
        ]

    def __call__(
        self, direction: tuple[Fraction, ...]
    ) -> tuple[tuple[int, ...], tuple[Fraction, ...]]:
        shares = [d / u for d, u in zip(direction, self._units, strict=True)]
        common = lcm(*(s.denominator for s in shares))
        whole = [int(s * common) for s in shares]
        atom, point = [], list(self._base)
        for cloud in self._clouds:
            values = [sum(map(mul, whole, row)) for row in cloud]
            best = values.index(max(values))
            atom.append(best)
            point = [
                p + Fraction(v, u) for p, v, u in zip(point, cloud[best], self._units, strict=True)
            ]
        return tuple(atom), tuple(point)


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
