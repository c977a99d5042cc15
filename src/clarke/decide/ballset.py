"""The set where norms are taken of zero and pieces bend both ways: limits along directions.

Outside is what the greatest slopes of all cells exclude (`decide.balls`); inside is a mean of
limits of gradients along directions of closed cells. Between the two is what neither shows, where
several norms turn together.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from clarke.deadline import UNLIMITED
from clarke.decide.balls import BallCell, Balls, balls_around
from clarke.decide.project import project
from clarke.errors import UnsupportedError
from clarke.numerics import (
    BALL_INSIDE,
    NORM_SLACK,
    PROJECTION_ROUND,
    SET_AGREES,
    SET_ROUNDINGS,
    UNIT,
)
from clarke.steering.cones import with_cones

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch
    from numpy.typing import NDArray

    from clarke.deadline import Deadline
    from clarke.decide.limits import Limits
    from clarke.decide.project import Projection
    from clarke.steering import Program

    Array = NDArray[np.float64]
    Name = tuple[int, tuple[float, ...]]

_ROUNDS = 200


@dataclass(frozen=True, eq=False)
class Way:
    """A limiting gradient.

    Attributes:
        cell: The cell's number.
        direction: (n,) a direction of the closed cell.
        element: (n,) the limit along it.
    """

    cell: int
    direction: Array
    element: Array


@dataclass(frozen=True, eq=False)
class Between:
    """Where a vector lies.

    Attributes:
        inside: In the set (True), outside (False); None where neither was shown.
        ways: If inside, limiting gradients of which it is a mean.
        weights: (k,) their weights.
        direction: (n,) if outside, a unit vector that separates.
        distance: To the nearest element found.
    """

    inside: bool | None
    ways: tuple[Way, ...]
    weights: Array
    direction: Array | None
    distance: float


@dataclass(frozen=True, eq=False)
class BallSet:
    """All cells, with a ball of slopes in each.

    Attributes:
        balls: The cells.
    """

    balls: Balls

    @staticmethod
    def of(program: Program, generator: torch.Generator, limits: Limits) -> BallSet:
        """The set of a program.

        Raises:
            BudgetError: Its selections cannot be listed.
        """
        return BallSet(balls_around(with_cones(program), generator, limits))

    @property
    def size(self) -> int:
        """How many variables there are, n."""
        return len(self._sizes)

    @cached_property
    def _sizes(self) -> Array:
        return self.balls.size()

    def roundings(self, target: Array) -> Array:
        """(n,) what adding up float64 numbers can do to an entry of an element or the target."""
        found: Array = SET_ROUNDINGS * UNIT * (self._sizes + np.abs(target))
        return found

    def spans(self, target: Array) -> Array:
        """(n,) no less than the largest distance of each entry of an element from the target's."""
        found: Array = self._sizes + np.abs(target)
        return found

    def gap(self, target: Array, direction: Array) -> float:
        """By how much a direction separates a vector from the set; negative if it may not."""
        room = float((self.roundings(target) + NORM_SLACK * self._sizes) @ np.abs(direction))
        return float(direction @ (target - self.balls.extreme(direction)[1])) - room

    def way(self, cell: int, direction: Array) -> Way | None:
        """The limit along a direction of a closed cell that is proved; None if it is no such."""
        if not 0 <= cell < len(self.balls.cells) or direction.shape != (self.size,):
            return None
        own = self.balls.cells[cell]
        room = BALL_INSIDE * np.abs(own.rows) @ np.abs(direction)
        if own.direction is None or not bool((own.rows @ direction >= -room).all()):
            return None
        element = own.along(direction) if isinstance(own, BallCell) else own.gradient
        return None if element is None else Way(cell, direction, element)

    def short(self, x: Array) -> float:
        """The largest ``<x, x> - <x, p>`` over all elements p."""
        return float(x @ x) - float(x @ self.balls.extreme(-x)[1])

    def place(self, target: Array, allowed: Array, deadline: Deadline = UNLIMITED) -> Between:
        """Where a vector lies when every entry may be off by its own bound."""
        ways, near = self._near(target, deadline)
        off = np.abs(near.point - target)
        if bool((off <= allowed).all()):
            used, weights = tuple(ways[n] for n in near.names), np.array(near.weights)
            mean = weights @ np.stack([w.element for w in used])
            return Between(True, used, weights, None, float(np.linalg.norm(mean - target)))
        for direction in (near.direction, self._outer(target, deadline).direction):
            if direction.any() and self.gap(target, direction) > float(np.abs(direction) @ allowed):
                return Between(False, (), np.zeros(0), direction, near.distance)
        return Between(None, (), np.zeros(0), None, near.distance)

    def smallest(self, deadline: Deadline) -> Array:
        """The element of smallest norm.

        Raises:
            UnsupportedError: Only bounds of its norm are known.
        """
        zero = np.zeros(self.size)
        point = self._near(zero, deadline)[1].point
        short, size = self.short(point), float(point @ point)
        if short > max(SET_AGREES * size, float(np.abs(point) @ (NORM_SLACK * self._sizes))):
            raise UnsupportedError(
                f"The smallest element is not known: its norm is {max(size - short, 0) ** 0.5:.6g} "
                f"to {size**0.5:.6g}. Norms of zero that turn together leave the set known from "
                "inside and outside only."
            )
        return point

    def downhill(self, deadline: Deadline) -> Iterator[Array]:
        """Directions that may go down: against the smallest element found, and in every cell."""
        point = self._near(np.zeros(self.size), deadline)[1].point
        yield -point
        for cell in self.balls.cells:
            deadline.ask("looking for a direction of descent in {} cells", len(self.balls.cells))
            if cell.direction is not None:
                yield cell.direction
            for aim in (-cell.gradient, -point, point):
                found = cell.toward(aim) if isinstance(cell, BallCell) else None
                if found is not None:
                    yield found

    def _near(
        self, target: Array, deadline: Deadline
    ) -> tuple[dict[bytes, Way], Projection[bytes]]:
        """The nearest mean of limits along directions."""
        found: dict[bytes, Way] = {}

        def extreme(direction: Array) -> tuple[bytes, Array]:
            best = max(self._ways(direction), key=lambda w: float(w.element @ direction))
            name = best.element.tobytes()
            found.setdefault(name, best)
            return name, best.element

        start = target - np.mean([c.gradient for c in self.balls.cells], axis=0)
        start = start if start.any() else np.ones_like(target)
        size = float(np.abs(np.concatenate([self._sizes, target])).max())
        close = float(PROJECTION_ROUND)
        near = project(extreme, target, start, size, _ROUNDS, deadline, close)
        return found, near

    def _outer(self, target: Array, deadline: Deadline) -> Projection[Name]:
        size = float(np.abs(np.concatenate([self._sizes, target])).max())
        start = target if target.any() else np.ones_like(target)
        return project(self.balls.extreme, target, start, size, _ROUNDS, deadline)

    def _ways(self, direction: Array) -> Iterator[Way]:
        """Limits in every cell, far along a direction."""
        some = False
        for number, cell in enumerate(self.balls.cells):
            if cell.direction is None:
                continue
            ends = [cell.direction]
            if isinstance(cell, BallCell):
                far = cell.toward(direction)
                ends += [] if far is None else [far, cell.direction + far]
            for end in ends:
                way = self.way(number, end)
                if way is not None:
                    some = True
                    yield way
        if not some:
            raise UnsupportedError("No limit of gradients was found around the norms of zero.")
