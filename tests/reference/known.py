"""Cases whose Bouligand subdifferential is known on paper."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction

from reference.build import (
    absolute,
    clamp,
    hardsigmoid,
    largest,
    maximum,
    relu,
    smallest,
    square,
    variables,
)
from reference.expr import Expr, Point, Rational
from reference.hull import contains, exact
from reference.vias import ExtremumVia, ReluVia

HALF = Fraction(1, 2)


@dataclass(frozen=True)
class Known:
    """A program, a point, its exact set, and autograd's answer with torch 2.13.

    Attributes:
        ad: `None` where the answer depends on the version of torch (clamp at its bounds).
        affine: Whether the program is piecewise affine, so that `bouligand` can decide it.
    """

    name: str
    expr: Expr
    point: Point
    bouligand: frozenset[Point]
    ad: Point | None
    affine: bool = True

    @property
    def correct(self) -> bool | None:
        """Whether autograd's answer is in the Clarke subdifferential."""
        return None if self.ad is None else contains(self.bouligand, self.ad)


def _case(
    name: str,
    expr: Expr,
    elements: Iterable[Sequence[Rational]],
    ad: Sequence[Rational] | None,
    *,
    at: Sequence[Rational] | None = None,
    affine: bool = True,
) -> Known:
    bouligand = frozenset(exact(element) for element in elements)
    point = exact(at if at is not None else [0] * len(next(iter(bouligand))))
    return Known(name, expr, point, bouligand, None if ad is None else exact(ad), affine)


def _paper() -> list[Known]:
    """The paper's examples; g is a ReLU with g'(0) = 0 and h one with h'(0) = 1."""
    w, b = variables(2)
    u = w

    def h(arg: Expr) -> Expr:
        return relu(arg, ReluVia.MASK_GE)

    def first(*items: Expr) -> Expr:
        return largest(items, ExtremumVia.FIRST)

    return [
        _case("lemma 2: relu(w) - relu(-w)", relu(w) - relu(-w), [[1]], [0]),
        _case(
            "lemma 3: hardsigmoid(3+w) + hardsigmoid(-3+w)",
            hardsigmoid(3 + w) + hardsigmoid(-3 + w),
            [[Fraction(1, 6)]],
            [0],
        ),
        _case(
            "lemma 7: max(u+b, b) - max(-u+b, b), first index",
            first(u + b, b) - first(-u + b, b),
            [[1, 0]],
            [2, 0],
        ),
        _case("appendix H f2: g(w) - h(w)", relu(w) - h(w), [[0]], [-1]),
        _case("appendix H f3: h(-h(w))", h(-h(w)), [[0]], [-1]),
        _case("relu(w) - relu(2w)", relu(w) - relu(2 * w), [[0], [-1]], [0]),
        _case("g(w) + h(w) - h(w), P empty", relu(w) + h(w) - h(w), [[0], [1]], [0]),
    ]


def _one_variable() -> list[Known]:
    (x,) = variables(1)
    return [
        _case("|x| - |x|", absolute(x) - absolute(x), [[0]], [0]),
        _case("|x|", absolute(x), [[-1], [1]], [0]),
        _case("clamp(x, min=0) + clamp(x, max=0)", clamp(x, lo=0) + clamp(x, hi=0), [[1]], None),
        _case("relu(x) - relu(-x), where it is smooth", relu(x) - relu(-x), [[1]], [1], at=[2]),
        _case("relu(relu(x)) - relu(-x)", relu(relu(x)) - relu(-x), [[1]], [0]),
        _case("-relu(-relu(x))", -relu(-relu(x)), [[0]], [0]),
        _case("relu(-relu(x)), h outside", relu(-relu(x), ReluVia.MASK_GE), [[0]], [0]),
        _case("x - relu(x) + relu(-x)", x - relu(x) + relu(-x), [[0]], [1]),
        _case("maximum(x, -x) - |x|", maximum(x, -x) - absolute(x), [[0]], [0]),
        _case("relu(x) + relu(-x)", relu(x) + relu(-x), [[1], [-1]], [0]),
        _case("maximum(x, x)", maximum(x, x), [[1]], [1]),
        _case("square(relu(x))", square(relu(x)), [[0]], [0], affine=False),
        _case("|x| * x", absolute(x) * x, [[0]], [0], affine=False),
    ]


def _several_variables() -> list[Known]:
    x, y = variables(2)
    four = variables(4)
    u = x - y
    fan = [2 * x - 5 * y, 3 * x + 2 * y, 2 * x + 5 * y, 3 * x - 2 * y]
    return [
        _case(
            "|x| + max(x, y)",
            absolute(x) + maximum(x, y),
            [[2, 0], [0, 0], [1, 1], [-1, 1]],
            [HALF, HALF],
        ),
        _case(
            "x + y - |x| - |y|",
            x + y - absolute(x) - absolute(y),
            [[0, 0], [0, 2], [2, 0], [2, 2]],
            [1, 1],
        ),
        _case(
            "max(0, 2x-5y, 3x+2y, 2x+5y, 3x-2y, -100)",
            largest([0, *fan, -100]),
            [[0, 0], [2, -5], [3, 2], [2, 5], [3, -2]],
            [2, 0],
        ),
        _case(
            "max(-100, 3x+2|y|, 2x+5|y|)",
            largest([-100, 3 * x + 2 * absolute(y), 2 * x + 5 * absolute(y)]),
            [[3, 2], [3, -2], [2, 5], [2, -5]],
            [Fraction(5, 2), 0],
        ),
        _case("(1 + |x-y|)(x-y)", (1 + absolute(u)) * u, [[1, -1]], [1, -1], affine=False),
        _case(
            "max(0, y^2 - max(0, x)): a cusp",
            maximum(0, square(y) - maximum(0, x)),
            [[0, 0], [-1, 0]],
            [-Fraction(1, 4), 0],
            affine=False,
        ),
        _case(
            "min(x1, .., x4)",
            smallest(four),
            [[int(i == k) for i in range(4)] for k in range(4)],
            [Fraction(1, 4)] * 4,
        ),
        _case(
            "max(x, y) + min(x, y), first index and halves",
            largest([x, y], ExtremumVia.FIRST) + smallest([x, y], ExtremumVia.PAIRWISE),
            [[1, 1]],
            [Fraction(3, 2), HALF],
            at=[3, 3],
        ),
        _case(
            "relu(x - y) + y - max(x, y)",
            relu(u) + y - largest([x, y], ExtremumVia.FIRST),
            [[0, 0]],
            [-1, 1],
        ),
    ]


KNOWN: tuple[Known, ...] = (*_paper(), *_one_variable(), *_several_variables())
