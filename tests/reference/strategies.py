"""Hypothesis strategies for programs together with points on their kinks.

All constants and coordinates are small dyadic numbers, so float64 evaluates the generated programs
without rounding, and a kink touched here is touched in PyTorch.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction

from hypothesis import strategies as st

from reference.affine import bouligand
from reference.build import absolute, clamp, largest, leaky_relu, relu, smallest, softshrink, square
from reference.expr import Expr, Point, Var, evaluate, evaluation_order, touched
from reference.vias import AbsVia, ClampVia, ExtremumVia, LeakyVia, ReluVia

# Spellings that are one operation, its kink its own; the others hide it behind arithmetic.
NATIVE_RELU = (
    ReluVia.RELU,
    ReluVia.CLAMP_MIN,
    ReluVia.THRESHOLD,
    ReluVia.LEAKY_ZERO,
    ReluVia.MAXIMUM,
    ReluVia.AMAX,
    ReluVia.FIRST,
    ReluVia.LAST,
)
NATIVE_ABS = (AbsVia.ABS, AbsVia.MAXIMUM, AbsVia.RELU_PAIR)
NATIVE_LEAKY = (LeakyVia.LEAKY_RELU, LeakyVia.PRELU)
SMALL = st.sampled_from((0, 0, 0, 1, 1, -1, 2, -2, Fraction(1, 2), 3))
FACTORS = st.sampled_from((1, 1, 1, -1, -1, -1, 2, -2, 3, Fraction(1, 2)))
MOSTLY = st.sampled_from((True, True, True, False))


@dataclass(frozen=True)
class Case:
    """A program and a point."""

    expr: Expr
    point: Point

    @property
    def touched(self) -> list[Expr]:
        """The kinks touched at the point."""
        return touched(self.expr, self.point)

    @property
    def bouligand(self) -> frozenset[Point]:
        """The exact set; for piecewise affine programs only."""
        return bouligand(self.expr, self.point)


@dataclass
class _Draft:
    """A program being drawn: what later kinks may use, and what none has used yet."""

    draw: st.DrawFn
    point: Point
    pool: list[Expr]
    variables: tuple[Var, ...]
    native: bool
    products: int
    arguments: list[Expr] = field(default_factory=list)
    unused: list[Expr] = field(default_factory=list)

    def value(self, expr: Expr) -> Fraction:
        return evaluate(expr, self.point)

    def combination(self) -> Expr:
        """A small linear combination of the pool, sometimes with a product or a square."""
        count = self.draw(st.integers(1, min(3, len(self.pool))))
        # The newest first, so that Hypothesis shrinks towards deep programs of few terms.
        indices = self.draw(
            st.lists(
                st.integers(0, len(self.pool) - 1), min_size=count, max_size=count, unique=True
            )
        )
        parts = [self.pool[-1 - index] for index in indices]
        self.unused = [expr for expr in self.unused if not any(expr is part for part in parts)]
        total = _scaled(self.draw(FACTORS), parts[0])
        for part in parts[1:]:
            total = total + _scaled(self.draw(FACTORS), part)
        if self.products and self.draw(st.booleans()):
            self.products -= 1
            other = self.draw(st.sampled_from(self.pool))
            extra = square(other) if self.draw(st.booleans()) else other * parts[0]
            total = total + _scaled(self.draw(FACTORS), extra)
        return total

    def argument(self, target: Fraction | int) -> Expr:
        """A combination whose value at the point is mostly `target`; sometimes an earlier one."""
        if self.arguments and self.draw(st.booleans()):
            base = _scaled(self.draw(FACTORS), self.draw(st.sampled_from(self.arguments)))
        else:
            base = self.combination()
            self.arguments.append(base)
        shift = target - self.value(base) if self.draw(MOSTLY) else Fraction(self.draw(SMALL))
        return base + shift if shift else base

    def kink(self, room: int) -> int:
        """Add one kink to the pool, or two that interact if there is room; how many it was."""
        kinds = [self.relu, self.absolute, self.extremum, self.other]
        if room >= 2:
            kinds += [self.pair] * 3
        kind = self.draw(st.sampled_from(kinds))
        expr = kind()
        self.pool.append(expr)
        self.unused.append(expr)
        return 2 if kind == self.pair else 1

    def pair(self) -> Expr:
        """Two ReLUs of one argument, their kinks cancelling or nearly: autograd often errs."""
        vias = st.sampled_from(NATIVE_RELU if self.native else tuple(ReluVia))
        arg = self.argument(0)
        first = relu(arg, self.draw(vias))
        return first - relu(_scaled(self.draw(st.sampled_from((-1, 1, 2))), arg), self.draw(vias))

    def relu(self) -> Expr:
        vias = NATIVE_RELU if self.native else tuple(ReluVia)
        return relu(self.argument(0), self.draw(st.sampled_from(vias)))

    def absolute(self) -> Expr:
        vias = NATIVE_ABS if self.native else tuple(AbsVia)
        return absolute(self.argument(0), self.draw(st.sampled_from(vias)))

    def other(self) -> Expr:
        kind = self.draw(st.integers(0, 2))
        if kind == 0:
            vias = NATIVE_LEAKY if self.native else tuple(LeakyVia)
            slope = self.draw(st.sampled_from((Fraction(1, 4), Fraction(1, 2), 2, Fraction(-1, 2))))
            return leaky_relu(self.argument(0), slope, self.draw(st.sampled_from(vias)))
        if kind == 1:
            return softshrink(self.argument(self.draw(st.sampled_from((-1, 1)))), 1)
        lo, hi = self.draw(st.sampled_from(((0, None), (None, 0), (-1, 1), (0, 6), (0, 1))))
        target = self.draw(st.sampled_from([bound for bound in (lo, hi) if bound is not None]))
        both = lo is not None and hi is not None
        vias = tuple(ClampVia) if both else (ClampVia.CLAMP, ClampVia.MIN_MAX)
        return clamp(self.argument(target), lo, hi, self.draw(st.sampled_from(vias)))

    def extremum(self) -> Expr:
        first = self.combination()
        count = self.draw(st.integers(1, 3))
        items = [first, *(self.argument(self.value(first)) for _ in range(count))]
        items = list(self.draw(st.permutations(items)))
        vias = [via for via in ExtremumVia if not (self.native and via is ExtremumVia.RELU_CHAIN)]
        make = self.draw(st.sampled_from((largest, smallest)))
        return make(items, self.draw(st.sampled_from(vias)))

    def program(self) -> Expr:
        """A sum with every kink in it, directly or inside another."""
        total = _scaled(self.draw(FACTORS), self.unused[-1])
        for expr in self.unused[:-1]:
            total = total + _scaled(self.draw(FACTORS), expr)
        if self.draw(st.booleans()):
            total = total + _scaled(self.draw(FACTORS), self.draw(st.sampled_from(self.variables)))
        if self.products and self.draw(st.booleans()):
            self.products = 0
            total = total * self.combination()
        return total


@st.composite
def cases(
    draw: st.DrawFn,
    n_vars: int = 2,
    max_kinks: int = 4,
    *,
    nested: bool = True,
    polynomial: bool = False,
    native: bool = False,
) -> Case:
    """Programs with a point, most of them on several kinks.

    Args:
        draw: Supplied by Hypothesis.
        n_vars: Number of variables, 1 to 4.
        max_kinks: At most this many kinks; a maximum of a list counts as one.
        nested: Whether kinks may feed other kinks.
        polynomial: Whether to allow products and squares, degree at most 4.
        native: Whether to leave out spellings by arithmetic (masks, `where`, `a + relu(b - a)`).
    """
    point = tuple(Fraction(draw(SMALL)) for _ in range(n_vars))
    inputs = tuple(Var(index) for index in range(n_vars))
    draft = _Draft(draw, point, list(inputs), inputs, native, 2 if polynomial else 0)
    room = draw(st.integers(1, max_kinks))
    while room > 0:
        room -= draft.kink(room)
        if not nested:
            draft.pool = list(inputs)
    return Case(draft.program(), point)


def programs(
    n_vars: int = 2,
    max_kinks: int = 4,
    *,
    nested: bool = True,
    polynomial: bool = False,
    native: bool = False,
) -> st.SearchStrategy[Expr]:
    """The programs of `cases`, without the points."""
    drawn = cases(n_vars, max_kinks, nested=nested, polynomial=polynomial, native=native)
    return drawn.map(lambda case: case.expr)


@st.composite
def kink_points(draw: st.DrawFn, program: Expr, n_vars: int | None = None) -> Point:
    """Points of a given program: of a few small ones drawn, the one on the most kinks."""
    used = [node.index for node in evaluation_order(program) if isinstance(node, Var)]
    size = n_vars if n_vars is not None else max(used, default=0) + 1
    coordinates = st.tuples(*[SMALL] * size)
    repeated = SMALL.map(lambda value: (value,) * size)
    drawn = draw(st.lists(coordinates | repeated, min_size=1, max_size=8))
    points = [tuple(map(Fraction, entry)) for entry in drawn]
    return max(points, key=lambda point: len(touched(program, point)))


def _scaled(factor: Fraction | int, expr: Expr) -> Expr:
    return expr if factor == 1 else factor * expr
