"""The set where all pieces bend one way: an outer estimate that is the set, without any listing.

There the sum rule is an equality (`decide.outer`, docs/theory.md): every choice of weights at the
kinks gives an element, so that membership and the smallest element are least squares over weights,
with as many unknowns as kinks. Answers carry weights or a direction, and are held against the
estimate again, computed from scratch.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import lsq_linear

from clarke.deadline import UNLIMITED, Deadline
from clarke.decide.apart import regular_in_parts
from clarke.decide.normal import outer_estimate
from clarke.decide.outer import Outer, Rows
from clarke.decide.project import project
from clarke.decide.shares import linear_parts_of, weights_by_program
from clarke.errors import BudgetError
from clarke.numerics import (
    FLOPS,
    PROJECTION_CLOSE,
    PROJECTION_ROUND,
    RELATIVE_INSIDE,
    SET_ROUNDINGS,
    UNIT,
    UNITS_NARROW,
)
from clarke.steering.cones import with_cones

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from clarke.steering import Program

    Array = NDArray[np.float64]
    Mask = NDArray[np.bool_]

_ROUNDS = 200
_FAR = 16  # directions in which the largest element of a concave part is looked for


@dataclass(frozen=True, eq=False)
class Mixed:
    """An element of the set as a mean.

    Attributes:
        point: (n,) the element.
        shares: (k, L) weights of the candidates at all kinks, one row for each of k elements.
        weights: (k,) the weights of these elements.
        toward: (n,) the mean of the directions in which these are farthest, where they are such.
    """

    point: Array
    shares: Array
    weights: Array
    toward: Array | None = None


@dataclass(frozen=True, eq=False)
class Located:
    """Where a vector lies.

    Attributes:
        inside: In the set (True), outside (False), or too near its border to tell (None).
        nearest: The element found nearest to it.
        direction: (n,) if outside, a unit vector that separates.
        distance: To the nearest element.
    """

    inside: bool | None
    nearest: Mixed
    direction: Array | None
    distance: float


@dataclass(frozen=True, eq=False)
class RegularSet:
    """The Clarke subdifferential as weights at kinks.

    Attributes:
        outer: The estimate, which is the set; its forms are `Rows`.
    """

    outer: Outer

    @staticmethod
    def of(program: Program, generator: torch.Generator, deadline: Deadline) -> RegularSet | None:
        """The set of a program, or None where it is not of this kind."""
        held = with_cones(program)
        for whole in (False, True):
            try:
                outer = outer_estimate(held, generator, deadline, whole=whole)
            except BudgetError:
                deadline.ask()
                return None
            if isinstance(outer.forms, Rows) and regular_in_parts(outer):
                return RegularSet(outer)
            if outer.mixing is None:
                return None
        return None

    @property
    def size(self) -> int:
        """How many variables there are, n."""
        return len(self.outer.base)

    def element(self, shares: Array) -> Array:
        """The element with these weights of candidates, (L,)."""
        return self.outer.mean(shares)

    def roundings(self, target: Array) -> Array:
        """(n,) what adding up float64 numbers can do to an entry of an element or the target."""
        found: Array = SET_ROUNDINGS * UNIT * (self._sizes + np.abs(target))
        return found

    def spans(self, target: Array) -> Array:
        """(n,) the largest distance of each entry of an element from the target's."""
        low, high = self._ends
        found: Array = np.maximum(np.abs(low - target), np.abs(high - target))
        return found

    @cached_property
    def _ends(self) -> tuple[Array, Array]:
        """(n,) the smallest and the largest value of each entry in the set."""
        outer, atoms = self.outer, self.outer.atoms
        if outer.mixing is None:
            forms = outer.out[atoms.owner, None] * linear_parts_of(outer)[atoms.form]
            low, high = np.full((2, atoms.count, self.size), np.inf)
            np.minimum.at(low, atoms.owner, forms)
            np.minimum.at(high, atoms.owner, -forms)
            if bool(atoms.round.any()):
                lengths = self._lengths(np.abs(forms))[atoms.round]
                low[atoms.round] = high[atoms.round] = -lengths
            return outer.base + low.sum(0), outer.base - high.sum(0)
        units = np.eye(self.size)
        high = np.array([outer.extreme(u)[0] for u in units])
        return np.array([-outer.extreme(-u)[0] for u in units]), high

    @cached_property
    def _sizes(self) -> Array:
        """(n,) the sum of the absolute terms of an entry."""
        outer, atoms = self.outer, self.outer.atoms
        linear = np.abs(linear_parts_of(outer))
        largest = np.zeros((atoms.count, self.size))
        for level in atoms.levels:
            places = atoms.members(level)
            own = linear[atoms.form[places]]
            if outer.mixing is not None:
                own = own + np.abs(outer.mixing[atoms.form[places]]) @ largest
            np.maximum.at(largest, atoms.owner[places], own)
            if bool(atoms.round[level].any()):
                curved = level[atoms.round[level]]
                whole = np.zeros((len(atoms.form), self.size))
                whole[places] = own
                largest[curved] = self._lengths(whole)[curved]
        found: Array = outer.noise + np.abs(outer.out) @ largest
        return found

    def _lengths(self, rows: Array) -> Array:
        """(J, n) for every atom the lengths of the columns of its rows of (L, n)."""
        atoms = self.outer.atoms
        largest = np.zeros((atoms.count, self.size))
        np.maximum.at(largest, atoms.owner, np.abs(rows))
        squares = np.zeros_like(largest)
        safe = np.where(largest > 0, largest, 1.0)
        np.add.at(squares, atoms.owner, (rows / safe[atoms.owner]) ** 2)
        found: Array = safe * np.sqrt(squares)
        return found

    # ------------------------------------------------------------ where a vector lies

    def place(self, target: Array, allowed: Array, deadline: Deadline = UNLIMITED) -> Located:
        """Where a vector lies when every entry may be off by its own bound."""
        spans = np.maximum(self.spans(target), np.abs(target))
        apart = spans > allowed
        units = np.where(apart, np.maximum(spans, UNITS_NARROW * spans.max(initial=0.0)), np.inf)
        units[~apart] = np.inf
        near = self._near(target, units, deadline)
        found = self._judged(target, allowed, near, units)
        if found.inside is None and not self._is_round:
            found = self._by_program(target, allowed, units, near, deadline)
        return found

    def smallest(self, deadline: Deadline = UNLIMITED) -> Mixed:
        """The element of smallest norm."""
        return self._near(np.zeros(self.size), np.ones(self.size), deadline)

    def _judged(self, target: Array, allowed: Array, near: Mixed, units: Array) -> Located:
        off = target - near.point
        if bool((np.abs(off) <= allowed).all()):
            return Located(True, near, None, float(np.linalg.norm(off)))
        found = self._separated(target, allowed, off / units**2, near)
        if found.inside is None and near.toward is not None:
            # Just beyond a curved border what is off is roundings, and its direction is none.
            found = self._separated(target, allowed, near.toward, near)
        return found

    def _separated(self, target: Array, allowed: Array, direction: Array, near: Mixed) -> Located:
        length = float(np.linalg.norm(direction))
        distance = float(np.linalg.norm(target - near.point))
        if length > 0:
            unit = direction / length
            if self.gap(target, unit) > float(np.abs(unit) @ allowed):
                return Located(False, near, unit, distance)
        return Located(None, near, None, distance)

    # ------------------------------------------------------------ the nearest element

    @property
    def _is_round(self) -> bool:
        """Whether norms of zero are among the kinks."""
        return bool(self.outer.atoms.round.any())

    @property
    def _is_box(self) -> bool:
        """Whether every kink chooses between two quantities and none depends on another."""
        atoms = self.outer.atoms
        pairs = (np.bincount(atoms.owner, minlength=atoms.count) == 2) & ~atoms.round
        return self.outer.mixing is None and bool(pairs.all())

    def _near(self, target: Array, units: Array, deadline: Deadline) -> Mixed:
        if self.outer.atoms.count == 0:
            return Mixed(self.outer.base, np.zeros((1, 0)), np.ones(1))
        if self._is_box:
            shares = self._in_box(target, units, deadline)
            return Mixed(self.element(shares), shares[None], np.ones(1))
        return self._by_elements(target, units, deadline)

    def _in_box(self, target: Array, units: Array, deadline: Deadline) -> Array:
        """(L,) weights of the nearest sum of segments.

        By the active sets of bounded least squares (Stark and Parker 1995).
        """
        outer = self.outer
        linear = linear_parts_of(outer)[outer.atoms.form].reshape(-1, 2, self.size)
        start = outer.base + outer.out @ linear[:, 0]
        segments = outer.out[:, None] * (linear[:, 1] - linear[:, 0])
        deadline.afford(
            segments.size * min(segments.shape) / FLOPS, "looking for the nearest element"
        )
        tall, right = (segments / units).T, (target - start) / units
        found = lsq_linear(tall, right, (0.0, 1.0), method="bvls", tol=UNIT)
        upper = np.clip(found.x, 0.0, 1.0)
        return np.stack([1.0 - upper, upper], axis=1).reshape(-1)

    def _by_elements(self, target: Array, units: Array, deadline: Deadline) -> Mixed:
        """The nearest mean of elements in chosen directions."""
        size = float((self._sizes / units).max(initial=0.0))
        picks: dict[bytes, Array] = {}
        ways: dict[bytes, Array] = {}

        def extreme(direction: Array) -> tuple[bytes, Array]:
            shares = self._picked(direction / units)
            name = shares.tobytes()
            picks[name], ways[name] = shares, direction / units
            return name, self.element(shares) / units

        start = (target - self.outer.base) / units
        close = float(PROJECTION_ROUND if self._is_round else PROJECTION_CLOSE)
        near = project(extreme, target / units, start, size, _ROUNDS, deadline, close)
        shares = np.stack([picks[n] for n in near.names])
        weights = np.array(near.weights)
        point = weights @ np.stack([self.element(s) for s in shares])
        return Mixed(point, shares, weights, weights @ np.stack([ways[n] for n in near.names]))

    def _picked(self, direction: Array) -> Array:
        """(L,) the candidates, weights 0 and 1, of the element farthest in a direction."""
        _, _, top, bottom = self.outer.bounds(direction)
        found: Array = np.where(self._counts_down()[self.outer.atoms.owner], bottom, top)
        return found

    def _counts_down(self) -> Mask:
        """(J,) the atoms that count with a negative sign: none of a regular set has both."""
        outer, atoms = self.outer, self.outer.atoms
        up, down = outer.out > 0, outer.out < 0
        for level in reversed(atoms.levels) if outer.mixing is not None else ():
            for own, same, other in ((up.copy(), up, down), (down.copy(), down, up)):
                chosen = level[own[level]]
                if outer.mixing is not None and len(chosen):
                    rows = outer.mixing[atoms.form[atoms.members(chosen)]]
                    np.logical_or(same, (rows > 0).any(0), out=same)
                    np.logical_or(other, (rows < 0).any(0), out=other)
        found: Mask = down & ~up
        return found

    def _by_program(
        self, target: Array, allowed: Array, units: Array, near: Mixed, deadline: Deadline
    ) -> Located:
        """By a linear program, with its multipliers as a direction."""
        turned = np.where(self._counts_down(), -1.0, 1.0)
        found = weights_by_program(self.outer, turned, target, units, deadline)
        if found is None:
            return Located(None, near, None, float(np.linalg.norm(target - near.point)))
        shares, direction = found
        mixed = Mixed(self.element(shares), shares[None], np.ones(1))
        miss = mixed.point - target
        if bool((np.abs(miss) <= allowed).all()):
            return Located(True, mixed, None, float(np.linalg.norm(miss)))
        return self._separated(target, allowed, direction, near)

    # ------------------------------------------------------------ minima

    def convex_entries(self) -> Mask:
        """(n,) the variables in which the function bends upwards."""
        found = np.zeros(self.size, dtype=bool)
        for atoms, entries in self.outer.parts():
            if self.outer.bends(1.0, atoms):
                found |= entries
        return found

    def downhill(self, deadline: Deadline) -> Array:
        """A direction that falls where there is one, part by part; zero where there is none.

        A part that bends upwards falls most against its smallest element, one that bends downwards
        against any but zero.
        """
        found = -self.smallest(deadline).point
        bends = ~self.convex_entries()
        if not bool(bends.any()):
            return found
        generator = np.random.default_rng(0)
        far = found
        for _ in range(_FAR):
            direction = np.where(bends, generator.standard_normal(self.size), 0.0)
            for sign in (1.0, -1.0):
                own = np.where(bends, -self.outer.extreme(sign * direction)[1], found)
                if np.linalg.norm(own) > np.linalg.norm(far):
                    far = own
        return far

    def zero_inside(self, allowed: Array, deadline: Deadline) -> bool | None:
        """Whether the set holds a ball around zero: the function rises in every direction.

        None where that was not found out.
        """
        if not bool(self.convex_entries().all()):
            return None
        generator = np.random.default_rng(0)
        ways = generator.standard_normal((self.size, self.size))
        found = np.stack([self.outer.extreme(d)[1] for way in ways for d in (way, -way)])
        middle = found.mean(axis=0)  # inside of the hull of these elements
        units = np.where(np.ptp(found, axis=0) > 0, np.ptp(found, axis=0), 1.0)
        if np.linalg.matrix_rank((found - middle) / units) < self.size:
            return False
        room = float(RELATIVE_INSIDE)
        beyond = -room / (1.0 - room) * middle
        return self.place(beyond, allowed, deadline).inside or None

    def gap(self, target: Array, direction: Array) -> float:
        """By how much a direction separates a vector from the set; negative if it may not.

        Less what roundings of the set's terms may amount to.
        """
        room = float(self.roundings(target) @ np.abs(direction))
        return float(target @ direction) - self.outer.extreme(direction)[0] - room
