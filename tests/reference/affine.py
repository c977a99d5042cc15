"""Exact Bouligand subdifferentials of piecewise affine programs.

Around the point the program is its value plus a function of the direction that is linear on
finitely many cones. Walk the evaluation order; at every touched kink split the cone of directions
by the switching functions' gradients, and drop the parts without an interior. What is left at the
end are all full-dimensional cells, with an interior direction and the gradient of each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import gcd, lcm

from reference.expr import (
    Expr,
    Extremum,
    Point,
    Pointwise,
    Rational,
    Var,
    evaluation_order,
    smooth,
)
from reference.hull import dot, exact, strict_direction
from reference.poly import Poly

Row = tuple[int, ...]
Option = tuple[Poly, list[Poly]]
Narrow = Callable[[list[Row], Point, list[Row]], Point | None]


class NotAffineError(ValueError):
    """The program is not piecewise affine around the point."""


@dataclass(frozen=True)
class Cell:
    """A full-dimensional cone of directions on which the program is linear near the point.

    Attributes:
        direction: An interior direction.
        gradient: The gradient on the cell.
        rows: The normals that are positive on the cell's interior.
    """

    direction: Point
    gradient: Point
    rows: tuple[Row, ...]


def cells(expr: Expr, point: Sequence[Rational]) -> list[Cell]:
    """All full-dimensional cells of a piecewise affine program around `point`."""

    def narrow(rows: list[Row], direction: Point, new: list[Row]) -> Point | None:
        if all(dot(row, direction) > 0 for row in new):
            return direction
        if any(not any(row) or tuple(-a for a in row) in rows for row in new):
            return None
        return strict_direction(rows + new, len(point))

    return list(_walk(expr, point, narrow))


def bouligand(expr: Expr, point: Sequence[Rational]) -> frozenset[Point]:
    """The exact Bouligand subdifferential of a piecewise affine program at `point`.

    Raises:
        NotAffineError: A product or square is not affine around the point.
    """
    return frozenset(cell.gradient for cell in cells(expr, point))


def selections(expr: Expr, point: Sequence[Rational]) -> list[Cell]:
    """All selections of pieces at the touched kinks, possible near the point or not.

    For piecewise polynomial programs too. The gradients are a superset of the Bouligand
    subdifferential; the rows are every switching gradient that any selection could meet.
    """
    return list(_walk(expr, point, lambda _rows, direction, _new: direction, affine=False))


def options(node: Pointwise | Extremum, values: dict[Expr, Poly]) -> list[Option]:
    """The pieces that meet at a kink, each with the polynomials that must be positive for it."""
    if isinstance(node, Pointwise):
        arg = values[node.arg]
        piece = sum(arg.value > b for b in node.breaks)
        lower = arg.piece(*node.pieces[piece])
        if arg.value not in node.breaks or arg.degree == 0:
            return [(lower, [])]
        away = arg.piece(Fraction(1), -arg.value)
        return [(lower, [-away]), (arg.piece(*node.pieces[piece + 1]), [away])]
    items = [values[item] for item in node.items]
    best = max(item.value * node.sign for item in items)
    tied = list(dict.fromkeys(item for item in items if item.value * node.sign == best))
    sign = Fraction(node.sign)
    return [
        (winner, [(winner - item).piece(sign, Fraction(0)) for item in tied if item != winner])
        for winner in tied
    ]


def _walk(
    expr: Expr, point: Sequence[Rational], narrow: Narrow, *, affine: bool = True
) -> Iterator[Cell]:
    size = len(point)
    order = evaluation_order(expr)
    values: dict[Expr, Poly] = {}

    def settle(node: Expr) -> list[Option]:
        if isinstance(node, (Pointwise, Extremum)):
            return options(node, values)
        if isinstance(node, Var):
            unit = tuple(Fraction(k == node.index) for k in range(size))
            return [(Poly.affine(Fraction(point[node.index]), unit), [])]
        value = smooth(node, values, lambda number: Poly.constant(size, number))
        if affine and value.degree > 1:
            raise NotAffineError(f"{node!r} is not affine: use `curves` instead.")
        return [(value, [])]

    def walk(start: int, rows: list[Row], direction: Point) -> Iterator[Cell]:
        for k in range(start, len(order)):
            choices = settle(order[k])
            if len(choices) == 1:
                values[order[k]] = choices[0][0]
                continue
            for value, positive in choices:
                new = [primitive(poly.gradient) for poly in positive]
                inside = narrow(rows, direction, new)
                if inside is not None:
                    values[order[k]] = value
                    yield from walk(k + 1, rows + new, inside)
            return
        yield Cell(direction, values[expr].gradient, tuple(rows))

    yield from walk(0, [], exact([1] * size))


def primitive(vector: Sequence[Rational]) -> Row:
    """The shortest integer vector in the same direction."""
    scale = lcm(*(Fraction(entry).denominator for entry in vector))
    whole = [int(entry * scale) for entry in vector]
    divisor = gcd(*whole) or 1
    return tuple(entry // divisor for entry in whole)
