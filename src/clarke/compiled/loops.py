"""Loops that look for zeros and for tied windows, as Python that numba can compile.

Integers wrap around, as they do when compiled.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any

import numpy as np


class TiedLoop(IntEnum):
    """The loops that find tied windows; the last three take several at a time."""

    TWOS = 0
    THREES = 1
    TWOS_BY_EIGHTS = 2
    TWOS_BY_FOURS = 3
    THREES_BY_EIGHTS = 4

    @classmethod
    def for_windows(cls, kernel: int, h: int, w: int, planes: int) -> TiedLoop:
        """The quickest for windows of 2x2 or 3x3, h by w of them in a plane.

        Every share has a multiple of so many planes.
        """
        if w % 8 == 0:
            return cls.TWOS_BY_EIGHTS if kernel == 2 else cls.THREES_BY_EIGHTS
        if kernel == 2 and w in (1, 2, 4) and planes * h * w % 4 == 0:
            return cls.TWOS_BY_FOURS
        return cls.TWOS if kernel == 2 else cls.THREES


def has_zero(bits: Any) -> bool:
    """Whether some number is zero but for its sign.

    Args:
        bits: (K,) bits of floating-point numbers, unsigned.
    """
    # Integers of 32 bits grow to 64 in every operation, unless they are told not to.
    if bits.itemsize == 4:
        narrow = np.uint32(1)
        for i in range(bits.size):
            narrow = min(narrow, np.uint32(bits[i] & np.uint32(0x7FFFFFFF)))
        return bool(narrow == 0)
    wide = np.uint64(1)
    for i in range(bits.size):
        wide = min(wide, bits[i] & np.uint64(0x7FFFFFFFFFFFFFFF))
    return bool(wide == 0)


# Two neighbours of an input row are read as one integer: loads that skip every other number are not
# vectorised. A maximum above zero that is a number has bits from 1 to those of infinity.
_LOWER = np.uint64(0xFFFFFFFF)
_UPPER = np.uint64(32)
_INFINITY = np.uint64(0x7F800000)
_ZERO, _ONE = np.uint64(0), np.uint64(1)


def tied_twos(
    values: Any, peaks: Any, first: Any, channels: Any, mask: Any, found: Any, rows: Any
) -> Any:
    """For windows of 2x2 that tile the input: count the tied ones, mark those that are wanted.

    Args:
        values: (P, 2 h, w) planes, bits of two float32 each.
        peaks: (P, h, w) bits of the maxima.
        first: Which of all planes the first of these is.
        channels: Planes of an image.
        mask: (N, h, w) one where ties are wanted, in all channels of an image; else zero.
        found: (P, h, w) booleans to fill, in rows in which there is a wanted one.
        rows: (P, h) booleans to fill: which rows those are.

    Returns:
        How many windows are tied, and how many have a maximum that is not above zero.
    """
    tied, low = np.uint64(0), np.uint64(0)
    line = np.empty(peaks.shape[2], dtype=np.bool_)
    for p in range(peaks.shape[0]):
        image = (first + p) // channels
        for y in range(peaks.shape[1]):
            above, below = values[p, 2 * y], values[p, 2 * y + 1]
            largest, wanted, some = peaks[p, y], mask[image, y], np.uint64(0)
            for x in range(largest.size):
                m, a, b = np.uint64(largest[x]), above[x], below[x]
                count = np.uint64((a & _LOWER) == m) + np.uint64((a >> _UPPER) == m)
                count += np.uint64((b & _LOWER) == m) + np.uint64((b >> _UPPER) == m)
                positive = m - _ONE < _INFINITY
                low += np.uint64(not positive)
                tie = np.uint64((count > _ONE) & positive)
                tied += tie
                some += tie & wanted[x]
                line[x] = (tie & wanted[x]) != _ZERO
            rows[p, y] = some != _ZERO
            if some != _ZERO:
                found[p, y] = line
    return tied, low


def tied_threes(
    values: Any, peaks: Any, first: Any, channels: Any, mask: Any, found: Any, rows: Any
) -> Any:
    """The same for windows of 3x3, two apart, with a border of one."""
    tied, low = np.uint64(0), np.uint64(0)
    line = np.empty(peaks.shape[2], dtype=np.bool_)
    for p in range(peaks.shape[0]):
        image = (first + p) // channels
        for y in range(peaks.shape[1]):
            own, below = values[p, 2 * y], values[p, 2 * y + 1]
            above = values[p, 2 * y - 1] if y > 0 else own
            inside = np.uint64(y > 0)
            largest, wanted, some = peaks[p, y], mask[image, y], np.uint64(0)
            for x in range(largest.size):
                m = np.uint64(largest[x])
                a, b, c = above[x], own[x], below[x]
                count = inside * (np.uint64((a & _LOWER) == m) + np.uint64((a >> _UPPER) == m))
                count += np.uint64((b & _LOWER) == m) + np.uint64((b >> _UPPER) == m)
                count += np.uint64((c & _LOWER) == m) + np.uint64((c >> _UPPER) == m)
                if x > 0:  # the column to the left belongs to the pair before
                    a, b, c = above[x - 1] >> _UPPER, own[x - 1] >> _UPPER, below[x - 1] >> _UPPER
                    count += inside * np.uint64(a == m) + np.uint64(b == m) + np.uint64(c == m)
                positive = m - _ONE < _INFINITY
                low += np.uint64(not positive)
                tie = np.uint64((count > _ONE) & positive)
                tied += tie
                some += tie & wanted[x]
                line[x] = (tie & wanted[x]) != _ZERO
            rows[p, y] = some != _ZERO
            if some != _ZERO:
                found[p, y] = line
    return tied, low


# Eight windows, or four narrow ones, at a time: sixteen numbers are compared with one instruction
# or two, and the outcomes are bits of one integer. What does so stands below, and is compiled by
# `clarke.compiled.lanes`.
_EVEN = np.uint64(0x5555)


def tied_by_eights(
    values: Any,
    peaks: Any,
    first: Any,
    channels: Any,
    mask: Any,
    found: Any,
    rows: Any,
    threes: Any,
) -> Any:
    """What `tied_twos` and `tied_threes` do, for single numbers where w is a multiple of eight.

    `values` are (P, 2 h, 2 w); `threes` says which of the two.
    """
    tied, low = _ZERO, _ZERO
    _, h, w = peaks.shape
    numbers, flat = values.reshape(values.size), peaks.reshape(peaks.size)
    for p in range(peaks.shape[0]):
        for y in range(h):
            some, row = False, (p * h + y) * w
            for x in range(0, w, 8):
                k, once, twice = row + x, _ZERO, _ZERO
                for line in range(-1 if threes and y > 0 else 0, 2):
                    i = 4 * row + 2 * (w * line + x)
                    pairs = equal_pairs(numbers, i, flat, k)
                    # The column to the left of each pair; to the left of the first is none.
                    if not threes:
                        left = _ZERO
                    elif x > 0:
                        left = equal_pairs(numbers, i - 1, flat, k)
                    else:
                        left = equal_to_next(numbers, i, flat, k) << _ONE
                    right = pairs >> _ONE
                    twice |= (once & (pairs | right | left)) | (pairs & (right | left))
                    twice |= right & left
                    once |= pairs | right | left
                ties = twice & _EVEN
                low += np.uint64(8) - count_ones(eight_above_zero(flat, k))
                tied += count_ones(ties)
                if ties != _ZERO:
                    image = (first + p) // channels
                    some = mark(ties, mask[image, y], x, found[p, y], some)
            rows[p, y] = some
    return tied, low


def tied_twos_by_fours(
    values: Any, peaks: Any, first: Any, channels: Any, mask: Any, found: Any, rows: Any
) -> Any:
    """The same for w of four, two or one, and a multiple of four windows: these fill 16 numbers."""
    tied, low = _ZERO, _ZERO
    _, h, w = peaks.shape
    numbers, flat = values.reshape(values.size), peaks.reshape(peaks.size)
    below = np.uint64(2 * w)
    starts = np.uint64(0x55) if w == 4 else np.uint64(0x0505) if w == 2 else np.uint64(0x1111)
    rows[:] = False
    for k in range(0, flat.size, 4):
        if w == 4:
            equal = equal_in_rows_of_eight(numbers, 4 * k, flat, k)
        elif w == 2:
            equal = equal_in_rows_of_four(numbers, 4 * k, flat, k)
        else:
            equal = equal_in_rows_of_two(numbers, 4 * k, flat, k)
        ties = ties_of_pairs(equal, equal >> below) & starts
        low += np.uint64(4) - count_ones(four_above_zero(flat, k))
        while ties != _ZERO:
            lane = count_trailing_zeros(ties)
            ties &= ties - _ONE
            tied += _ONE
            # Of rows of 2 w numbers, every second belongs to the windows' upper halves.
            window = k + lane // (4 * w) * w + lane % (4 * w) // 2
            p, y, x = window // (h * w), window // w % h, window % w
            if mask[(first + p) // channels, y, x] != _ZERO:
                if not rows[p, y]:
                    rows[p, y] = True
                    found[p, y] = False
                found[p, y, x] = True
    return tied, low


TIED_LOOPS = (
    tied_twos,
    tied_threes,
    tied_twos_by_fours,
    tied_by_eights,
)


def find_tied(
    loop: Any,
    pairs: Any,
    values: Any,
    peaks: Any,
    first: Any,
    channels: Any,
    mask: Any,
    found: Any,
    rows: Any,
) -> Any:
    """What the loop with the number `loop` finds, which takes planes of `pairs` or of `values`."""
    if loop == TiedLoop.TWOS:
        return tied_twos(pairs, peaks, first, channels, mask, found, rows)
    if loop == TiedLoop.THREES:
        return tied_threes(pairs, peaks, first, channels, mask, found, rows)
    if loop == TiedLoop.TWOS_BY_FOURS:
        return tied_twos_by_fours(values, peaks, first, channels, mask, found, rows)
    threes = loop == TiedLoop.THREES_BY_EIGHTS
    return tied_by_eights(values, peaks, first, channels, mask, found, rows, threes)


def ties_of_pairs(above: Any, below: Any) -> Any:
    """Bits at whose place, and the next, at least two of the four in two lines are set."""
    above_next, below_next = above >> _ONE, below >> _ONE
    either = (above | above_next) & (below | below_next)
    return (above & above_next) | (below & below_next) | either


def mark(ties: Any, wanted: Any, start: Any, line: Any, some: Any) -> Any:
    """Mark those of eight windows that are tied and wanted; whether the row now has any."""
    any_wanted = _ZERO
    for x in range(start, start + 8):
        any_wanted |= wanted[x]
    if any_wanted == _ZERO:
        return some
    while ties != _ZERO:
        x = start + count_trailing_zeros(ties) // 2
        ties &= ties - _ONE
        if wanted[x] != _ZERO:
            if not some:
                line[:] = False
                some = True
            line[x] = True
    return some


def _lanes_equal(values: Any, i: Any, peaks: Any, k: Any, windows: Any) -> Any:
    bits = _ZERO
    for lane, window in enumerate(windows):
        peak = peaks[k + window]
        if peak == values[i + lane] and np.uint64(peak) - _ONE < _INFINITY:
            bits |= _ONE << np.uint64(lane)
    return bits


# Of which window, counted from the first of the block, each of sixteen numbers is.
OF_PAIRS = tuple(lane // 2 for lane in range(16))
OF_NEXT = tuple(min((lane + 1) // 2, 7) for lane in range(16))  # the last is of the next block
IN_ROWS_OF_EIGHT = tuple(lane % 8 // 2 for lane in range(16))
IN_ROWS_OF_TWO = tuple(lane // 4 for lane in range(16))
IN_ROWS_OF_FOUR = tuple(lane // 8 * 2 + lane % 4 // 2 for lane in range(16))


def equal_pairs(values: Any, i: Any, peaks: Any, k: Any) -> Any:
    """Which of 16 numbers from the i-th on are the maximum above zero of windows of two each."""
    return _lanes_equal(values, i, peaks, k, OF_PAIRS)


def equal_to_next(values: Any, i: Any, peaks: Any, k: Any) -> Any:
    """The same, each second number compared with the maximum of the next window."""
    return _lanes_equal(values, i, peaks, k, OF_NEXT)


def equal_in_rows_of_eight(values: Any, i: Any, peaks: Any, k: Any) -> Any:
    """The same for two rows of eight numbers, in four windows."""
    return _lanes_equal(values, i, peaks, k, IN_ROWS_OF_EIGHT)


def equal_in_rows_of_two(values: Any, i: Any, peaks: Any, k: Any) -> Any:
    """The same for eight rows of two numbers, in four windows one above the other."""
    return _lanes_equal(values, i, peaks, k, IN_ROWS_OF_TWO)


def equal_in_rows_of_four(values: Any, i: Any, peaks: Any, k: Any) -> Any:
    """The same for four rows of four numbers, in two and two windows."""
    return _lanes_equal(values, i, peaks, k, IN_ROWS_OF_FOUR)


def eight_above_zero(peaks: Any, k: Any) -> Any:
    """Which of eight maxima from the k-th on are above zero, and numbers."""
    return _above_zero(peaks[k : k + 8])


def four_above_zero(peaks: Any, k: Any) -> Any:
    """The same for four."""
    return _above_zero(peaks[k : k + 4])


def _above_zero(peaks: Any) -> Any:
    bits = _ZERO
    for lane, peak in enumerate(peaks):
        if np.uint64(peak) - _ONE < _INFINITY:
            bits |= _ONE << np.uint64(lane)
    return bits


def count_ones(bits: Any) -> Any:
    """How many bits are set."""
    return np.uint64(int(bits).bit_count())


def count_trailing_zeros(bits: Any) -> Any:
    """The lowest bit that is set."""
    return (int(bits) & -int(bits)).bit_length() - 1
