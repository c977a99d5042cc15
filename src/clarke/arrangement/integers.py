"""Hyperplanes through the origin as primitive integer rows, and what is left of them on one."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import gcd
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    Array = NDArray[np.float64]

Row = tuple[int, ...]


def integer_row(values: Iterable[float]) -> Row:
    """A row of floats as a primitive integer vector: the same halfspace, exactly."""
    ratios = [float(v).as_integer_ratio() for v in values]
    scale = max((d for _, d in ratios), default=1)  # powers of two
    return primitive([n * (scale // d) for n, d in ratios])


def primitive(values: Sequence[int]) -> Row:
    """The shortest integer vector in a direction."""
    common = gcd(*values)
    return tuple(values) if common in (0, 1) else tuple(v // common for v in values)


def as_floats(rows: Sequence[Row]) -> Array:
    """Rows as floats of moderate size, every entry correctly rounded."""
    found = np.empty((len(rows), len(rows[0]) if rows else 0))
    for own, row in zip(found, rows, strict=True):
        largest = max(map(abs, row))
        own[:] = row if largest < 1 << 52 else [v / largest for v in row]
    return found


@dataclass(frozen=True, eq=False)
class Merged:
    """Hyperplanes without repetition.

    Attributes:
        rows: The distinct hyperplanes, in order of appearance; each is oriented as its first row.
        owner: For every row that was given, which of them it is.
        turned: For every row, whether it points to the other side.
    """

    rows: tuple[Row, ...]
    owner: NDArray[np.intp]
    turned: NDArray[np.bool_]


def merged(rows: Iterable[Row]) -> Merged:
    """Tell which rows are one hyperplane. They are primitive, and none is zero."""
    known: dict[Row, int] = {}
    owner: list[int] = []
    turned: list[bool] = []
    distinct: list[Row] = []
    for row in rows:
        number = known.get(row)
        if number is None:
            number = len(distinct)
            known[row] = number
            known[tuple([-v for v in row])] = ~number
            distinct.append(row)
        owner.append(number if number >= 0 else ~number)
        turned.append(number < 0)
    return Merged(tuple(distinct), np.array(owner, dtype=np.intp), np.array(turned, dtype=np.bool_))


def on_hyperplane(rows: Sequence[Row], wall: Row, column: int) -> list[Row]:
    """Rows as functions on the hyperplane ``wall x = 0``, in its coordinates but one.

    Args:
        rows: None of them a multiple of the wall.
        wall: The hyperplane.
        column: A coordinate in which it is not zero: the one that is left out.
    """
    pivot = wall[column]
    size, sign = abs(pivot), 1 if pivot > 0 else -1
    places = [j for j in range(len(wall)) if j != column]
    rest = [wall[j] for j in places]
    found = []
    for row in rows:
        factor = sign * row[column]
        own = [row[j] for j in places]
        if factor:
            own = [size * a - factor * b for a, b in zip(own, rest, strict=True)]
            common = gcd(*own)
            if common > 1:
                own = [v // common for v in own]
        elif gcd(*own) > 1:
            own = list(primitive(own))
        found.append(tuple(own))
    return found


def pivot_of(row: Row) -> int:
    """The coordinate of a row to eliminate: a small one keeps the others small."""
    return min((j for j, v in enumerate(row) if v), key=lambda j: abs(row[j]))


def basis(rows: Sequence[Row]) -> tuple[list[int], list[int]]:
    """The first rows that are linearly independent, and as many columns that tell them apart.

    On these columns alone the rows have every sign pattern that they have on all: the columns span
    the space of all columns.
    """
    chosen: list[int] = []
    columns: list[int] = []
    reduced: list[tuple[list[int], int]] = []
    for i, row in enumerate(rows):
        rest = list(row)
        for other, column in reduced:
            factor = rest[column]
            if factor:
                lead = other[column]
                rest = [lead * a - factor * b for a, b in zip(rest, other, strict=True)]
                common = gcd(*rest)
                if common > 1:
                    rest = [v // common for v in rest]
        if any(rest):
            column = pivot_of(tuple(rest))
            reduced.append((rest, column))
            chosen.append(i)
            columns.append(column)
            if len(chosen) == len(row):
                break
    return chosen, sorted(columns)


def exact_sign(row: Row, point: Array) -> int:
    """The sign of ``row . point`` for a point of floats, in rational arithmetic."""
    total = sum((v * Fraction(float(x)) for v, x in zip(row, point, strict=True) if v), Fraction(0))
    return (total > 0) - (total < 0)
