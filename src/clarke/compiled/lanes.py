"""Sixteen numbers compared at a time: what numba does not make of a loop by itself.

Imported only where numba is installed. The functions of `clarke.compiled.loops` that are replaced
here say what they compute.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic, overload, register_jitable

from clarke.compiled import loops

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_NUMBER = ir.IntType(32)
_WORD = ir.IntType(64)
_INFINITY = 0x7F800000


def _all(value: int, lanes: int) -> Any:
    return ir.Constant(ir.VectorType(_NUMBER, lanes), [ir.Constant(_NUMBER, value)] * lanes)


def _load(builder: Any, array: Any, index: Any, lanes: int) -> Any:
    """Numbers of a contiguous array, from one on."""
    place = builder.gep(array.data, [index])
    loaded = builder.load(builder.bitcast(place, ir.VectorType(_NUMBER, lanes).as_pointer()))
    loaded.align = 4
    return loaded


def _above_zero(builder: Any, maxima: Any, lanes: int) -> Any:
    less_one = builder.sub(maxima, _all(1, lanes))
    return builder.icmp_unsigned("<", less_one, _all(_INFINITY, lanes))


def _as_bits(builder: Any, truths: Any, lanes: int) -> Any:
    return builder.zext(builder.bitcast(truths, ir.IntType(lanes)), _WORD)


def _equal(windows: Sequence[int]) -> Any:
    """`loops._lanes_equal` for some windows."""

    def typed(_context: Any, values: Any, _i: Any, peaks: Any, _k: Any) -> Any:
        def generate(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
            numbers = context.make_array(values)(context, builder, args[0])
            maxima = context.make_array(peaks)(context, builder, args[2])
            count = max(windows) + 1
            few = _load(builder, maxima, args[3], count)
            spread = ir.Constant(
                ir.VectorType(_NUMBER, len(windows)), [ir.Constant(_NUMBER, w) for w in windows]
            )
            nothing = ir.Constant(ir.VectorType(_NUMBER, count), ir.Undefined)
            largest = builder.shuffle_vector(few, nothing, spread)
            equal = builder.icmp_unsigned(
                "==", _load(builder, numbers, args[1], len(windows)), largest
            )
            found = builder.and_(equal, _above_zero(builder, largest, len(windows)))
            return _as_bits(builder, found, len(windows))

        return types.uint64(values, types.int64, peaks, types.int64), generate

    return intrinsic(typed)


def _above(lanes: int) -> Any:
    """`loops.above_zero` for so many maxima."""

    def typed(_context: Any, peaks: Any, _k: Any) -> Any:
        def generate(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
            maxima = context.make_array(peaks)(context, builder, args[0])
            truths = _above_zero(builder, _load(builder, maxima, args[1], lanes), lanes)
            return _as_bits(builder, truths, lanes)

        return types.uint64(peaks, types.int64), generate

    return intrinsic(typed)


def _typed_ones(_context: Any, _bits: Any) -> Any:
    return types.uint64(types.uint64), lambda _c, builder, _s, args: builder.ctpop(args[0])


def _typed_zeros(_context: Any, _bits: Any) -> Any:
    defined = ir.Constant(ir.IntType(1), 0)
    return types.int64(types.uint64), lambda _c, builder, _s, args: builder.cttz(args[0], defined)


# numba looks at names of arguments only, and wants a function of Python's own in return. It is put
# in place of the call as it is: as a call it would count references to the arrays.
_instead_of = partial(overload, strict=False, inline="always")


def _replace_comparison(function: Callable[..., Any], windows: Sequence[int]) -> None:
    equal = _equal(windows)

    @_instead_of(function)
    def _typed(values: Any, i: Any, peaks: Any, k: Any) -> Any:  # noqa: ARG001
        return lambda values, i, peaks, k: equal(values, i, peaks, k)  # noqa: PLW0108


def _replace_signs(function: Callable[..., Any], lanes: int) -> None:
    above = _above(lanes)

    @_instead_of(function)
    def _typed(peaks: Any, k: Any) -> Any:  # noqa: ARG001
        return lambda peaks, k: above(peaks, k)  # noqa: PLW0108


def _replace_bits(function: Callable[..., Any], typed: Callable[..., Any]) -> None:
    run = intrinsic(typed)

    @_instead_of(function)
    def _typed(bits: Any) -> Any:  # noqa: ARG001
        return lambda bits: run(bits)  # noqa: PLW0108


def replace_all() -> None:
    """Have numba compile these in the place of the functions of `loops`."""
    _replace_comparison(loops.equal_pairs, loops.OF_PAIRS)
    _replace_comparison(loops.equal_to_next, loops.OF_NEXT)
    _replace_comparison(loops.equal_in_rows_of_eight, loops.IN_ROWS_OF_EIGHT)
    _replace_comparison(loops.equal_in_rows_of_four, loops.IN_ROWS_OF_FOUR)
    _replace_comparison(loops.equal_in_rows_of_two, loops.IN_ROWS_OF_TWO)
    _replace_signs(loops.eight_above_zero, 8)
    _replace_signs(loops.four_above_zero, 4)
    _replace_bits(loops.count_ones, _typed_ones)
    _replace_bits(loops.count_trailing_zeros, _typed_zeros)
    register_jitable(loops.ties_of_pairs)
    register_jitable(loops.mark)
