"""Whether a mean of points is near a target, entry by entry, in exact arithmetic throughout.

Solvers in floating point cannot tell the sides of a hull that is a billion times longer than it is
thick. This is a simplex method on integers whose columns are asked for one by one: slower by far,
and right to the last digit.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import lcm
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from clarke.deadline import Deadline

Name = TypeVar("Name")
Point = tuple[Fraction, ...]


@dataclass(frozen=True)
class Mean(Generic[Name]):
    """A convex combination within the bounds, or a direction in which there is none.

    Attributes:
        names: The points used.
        weights: Their weights.
        direction: If there is none, (n,): the target's product with it is greater than every
            point's, by more than the bounds allow.
    """

    names: tuple[Name, ...]
    weights: Point
    direction: Point | None


def exact_mean(
    extreme: Callable[[Point], tuple[Name, Point]],
    target: Sequence[float],
    allowed: Sequence[float],
    deadline: Deadline,
    pivots: int,
) -> Mean[Name] | None:
    """A mean of points that differs from a target by no more than allowed in every entry.

    Args:
        extreme: The point with the largest inner product with a direction, exactly, and its name.
        target: (n,).
        allowed: (n,), at least 0.
        deadline: When to give up.
        pivots: After how many steps to give up.

    Returns:
        The mean, or why there is none; None where that was not found out.
    """
    tableau = _Tableau([Fraction(float(t)) for t in target], [Fraction(float(a)) for a in allowed])
    names: list[Name] = []
    for _ in range(pivots):
        if deadline.passed:
            return None
        if tableau.is_reached:
            used = [(n, w) for n, w in zip(names, tableau.weights(), strict=True) if w > 0]
            return Mean(tuple(n for n, _ in used), tuple(w for _, w in used), None)
        if tableau.improve():
            continue
        direction, level = tableau.prices()
        name, point = extreme(direction)
        if sum((d * p for d, p in zip(direction, point, strict=True)), level) <= 0:
            return Mean((), (), direction)
        names.append(name)
        tableau.add(point)
    return None


class _Tableau:
    """Phase one of the simplex method: ``sum_j w_j p_j + a (v - 1) = t``, ``0 <= v <= 2``.

    Rows are integers over one denominator, columns and the right side each times a number that makes
    them whole. The first columns are those of a unit matrix, which hold the inverse of the basis;
    then come those of `v`, then points.
    """

    def __init__(self, target: Sequence[Fraction], allowed: Sequence[Fraction]) -> None:
        n = len(target)
        self._n, self._size = n, 2 * n + 1
        ends = [t + a for t, a in zip(target, allowed, strict=True)]
        self._unit = lcm(*(e.denominator for e in ends))
        right = [int(e * self._unit) for e in (*ends, 1, *([2] * n))]
        self._signs = [-1 if value < 0 else 1 for value in right]
        # Reduced costs stand in the last row, what is missing at its end.
        self._rows = [[int(i == k) for k in range(self._size)] for i in range(self._size)]
        self._rows.append([0] * self._size)
        self._right = [abs(value) for value in right]
        self._right.append(-sum(self._right[: n + 1]))
        self._basis = list(range(self._size))
        self._denominator = 1
        self._factors = [1] * self._size
        for i in range(n):
            if allowed[i]:
                self._append(
                    [allowed[i] if k == i else int(k == n + 1 + i) for k in range(2 * n + 1)]
                )
        self._first = len(self._factors)

    @property
    def is_reached(self) -> bool:
        """Whether the points have such a mean."""
        return self._right[-1] == 0

    def weights(self) -> Point:
        """The weights of the points."""
        found = [Fraction(0)] * len(self._factors)
        for row, column in enumerate(self._basis):
            value = self._right[row] * self._factors[column]
            found[column] = Fraction(value, self._denominator * self._unit)
        return tuple(found[self._first :])

    def prices(self) -> tuple[Point, Fraction]:
        """A direction and a number: a point with which the two add up to more than 0 is missing."""
        whole = self._whole_prices()
        found = [
            Fraction(v * s, self._denominator) for v, s in zip(whole, self._signs, strict=True)
        ]
        return tuple(found[: self._n]), found[self._n]

    def _whole_prices(self) -> list[int]:
        """Of the rows, over the denominator: what vanishes costs 1 in the first n + 1."""
        return [
            int(k <= self._n) * self._denominator - self._rows[-1][k] for k in range(self._size)
        ]

    def add(self, point: Point) -> None:
        """Take a point in."""
        self._append([*point, 1, *([0] * self._n)])
        self._pivot(len(self._factors) - 1)

    def improve(self) -> bool:
        """One step with the columns there are, the first that helps (Bland); False if none does."""
        costs = self._rows[-1]
        for column in range(self._n + 1, len(costs)):
            if costs[column] < 0:
                self._pivot(column)
                return True
        return False

    def _append(self, column: Sequence[Fraction | int]) -> None:
        factor = lcm(*(Fraction(v).denominator for v in column))
        self._factors.append(factor)
        whole = [int(v * factor) * s for v, s in zip(column, self._signs, strict=True)]
        used = [(k, v) for k, v in enumerate(whole) if v]
        prices = self._whole_prices()
        for row in self._rows[:-1]:
            row.append(sum(row[k] * v for k, v in used))
        self._rows[-1].append(-sum(prices[k] * v for k, v in used))

    def _pivot(self, column: int) -> None:
        rows, right = self._rows, self._right
        candidates = [i for i in range(self._size) if rows[i][column] > 0]
        leave = min(candidates, key=lambda i: (Fraction(right[i], rows[i][column]), self._basis[i]))
        pivot = rows[leave][column]
        for i, row in enumerate(rows):
            if i != leave:
                factor = row[column]
                right[i] = (pivot * right[i] - factor * right[leave]) // self._denominator
                rows[i] = [
                    (pivot * v - factor * p) // self._denominator
                    for v, p in zip(row, rows[leave], strict=True)
                ]
        self._basis[leave], self._denominator = column, pivot
