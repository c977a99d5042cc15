"""Gradients near a point, followed exactly along curves; piecewise polynomial programs too.

Along `p + c(t)`, `c` polynomial with `c(0) = 0`, every switching function is a polynomial in t and
has the sign of its lowest coefficient for all small t > 0. If none vanishes identically, one smooth
piece is active along the curve, and its gradient at p is a limit of gradients: an element of the
Bouligand subdifferential, without any approximation. Sampling finds elements, never all for sure.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import product
from random import Random

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
from reference.poly import Poly

Curve = tuple[Point, ...]  # For each coordinate the coefficients of t, t^2, ...


def follow(expr: Expr, point: Sequence[Rational], curve: Curve) -> Poly | None:
    """The polynomial piece of `expr`, in displacements from `point`, active along the curve.

    Returns:
        `None` if the curve runs along a kink whose pieces are not identical there.
    """
    size = len(point)
    local: dict[Expr, Poly] = {}
    along: dict[Expr, Poly] = {}
    for node in evaluation_order(expr):
        if isinstance(node, Var):
            start = Fraction(point[node.index])
            unit = tuple(Fraction(k == node.index) for k in range(size))
            local[node] = Poly.affine(start, unit)
            powers = enumerate((start, *curve[node.index]))
            along[node] = Poly(1, {(k,): value for k, value in powers if value})
        elif isinstance(node, Pointwise):
            slope_and_intercept = _piece(node, local[node.arg], along[node.arg])
            if slope_and_intercept is None:
                return None
            local[node] = local[node.arg].piece(*slope_and_intercept)
            along[node] = along[node.arg].piece(*slope_and_intercept)
        elif isinstance(node, Extremum):
            winner = _winner(node, local, along)
            if winner is None:
                return None
            local[node], along[node] = local[winner], along[winner]
        else:
            local[node] = smooth(node, local, lambda number: Poly.constant(size, number))
            along[node] = smooth(node, along, lambda number: Poly.constant(1, number))
    return local[expr]


def _piece(node: Pointwise, local: Poly, along: Poly) -> tuple[Fraction, Fraction] | None:
    index = 0
    for k, number in enumerate(node.breaks):
        sign = along.piece(Fraction(1), -number).leading_sign()
        if sign == 0 and local.degree > 0:
            return None
        if sign > 0:
            index = k + 1
    return node.pieces[index]


def _winner(node: Extremum, local: dict[Expr, Poly], along: dict[Expr, Poly]) -> Expr | None:
    winner = node.items[0]
    for item in node.items[1:]:
        if (along[item] - along[winner]).leading_sign() == node.sign:
            winner = item
    unsettled = any(
        along[item] == along[winner] and local[item] != local[winner] for item in node.items
    )
    return None if unsettled else winner


def curve_gradient(expr: Expr, point: Sequence[Rational], curve: Curve) -> Point | None:
    """The limit of the gradients along a curve: an element of the Bouligand subdifferential."""
    piece = follow(expr, point, curve)
    return None if piece is None else piece.gradient


def line_gradient(
    expr: Expr, point: Sequence[Rational], direction: Sequence[Rational]
) -> Point | None:
    """The limit of the gradients along `point + t direction`; `None` if that meets a kink."""
    return curve_gradient(expr, point, tuple((Fraction(entry),) for entry in direction))


def certainly_differentiable_gradient(expr: Expr, point: Sequence[Rational]) -> Point | None:
    """The gradient at `point`, or `None` if a kink with distinct pieces is touched there."""
    return curve_gradient(expr, point, ((),) * len(point))


def sample_curves(size: int, count: int = 200, seed: int = 0) -> Iterator[Curve]:
    """Curves of many shapes: each coordinate starts with t, t^2 or t^3, generic coefficients."""
    random = Random(seed)  # noqa: S311
    shapes = list(product(range(3), repeat=size))
    for k in range(count):
        # Every other curve is a generic line; the rest go through all shapes in turn.
        shape = shapes[(k // 2) % len(shapes)] if k % 2 else (0,) * size
        yield tuple(
            (Fraction(0),) * lead + tuple(_generic(random) for _ in range(3 - lead))
            for lead in shape
        )


def _generic(random: Random) -> Fraction:
    """Small or close to zero, of either sign, and next to never in a special position."""
    size = Fraction(random.randint(1, 2**20), random.choice((2**20, 2**17, 2**24)))
    return size * random.choice((-1, 1))


def bouligand_subset(
    expr: Expr, point: Sequence[Rational], count: int = 200, seed: int = 0
) -> dict[Point, Curve]:
    """Exact elements of the Bouligand subdifferential, each with a curve that leads to it."""
    found: dict[Point, Curve] = {}
    for curve in sample_curves(len(point), count, seed):
        gradient = curve_gradient(expr, point, curve)
        if gradient is not None:
            found.setdefault(gradient, curve)
    return found


def nearby_gradients(
    expr: Expr, point: Sequence[Rational], count: int = 40, seed: int = 0
) -> list[tuple[Point, Point]]:
    """Exact gradients at points near `point`: pairs of the displacement and the gradient there.

    Points `p + c(t)` for t = 2^-20, 2^-30, 2^-40 on sampled lines and curves. A cluster's limit as
    the displacement shrinks is in the Bouligand subdifferential.
    """
    found: list[tuple[Point, Point]] = []
    for curve in sample_curves(len(point), count, seed):
        for t in (Fraction(1, 2**20), Fraction(1, 2**30), Fraction(1, 2**40)):
            offset = tuple(
                sum((c * t ** (k + 1) for k, c in enumerate(row)), Fraction(0)) for row in curve
            )
            near = [p + c for p, c in zip(point, offset, strict=True)]
            gradient = certainly_differentiable_gradient(expr, near)
            if gradient is not None:
                found.append((offset, gradient))
    return found
