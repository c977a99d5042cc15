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
    size = len(target)
    ends = [Fraction(float(t)) + Fraction(float(a)) for t, a in zip(target, allowed, strict=True)]
    # sum_j w_j p_j + a (v - 1) = t, 0 <= v <= 2
    simplex = _Simplex([*ends, Fraction(1), *([Fraction(2)] * size)], size + 1)
    for i in range(size):
        if allowed[i]:
            own = Fraction(float(allowed[i]))
            column = [Fraction(int(k == size + 1 + i)) for k in range(2 * size + 1)]
            column[i] = own
            simplex.append(column)
    first = simplex.count
    names: list[Name] = []
    for _ in range(pivots):
        if deadline.passed:
            return None
        if simplex.is_solved:
            weights = simplex.solution()[first:]
            used = [(n, w) for n, w in zip(names, weights, strict=True) if w > 0]
            return Mean(tuple(n for n, _ in used), tuple(w for _, w in used), None)
        if simplex.improve():
            continue
        *direction, level = simplex.prices()[: size + 1]
        name, point = extreme(tuple(direction))
        if sum((d * p for d, p in zip(direction, point, strict=True)), level) <= 0:
            return Mean((), (), tuple(direction))
        names.append(name)
        simplex.append([*point, 1, *([0] * size)])
        simplex.pivot(simplex.count - 1)
    return None


class _Simplex:
    """Phase one of the simplex method for ``A z = b, z >= 0``, columns coming one by one.

    Rows are integers over one denominator, columns and the right side each times a number that
    makes them whole. The first columns are those of a unit matrix, which hold the inverse of the
    basis; those of the first rows have to vanish, others are unknowns like any.

    Args:
        right: b.
        vanish: Of how many rows the unit columns are no unknowns. The others' b is not negative.
    """

    def __init__(self, right: Sequence[Fraction], vanish: int) -> None:
        self._size, self._vanish = len(right), vanish
        self._unit = lcm(*(b.denominator for b in right))
        whole = [int(b * self._unit) for b in right]
        self._signs = [-1 if value < 0 else 1 for value in whole]
        # Reduced costs stand in the last row, what is missing at its end.
        self._rows = [[int(i == k) for k in range(self._size)] for i in range(self._size)]
        self._rows.append([0] * self._size)
        self._right = [abs(value) for value in whole]
        self._right.append(-sum(self._right[:vanish]))
        self._basis = list(range(self._size))
        self._denominator = 1
        self._factors = [1] * self._size

    @property
    def is_solved(self) -> bool:
        """Whether the columns so far have a solution."""
        return self._right[-1] == 0

    @property
    def count(self) -> int:
        """How many columns there are."""
        return len(self._factors)

    def solution(self) -> list[Fraction]:
        """z, by column, those of the unit matrix first."""
        found = [Fraction(0)] * self.count
        for row, column in enumerate(self._basis):
            value = self._right[row] * self._factors[column]
            found[column] = Fraction(value, self._denominator * self._unit)
        return found

    def prices(self) -> list[Fraction]:
        """By row: a column that costs more than nothing at these prices is missing."""
        whole = zip(self._whole_prices(), self._signs, strict=True)
        return [Fraction(v * s, self._denominator) for v, s in whole]

    def _whole_prices(self) -> list[int]:
        costs = self._rows[-1]
        return [int(k < self._vanish) * self._denominator - costs[k] for k in range(self._size)]

    def append(self, column: Sequence[Fraction | int]) -> None:
        """One more column."""
        entries = [Fraction(v) for v in column]
        factor = lcm(*(v.denominator for v in entries))
        self._factors.append(factor)
        whole = [int(v * factor) * s for v, s in zip(entries, self._signs, strict=True)]
        used = [(k, v) for k, v in enumerate(whole) if v]
        prices = self._whole_prices()
        for row in self._rows[:-1]:
            row.append(sum(row[k] * v for k, v in used))
        self._rows[-1].append(-sum(prices[k] * v for k, v in used))

    def improve(self) -> bool:
        """One step with the columns there are, the first that helps (Bland); False if none does."""
        costs = self._rows[-1]
        for column in range(self._vanish, len(costs)):
            if costs[column] < 0:
                self.pivot(column)
                return True
        return False

    def pivot(self, column: int) -> None:
        """Take a column into the basis."""
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


def meets_box(rows: Sequence[Sequence[Fraction]], half: Fraction, deadline: Deadline) -> bool:
    """Whether a vector of entries up to `half` in size satisfies ``a x + b >= 0`` for all rows.

    Args:
        rows: (m, n + 1), a and b.
        half: Not negative.
        deadline: Asked at every step.
    """
    size = len(rows[0]) - 1
    count = len(rows)
    ends = [half * sum(row[:-1]) - row[-1] for row in rows]
    simplex = _Simplex([*ends, *([2 * half] * size)], count)
    for i in range(count):
        simplex.append([-int(k == i) for k in range(count + size)])
    for j in range(size):
        simplex.append([row[j] for row in rows] + [int(k == j) for k in range(size)])
    while not simplex.is_solved:
        deadline.ask("telling whether a cell meets a ball")
        if not simplex.improve():
            return False
    return True
