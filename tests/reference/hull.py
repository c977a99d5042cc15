"""Exact linear feasibility: convex hull membership and strict systems `A d > 0`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction
from math import lcm

from reference.expr import Point, Rational


def farkas(columns: Sequence[Point], target: Point) -> tuple[Point | None, Point | None]:
    """Solve `sum_j y_j columns[j] = target`, `y >= 0`, or prove that it has no solution.

    Phase one of the simplex method with Bland's rule, on integers (fraction-free pivots).

    Returns:
        `(y, None)`, or `(None, z)` with `z·columns[j] >= 0` for all j and `z·target < 0`.
        Either is checked against the input before it is returned.
    """
    m, n = len(target), len(columns)
    rows: list[list[int]] = []
    scales: list[int] = []
    for i in range(m):
        entries = [column[i] for column in columns] + [target[i]]
        scale = lcm(*(Fraction(entry).denominator for entry in entries))
        scale = -scale if target[i] < 0 else scale
        scales.append(scale)
        whole = [int(entry * scale) for entry in entries]
        rows.append(whole[:-1] + [int(i == k) for k in range(m)] + whole[-1:])
    # Cost row: reduced costs of "minimise the sum of the artificial variables n .. n+m-1".
    cost = [-sum(row[j] for row in rows) for j in range(n)]
    rows.append(cost + [0] * m + [-sum(row[-1] for row in rows)])
    basis = [n + i for i in range(m)]
    denominator = 1
    while (enter := next((j for j in range(n) if rows[m][j] < 0), None)) is not None:
        candidates = [i for i in range(m) if rows[i][enter] > 0]
        leave = min(candidates, key=lambda i: (Fraction(rows[i][-1], rows[i][enter]), basis[i]))
        denominator = _pivot(rows, leave, enter, denominator)
        basis[leave] = enter
    if rows[m][-1] == 0:
        y = [Fraction(0)] * n
        for i, j in enumerate(basis):
            if j < n:
                y[j] = Fraction(rows[i][-1], denominator)
        _check_solution(columns, target, y)
        return tuple(y), None
    # The dual price of row i is 1 minus the reduced cost of its artificial variable.
    z = tuple(-scales[i] * (1 - Fraction(rows[m][n + i], denominator)) for i in range(m))
    if any(dot(z, column) < 0 for column in columns) or dot(z, target) >= 0:
        raise AssertionError("farkas: the certificate does not hold.")
    return None, z


def _pivot(rows: list[list[int]], leave: int, enter: int, denominator: int) -> int:
    """One fraction-free pivot; all entries are over the returned common denominator."""
    pivot_row = rows[leave]
    pivot = pivot_row[enter]
    for i, row in enumerate(rows):
        if i != leave:
            factor = row[enter]
            rows[i] = [
                (pivot * a - factor * b) // denominator for a, b in zip(row, pivot_row, strict=True)
            ]
    return pivot


def _check_solution(columns: Sequence[Point], target: Point, y: Sequence[Fraction]) -> None:
    sums = [
        sum(w * column[i] for w, column in zip(y, columns, strict=True)) for i in range(len(target))
    ]
    if min(y, default=0) < 0 or sums != list(target):
        raise AssertionError("farkas: the solution does not hold.")


def dot(left: Sequence[Rational], right: Sequence[Rational]) -> Fraction:
    """The inner product."""
    return sum((a * b for a, b in zip(left, right, strict=True)), Fraction(0))


def exact(vector: Iterable[float | Rational]) -> Point:
    """A vector of floats, integers or fractions as fractions, without rounding."""
    return tuple(Fraction(entry) for entry in vector)


def contains(vertices: Iterable[Sequence[Rational]], g: Sequence[float | Rational]) -> bool:
    """Whether `g` is in the convex hull of `vertices`, exactly."""
    return separation(vertices, g) is None


def separation(
    vertices: Iterable[Sequence[Rational]], g: Sequence[float | Rational]
) -> Point | None:
    """`None` if `g` is in the hull, else `z` with `z·v > z·g` for every vertex `v`."""
    columns = [(*exact(vertex), Fraction(1)) for vertex in vertices]
    if not columns:
        raise ValueError("The hull of no points is empty: a gradient set never is.")
    _, z = farkas(columns, (*exact(g), Fraction(1)))
    return None if z is None else z[:-1]


def strict_direction(rows: Sequence[Sequence[Rational]], size: int) -> Point | None:
    """Some `d` in R^size with `row·d > 0` for every row, or `None` if there is none (Gordan)."""
    columns = [(*exact(row), Fraction(1)) for row in rows]
    # A solution y >= 0 has sum 1 and sum y_j row_j = 0. Else z = (d, s): row·d >= -s > 0.
    _, z = farkas(columns, (Fraction(0),) * size + (Fraction(1),))
    return None if z is None else z[:-1]
