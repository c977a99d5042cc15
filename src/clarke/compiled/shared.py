"""The loops compiled, whole and in shares; imported only where numba is installed.

A share is what one thread takes on at a time. The functions here are called by all threads of a
`clarke.compiled.team.Team` with the same block of pointers: to numbers first, of which the first
two are the next share and how many there are, then to arrays.
"""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, register_jitable
from numba.np.numpy_support import carray

from clarke.compiled import coded, lanes, loops

if TYPE_CHECKING:
    from collections.abc import Callable

# With the cache only the first run on a machine waits for the compiler.
_jit = numba.njit(nogil=True, cache=True)
_as_callback = numba.cfunc(types.void(types.CPointer(types.voidptr)), cache=True)
# The cache goes by the file of a function and by what it closes over; the loops that are compiled
# into the functions below stand in other files.
_TEXT = zlib.crc32(
    Path(coded.__file__).read_bytes()
    + Path(lanes.__file__).read_bytes()
    + Path(loops.__file__).read_bytes()
)

lanes.replace_all()
for _loop in loops.TIED_LOOPS:
    register_jitable(_loop)


def _in_shares(build: Callable[[int], Callable[[Any], None]]) -> Any:
    return _as_callback(build(_TEXT))


@_jit
def _depends_on(text: Any) -> None:
    """Nothing."""


has_zero = _jit(loops.has_zero)
find_tied = _jit(loops.find_tied)
mixed = _jit(coded.mixed)
keep_differing = _jit(coded.keep_differing)
code_pixels = _jit(coded.code_pixels)
code_fields = _jit(coded.code_fields)


def _typed_next_share(_context: Any, _address: Any) -> Any:
    """The number at an address, which is increased by one at the same moment."""

    def generate(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        word = ir.IntType(64)
        place = builder.bitcast(args[0], word.as_pointer())
        return builder.atomic_rmw("add", place, ir.Constant(word, 1), "monotonic")

    return types.int64(types.voidptr), generate


_next_share: Any = intrinsic(_typed_next_share)


@_jit
def _edge(size: Any, share: Any, shares: Any) -> Any:
    return size * share // shares


@_in_shares
def zeros_in_shares(text: int) -> Callable[[Any], None]:
    """Numbers: size. Arrays: bits (K,), found (shares,)."""

    def run(block: Any) -> None:
        _depends_on(text)
        numbers = carray(block[0], 3, np.int64)
        shares, size = numbers[1], numbers[2]
        bits = carray(block[1], size, np.uint32)
        found = carray(block[2], shares, np.bool_)
        share = _next_share(block[0])
        while share < shares:
            part = bits[_edge(size, share, shares) : _edge(size, share + 1, shares)]
            found[share] = has_zero(part)
            share = _next_share(block[0])

    return run


@_in_shares
def tied_in_shares(text: int) -> Callable[[Any], None]:
    """Numbers: P, h, w, C, N, B, which `loops.TiedLoop`.

    Arrays: values, peaks, mask (N, h, w), found and rows of the first loop; its counts, (2, shares)
    for tied and low. If B is not zero, codes (B, H, W), which (N,) and geometry of the second.
    """

    def run(block: Any) -> None:
        _depends_on(text)
        numbers = carray(block[0], 9, np.int64)
        shares, size, h, w = numbers[1], numbers[2], numbers[3], numbers[4]
        channels, images, coded = numbers[5], numbers[6], numbers[7]
        pairs = carray(block[1], (size, 2 * h, w), np.uint64)
        values = carray(block[1], (size, 2 * h, 2 * w), np.uint32)
        peaks = carray(block[2], (size, h, w), np.uint32)
        mask = carray(block[3], (images, h, w), np.uint64)
        found = carray(block[4], (size, h, w), np.bool_)
        rows = carray(block[5], (size, h), np.bool_)
        counts = carray(block[6], (2, shares), np.uint64)
        share = _next_share(block[0])
        while share < shares:
            a, b = _edge(size, share, shares), _edge(size, share + 1, shares)
            part, marks, marked = peaks[a:b], found[a:b], rows[a:b]
            counts[0, share], counts[1, share] = find_tied(
                numbers[8], pairs[a:b], values[a:b], part, a, channels, mask, marks, marked
            )
            if coded:  # now, while the planes are in the cache
                codes = carray(block[7], (coded, 2 * h, 2 * w), np.uint64)
                which = carray(block[8], images, np.int64)
                geometry = carray(block[9], 8, np.int64)
                keep_differing(
                    values[a:b], part, a, channels, codes, which, geometry, marks, marked
                )
            share = _next_share(block[0])

    return run


@_in_shares
def differing_in_shares(text: int) -> Callable[[Any], None]:
    """Numbers: P, h, w, C, N, B, H, W. Arrays: those of the loop."""

    def run(block: Any) -> None:
        _depends_on(text)
        numbers = carray(block[0], 10, np.int64)
        shares, size, h, w = numbers[1], numbers[2], numbers[3], numbers[4]
        channels, images, coded = numbers[5], numbers[6], numbers[7]
        height, width = numbers[8], numbers[9]
        values = carray(block[1], (size, height, width), np.uint32)
        peaks = carray(block[2], (size, h, w), np.uint32)
        codes = carray(block[3], (coded, height, width), np.uint64)
        which = carray(block[4], images, np.int64)
        geometry = carray(block[5], 8, np.int64)
        found = carray(block[6], (size, h, w), np.bool_)
        rows = carray(block[7], (size, h), np.bool_)
        share = _next_share(block[0])
        while share < shares:
            a, b = _edge(size, share, shares), _edge(size, share + 1, shares)
            part = (values[a:b], peaks[a:b], a, channels, codes, which, geometry)
            keep_differing(*part, found[a:b], rows[a:b])
            share = _next_share(block[0])

    return run


@_in_shares
def pixels_in_shares(text: int) -> Callable[[Any], None]:
    """Numbers: N, C, K. Arrays: bits (N, C, K), multipliers (C,), found (N, K)."""

    def run(block: Any) -> None:
        _depends_on(text)
        numbers = carray(block[0], 5, np.int64)
        shares, size, channels, places = numbers[1], numbers[2], numbers[3], numbers[4]
        bits = carray(block[1], (size, channels, places), np.uint32)
        multipliers = carray(block[2], channels, np.uint64)
        found = carray(block[3], (size, places), np.uint64)
        share = _next_share(block[0])
        while share < shares:
            a, b = _edge(size, share, shares), _edge(size, share + 1, shares)
            code_pixels(bits[a:b], multipliers, found[a:b])
            share = _next_share(block[0])

    return run


@_in_shares
def fields_in_shares(text: int) -> Callable[[Any], None]:
    """Numbers: N, H, W, h, w, kh, kw. Arrays: codes, across, down, geometry, found."""

    def run(block: Any) -> None:
        _depends_on(text)
        numbers = carray(block[0], 9, np.int64)
        shares, size, height, width = numbers[1], numbers[2], numbers[3], numbers[4]
        h, w, down_count, across_count = numbers[5], numbers[6], numbers[7], numbers[8]
        codes = carray(block[1], (size, height, width), np.uint64)
        across = carray(block[2], across_count, np.uint64)
        down = carray(block[3], down_count, np.uint64)
        geometry = carray(block[4], 8, np.int64)
        found = carray(block[5], (size, h, w), np.uint64)
        share = _next_share(block[0])
        while share < shares:
            a, b = _edge(size, share, shares), _edge(size, share + 1, shares)
            code_fields(codes[a:b], across, down, geometry, found[a:b])
            share = _next_share(block[0])

    return run
