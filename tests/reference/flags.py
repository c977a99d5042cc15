"""A second exact method for piecewise affine programs, without linear programming.

Collect every hyperplane through the point that any selection of pieces could switch on. Each cell
of their arrangement contains a flag of rays (r1, r2, ..): r1 spans an intersection of hyperplanes,
r2 one among the hyperplanes that contain r1, and so on. The curve t r1 + t^2 r2 + .. stays inside
that cell, so following all flags finds all cells. Slow beyond two variables.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations

from reference.affine import Row, primitive, selections
from reference.curves import curve_gradient
from reference.expr import Expr, Point, Rational
from reference.hull import exact


def bouligand_by_flags(expr: Expr, point: Sequence[Rational]) -> frozenset[Point]:
    """The exact Bouligand subdifferential of a piecewise affine program at `point`."""
    size = len(point)
    # The coordinate hyperplanes only refine the arrangement, and make its cells pointed.
    normals = {tuple(int(i == k) for i in range(size)) for k in range(size)}
    for selection in selections(expr, point):
        normals.update(max(row, _opposite(row)) for row in selection.rows if any(row))
    found: set[Point] = set()
    for flag in _flags(sorted(normals), (), size):
        curve = tuple(zip(*map(exact, flag), strict=True))
        gradient = curve_gradient(expr, point, curve)
        if gradient is None:
            raise AssertionError(f"{flag} is not inside a cell of the arrangement.")
        found.add(gradient)
    return frozenset(found)


def _flags(normals: list[Row], flag: tuple[Row, ...], size: int) -> Iterator[tuple[Row, ...]]:
    if len(flag) == size:
        yield flag
        return
    rays: set[Row] = set()
    for chosen in combinations(normals, size - 1 - len(flag)):
        ray = primitive(_normal_to([*flag, *chosen], size))
        if any(ray):
            rays.update((ray, _opposite(ray)))
    for ray in sorted(rays):
        inside = [row for row in normals if sum(a * b for a, b in zip(row, ray, strict=True)) == 0]
        yield from _flags(inside, (*flag, ray), size)


def _normal_to(rows: Sequence[Row], size: int) -> list[int]:
    """The generalised cross product of size - 1 rows: zero iff they are dependent."""
    minors = [[row[:k] + row[k + 1 :] for row in rows] for k in range(size)]
    return [(-1) ** k * _determinant(minor) for k, minor in enumerate(minors)]


def _determinant(matrix: list[Row]) -> int:
    if not matrix:
        return 1
    head, *rest = matrix
    minors = [[row[:k] + row[k + 1 :] for row in rest] for k in range(len(head))]
    return sum(
        (-1) ** k * a * _determinant(minor)
        for k, (a, minor) in enumerate(zip(head, minors, strict=True))
        if a
    )


def _opposite(row: Row) -> Row:
    return tuple(-a for a in row)
