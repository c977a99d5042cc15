"""What operators that look at one place at a time are, in instructions over cells.

Written from the definitions of the operators, and from nothing that decides verdicts.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from clarke.proof.cells import NoInstructionsError, Word

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from clarke.proof.cells import Cell, Cells, Where

    Meaning = Callable[..., Cell]

_MOST_POWER = 64
_SOFTPLUS_ENDS = 20  # beyond it torch's softplus is its argument


def _relu(c: Cells, w: Where, x: Cell) -> Cell:
    return c.largest([c.zero, x], w)


def _clamp(
    c: Cells, w: Where, x: Cell, low: Cell | None = None, high: Cell | None = None, **named: Cell
) -> Cell:
    low, high = named.get("min", low), named.get("max", high)
    x = x if low is None else c.largest([low, x], w)
    return x if high is None else c.smallest([high, x], w)


def _hardtanh(
    c: Cells, w: Where, x: Cell, low: Cell | None = None, high: Cell | None = None
) -> Cell:
    low = c.constant(-1) if low is None else low
    return _clamp(c, w, x, low, c.one if high is None else high)


def _leaky(c: Cells, w: Where, x: Cell, slope: Cell | None = None) -> Cell:
    slope = c.constant(0.01) if slope is None else slope
    known = c.value(slope)
    if known is not None and 0 <= known <= 1:
        return c.largest([c.times(x, slope), x], w)
    below = c.largest([c.zero, c.add((x, -1))], w)
    return c.subtract(c.largest([c.zero, x], w), c.times(below, slope))


def _softshrink(c: Cells, w: Where, x: Cell, by: Cell | None = None) -> Cell:
    by = c.constant(0.5) if by is None else by
    up, down = (c.largest([c.zero, c.add((x, s), (by, -1))], w) for s in (1, -1))
    return c.subtract(up, down)


def _threshold(c: Cells, w: Where, x: Cell, at: Cell, other: Cell) -> Cell:
    if other == at:  # nothing jumps
        return c.largest([at, x], w)
    return c.pick(c.sign(c.subtract(x, at), w), other, other, x)


def sigmoid(c: Cells, _: Where, x: Cell) -> Cell:
    """The logistic function."""
    falling = c.smooth(Word.EXP, c.add((x, -1)))
    return c.smooth(Word.INVERSE, c.add((c.one, 1), (falling, 1)))


def _softplus(
    c: Cells, w: Where, x: Cell, beta: Cell | None = None, ends: Cell | None = None
) -> Cell:
    beta = c.one if beta is None else beta
    y = c.times(x, beta)
    ends = c.constant(_SOFTPLUS_ENDS) if ends is None else ends
    grown = c.add((c.one, 1), (c.smooth(Word.EXP, y), 1))
    curve = c.over(c.smooth(Word.LOG, grown), beta)
    return c.pick(c.sign(c.subtract(y, ends), w), curve, curve, x)


def _power(c: Cells, _: Where, x: Cell, exponent: Cell) -> Cell:
    n = c.value(exponent)
    if n is not None and n * 2 == 1:
        return c.smooth(Word.SQRT, x)
    if n is None or n.denominator != 1 or abs(n) > _MOST_POWER:
        raise NoInstructionsError(f"the power {'that varies' if n is None else float(n)}")
    found = c.one
    for __ in range(abs(int(n))):
        found = c.times(found, x)
    return found if n >= 0 else c.smooth(Word.INVERSE, found)


def _added(sign: int) -> Meaning:
    def meaning(c: Cells, _: Where, x: Cell, y: Cell, alpha: Cell | None = None) -> Cell:
        factor = c.one if alpha is None else alpha
        return c.products([(x, c.one), (y, c.times(factor, c.constant(sign)))])

    return meaning


def _subtracted_from(c: Cells, w: Where, x: Cell, y: Cell, alpha: Cell | None = None) -> Cell:
    return _added(-1)(c, w, y, x, alpha)


def _added_pair(over: bool) -> Meaning:  # noqa: FBT001 - of two operators, each once
    def meaning(c: Cells, _: Where, t: Cell, x: Cell, y: Cell, value: Cell | None = None) -> Cell:
        both = c.over(x, y) if over else c.times(x, y)
        return c.products([(t, c.one), (both, c.one if value is None else value)])

    return meaning


def _lerp(c: Cells, _: Where, x: Cell, y: Cell, weight: Cell) -> Cell:
    return c.products([(x, c.one), (c.subtract(y, x), weight)])


def _compared(below: int, at: int, above: int) -> Meaning:
    def meaning(c: Cells, w: Where, x: Cell, y: Cell) -> Cell:
        return c.pick(c.sign(c.subtract(x, y), w), *map(c.constant, (below, at, above)))

    return meaning


def truth(c: Cells, mask: Cell, yes: Cell, no: Cell) -> Cell:
    """One of two cells, by a mask: a number of which only zero is false."""
    return c.pick(mask, yes, no, yes)


_POINTWISE: Mapping[str, Meaning] = MappingProxyType(
    {
        "add": _added(1),
        "sub": _added(-1),
        "rsub": _subtracted_from,
        "neg": lambda c, _, x: c.add((x, -1)),
        "mul": lambda c, _, x, y: c.times(x, y),
        "div": lambda c, _, x, y: c.over(x, y),
        "addcmul": _added_pair(over=False),
        "addcdiv": _added_pair(over=True),
        "lerp": _lerp,
        "square": lambda c, _, x: c.times(x, x),
        "pow": _power,
        "reciprocal": lambda c, _, x: c.smooth(Word.INVERSE, x),
        "exp": lambda c, _, x: c.smooth(Word.EXP, x),
        "log": lambda c, _, x: c.smooth(Word.LOG, x),
        "sqrt": lambda c, _, x: c.smooth(Word.SQRT, x),
        "tanh": lambda c, _, x: c.smooth(Word.TANH, x),
        "rsqrt": lambda c, _, x: c.smooth(Word.INVERSE, c.smooth(Word.SQRT, x)),
        "log1p": lambda c, _, x: c.smooth(Word.LOG, c.add((x, 1), (c.one, 1))),
        "expm1": lambda c, _, x: c.subtract(c.smooth(Word.EXP, x), c.one),
        "sigmoid": sigmoid,
        "silu": lambda c, w, x: c.times(x, sigmoid(c, w, x)),
        "softplus": _softplus,
        "leaky_relu": _leaky,
        "_prelu_kernel": _leaky,
        "softshrink": _softshrink,
        "threshold": _threshold,
        "clamp": _clamp,
        "clamp_min": _clamp,
        "clamp_max": lambda c, w, x, high: _clamp(c, w, x, None, high),
        "hardtanh": _hardtanh,
        "relu": _relu,
        "abs": lambda c, w, x: c.largest([c.add((x, -1)), x], w),
        "maximum": lambda c, w, x, y: c.largest([y, x], w),
        "minimum": lambda c, w, x, y: c.smallest([x, y], w),
        "gt": _compared(0, 0, 1),
        "ge": _compared(0, 1, 1),
        "lt": _compared(1, 0, 0),
        "le": _compared(1, 1, 0),
        "eq": _compared(0, 1, 0),
        "ne": _compared(1, 0, 1),
        "sign": lambda c, w, x: c.sign(x, w),
        "where": lambda c, _, mask, x, y: truth(c, mask, x, y),
        "masked_fill": lambda c, _, x, mask, y: truth(c, mask, y, x),
        "logical_and": lambda c, _, x, y: truth(c, x, truth(c, y, c.one, c.zero), c.zero),
        "logical_or": lambda c, _, x, y: truth(c, x, c.one, truth(c, y, c.one, c.zero)),
        "logical_xor": lambda c, _, x, y: truth(
            c, x, truth(c, y, c.zero, c.one), truth(c, y, c.one, c.zero)
        ),
        "logical_not": lambda c, _, x: truth(c, x, c.zero, c.one),
        "copy": lambda _, __, ___, y, *____: y,
        "fill": lambda _, __, ___, y: y,
        "full_like": lambda _, __, ___, y: y,
        "zero": lambda c, _, __: c.zero,
        "zeros_like": lambda c, _, __: c.zero,
        "ones_like": lambda c, _, __: c.one,
    }
)
_OF_MASKS = MappingProxyType(
    {
        "bitwise_and": "logical_and",
        "bitwise_or": "logical_or",
        "bitwise_xor": "logical_xor",
        "bitwise_not": "logical_not",
    }
)
# By their overload, two numbers and not a reduction.
_OF_TWO = MappingProxyType({"max": "maximum", "min": "minimum"})


def meaning_of(base: str, overload: str, *, masks: bool) -> Meaning | None:
    """What an operator does at one place: a function of instructions, place and cells.

    Args:
        base: The operator's name, without the underscore of what works in place.
        overload: Which of its forms.
        masks: Its result is of truth values.
    """
    if overload == "other":
        base = _OF_TWO.get(base, base)
    return _POINTWISE.get(_OF_MASKS.get(base, base) if masks else base)
