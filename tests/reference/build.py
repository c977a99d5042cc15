"""Constructors of the kinks, named as in PyTorch."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from reference.expr import Expr, Extremum, Pointwise, Rational, Square, Var, lift
from reference.vias import AbsVia, ClampVia, ExtremumVia, LeakyVia, OwnVia, ReluVia

ZERO, ONE = Fraction(0), Fraction(1)


def variables(count: int) -> tuple[Var, ...]:
    """x_0 .. x_{count-1}."""
    return tuple(Var(index) for index in range(count))


def square(arg: Expr) -> Expr:
    """arg squared."""
    return Square(arg)


def relu(arg: Expr, via: ReluVia = ReluVia.RELU) -> Pointwise:
    """max(arg, 0)."""
    return Pointwise(arg, (ZERO,), ((ZERO, ZERO), (ONE, ZERO)), via)


def absolute(arg: Expr, via: AbsVia = AbsVia.ABS) -> Pointwise:
    """|arg|."""
    return Pointwise(arg, (ZERO,), ((-ONE, ZERO), (ONE, ZERO)), via)


def leaky_relu(
    arg: Expr, slope: Rational = Fraction(1, 4), via: LeakyVia = LeakyVia.LEAKY_RELU
) -> Pointwise:
    """Arg where it is positive, else slope * arg."""
    slope = Fraction(slope)
    return Pointwise(arg, (ZERO,), ((slope, ZERO), (ONE, ZERO)), via, (slope,))


def clamp(
    arg: Expr,
    lo: Rational | None = None,
    hi: Rational | None = None,
    via: ClampVia = ClampVia.CLAMP,
) -> Pointwise:
    """Arg moved into [lo, hi]; a bound may be left out, not both, and lo < hi."""
    breaks: list[Fraction] = []
    pieces = [(ONE, ZERO)]
    if lo is not None:
        breaks.append(Fraction(lo))
        pieces.insert(0, (ZERO, Fraction(lo)))
    if hi is not None:
        breaks.append(Fraction(hi))
        pieces.append((ZERO, Fraction(hi)))
    if not breaks or breaks != sorted(set(breaks)):
        raise ValueError(f"clamp needs a bound, and lo < hi: got lo={lo}, hi={hi}.")
    params = tuple(None if bound is None else Fraction(bound) for bound in (lo, hi))
    return Pointwise(arg, tuple(breaks), tuple(pieces), via, params)


def hardtanh(arg: Expr, lo: Rational = -1, hi: Rational = 1) -> Pointwise:
    """Arg moved into [lo, hi], by torch's hardtanh."""
    return clamp(arg, lo, hi, ClampVia.HARDTANH)


def relu6(arg: Expr) -> Pointwise:
    """Arg moved into [0, 6]."""
    pieces = ((ZERO, ZERO), (ONE, ZERO), (ZERO, Fraction(6)))
    return Pointwise(arg, (ZERO, Fraction(6)), pieces, OwnVia.RELU6)


def hardsigmoid(arg: Expr) -> Pointwise:
    """arg/6 + 1/2 moved into [0, 1]. Not exact in floating point: keep it at the top."""
    middle = (Fraction(1, 6), Fraction(1, 2))
    breaks = (Fraction(-3), Fraction(3))
    return Pointwise(arg, breaks, ((ZERO, ZERO), middle, (ZERO, ONE)), OwnVia.HARDSIGMOID)


def softshrink(arg: Expr, width: Rational = 1) -> Pointwise:
    """Arg moved towards zero by width, and zero within it."""
    width = Fraction(width)
    pieces = ((ONE, width), (ZERO, ZERO), (ONE, -width))
    return Pointwise(arg, (-width, width), pieces, OwnVia.SOFTSHRINK, (width,))


def maximum(left: Expr | Rational, right: Expr | Rational) -> Extremum:
    """The larger of two, by torch.maximum."""
    return largest([left, right], ExtremumVia.PAIRWISE)


def minimum(left: Expr | Rational, right: Expr | Rational) -> Extremum:
    """The smaller of two, by torch.minimum."""
    return smallest([left, right], ExtremumVia.PAIRWISE)


def largest(items: Sequence[Expr | Rational], via: ExtremumVia = ExtremumVia.AMAX) -> Extremum:
    """The largest of a list; `ExtremumVia.FIRST` is torch.max(dim), the first index on ties."""
    return Extremum(tuple(map(lift, items)), 1, via)


def smallest(items: Sequence[Expr | Rational], via: ExtremumVia = ExtremumVia.AMAX) -> Extremum:
    """The smallest of a list."""
    return Extremum(tuple(map(lift, items)), -1, via)
