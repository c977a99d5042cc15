"""Loops compiled by numba, where that is installed (``clarke[fast]``).

They find what whole-array passes elsewhere find, reading every value once. Without numba, and for
arrays that no loop is made for, the passes do it.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

Pair = tuple[int, int]
Geometry = tuple[Pair, Pair, Pair, Pair]  # kernel, stride, padding, dilation

# From so many elements on the loops are quicker; from so many, loading numba is worth it.
_SMALL = 1 << 12
_LARGE = 1 << 18


@dataclass(frozen=True, eq=False)
class _Functions:
    """The compiled loops."""

    has_zero: Callable[..., bool]
    tied_twos: Callable[..., int]
    tied_threes: Callable[..., int]
    differing: Callable[..., None]
    code_pixels: Callable[..., None]
    code_fields: Callable[..., None]


class Compiled:
    """The loops of this module, compiled when first asked for.

    On one thread: torch's own go on spinning for a while after each operation, in case of another,
    and would share the processor with a second one.

    Args:
        always: Take arrays of any size, not only those that are worth it.
    """

    def __init__(self, *, always: bool = False) -> None:
        self._always = always
        self._functions: _Functions | None = None
        self._tried = False

    def can_take(self, elements: int) -> bool:
        """Whether there are compiled loops, and so many elements are worth them."""
        if (self._always or elements >= _LARGE) and not self._tried:
            self._tried = True
            self._functions = _compile()
        return self._functions is not None and (self._always or elements >= _SMALL)

    def has_zero(self, values: NDArray[Any]) -> bool:
        """Whether some of (K,) contiguous float32 or float64 numbers is zero, of either sign."""
        functions = self._ready()
        bits = values.view(np.uint32 if values.dtype == np.float32 else np.uint64)
        return functions.has_zero(bits)

    def tied(
        self, values: NDArray[Any], peaks: NDArray[Any], geometry: Geometry
    ) -> tuple[NDArray[np.bool_], int] | None:
        """Which windows attain a maximum above zero more than once.

        Args:
            values: (N, C, H, W) input of a maxpool, contiguous, none negative.
            peaks: (N, C, h, w) its output, contiguous.
            geometry: Kernel, stride, padding and dilation.

        Returns:
            (N, C, h, w) booleans, and the number of windows with another maximum; None if there is
            no loop for this geometry or dtype.
        """
        functions = self._ready()
        (height, width), (h, w) = values.shape[2:], peaks.shape[2:]
        halves = (2 * h, 2 * w) == (height, width)
        kernel, stride, padding, dilation = geometry
        apart = stride == (2, 2) and dilation == (1, 1) and sys.byteorder == "little"
        if not (halves and apart and values.dtype == np.float32):
            return None
        found = np.empty(peaks.shape, dtype=np.bool_)
        pairs, bits = values.view(np.uint64), peaks.view(np.uint32)
        if (kernel, padding) == ((2, 2), (0, 0)):
            return found, functions.tied_twos(
                pairs.reshape(-1, 2, w), bits.reshape(-1, w), found.reshape(-1, w)
            )
        if (kernel, padding) == ((3, 3), (1, 1)):
            return found, functions.tied_threes(
                pairs.reshape(-1, height, w), bits.reshape(-1, h, w), found.reshape(-1, h, w)
            )
        return None

    def differing(
        self,
        tied: NDArray[np.intp],
        values: NDArray[Any],
        peaks: NDArray[Any],
        chosen: NDArray[np.int64],
        codes: NDArray[np.uint64],
        rows: NDArray[np.intp],
        geometry: Geometry,
    ) -> NDArray[np.bool_]:
        """(K,) whether an element that attains a window's maximum has another code than AD's.

        Args:
            tied: (K,) flat positions of windows.
            values: (N, C, H, W) input of a maxpool.
            peaks: (N, C, h, w) its output.
            chosen: (N, C, h, w) flat places of AD's elements in their planes.
            codes: (B, H, W) codes of some of the images.
            rows: (K,) which of the codes are those of each window's image.
            geometry: Kernel, stride, padding and dilation.
        """
        functions = self._ready()
        found = np.empty(tied.shape, dtype=np.bool_)
        numbers = np.array(geometry).reshape(-1)
        planes, (h, w) = values.reshape(-1, *values.shape[2:]), peaks.shape[2:]
        flat_peaks, flat_chosen = peaks.reshape(-1), chosen.reshape(-1)
        alike = np.zeros((len(codes), h, w), dtype=np.uint8)
        functions.differing(
            tied, rows, planes, flat_peaks, flat_chosen, codes, alike, numbers, found
        )
        return found

    def code_pixels(
        self, image: NDArray[Any], multipliers: NDArray[np.uint64]
    ) -> NDArray[np.uint64]:
        """What `clarke.fast.codes.Coder.pixels` computes, of contiguous float32 or float64."""
        bits = image.view(np.uint32 if image.dtype == np.float32 else np.uint64)
        codes = np.empty((image.shape[0], *image.shape[2:]), dtype=np.uint64)
        planes = bits.reshape(*image.shape[:2], -1)
        self._ready().code_pixels(planes, multipliers, codes.reshape(len(codes), -1))
        return codes

    def code_fields(
        self,
        codes: NDArray[np.uint64],
        across: NDArray[np.uint64],
        down: NDArray[np.uint64],
        geometry: Geometry,
        out: Pair,
    ) -> NDArray[np.uint64]:
        """What `clarke.fast.codes.Coder.fields` computes."""
        found = np.empty((len(codes), *out), dtype=np.uint64)
        numbers = np.array(geometry).reshape(-1)
        self._ready().code_fields(np.ascontiguousarray(codes), across, down, numbers, found)
        return found

    def _ready(self) -> _Functions:
        if self._functions is None:
            raise RuntimeError("Ask `can_take` first: there are no compiled loops.")
        return self._functions


def _compile() -> _Functions | None:
    try:
        import numba
    except ImportError:  # also where numba refuses a newer numpy
        return None
    # With the cache only the first run on a machine waits for the compiler.
    jit = numba.njit(nogil=True, cache=True)
    return _Functions(*map(jit, _LOOPS))


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
_ONE = np.uint64(1)


def tied_twos(values: Any, peaks: Any, found: Any) -> Any:
    """For windows of 2x2 that tile the input: mark the tied ones; returns how many are not above 0.

    Args:
        values: (R, 2, w) pairs of rows, bits of two float32 each.
        peaks: (R, w) bits of their maxima.
        found: (R, w) booleans to fill.
    """
    low = np.uint64(0)
    for r in range(peaks.shape[0]):
        above, below, largest, out = values[r, 0], values[r, 1], peaks[r], found[r]
        for x in range(largest.size):
            m, a, b = np.uint64(largest[x]), above[x], below[x]
            count = np.uint64((a & _LOWER) == m) + np.uint64((a >> _UPPER) == m)
            count += np.uint64((b & _LOWER) == m) + np.uint64((b >> _UPPER) == m)
            wanted = m - _ONE < _INFINITY
            low += np.uint64(not wanted)
            out[x] = (count > _ONE) & wanted
    return low


def tied_threes(values: Any, peaks: Any, found: Any) -> Any:
    """The same for windows of 3x3, two apart, with a border of one.

    Args:
        values: (P, 2 h, w) planes, bits of two float32 each.
        peaks: (P, h, w) bits of the maxima.
        found: (P, h, w) booleans to fill.
    """
    low = np.uint64(0)
    for p in range(peaks.shape[0]):
        for y in range(peaks.shape[1]):
            own, below = values[p, 2 * y], values[p, 2 * y + 1]
            above = values[p, 2 * y - 1] if y > 0 else own
            inside = np.uint64(y > 0)
            largest, out = peaks[p, y], found[p, y]
            for x in range(largest.size):
                m = np.uint64(largest[x])
                a, b, c = above[x], own[x], below[x]
                count = inside * (np.uint64((a & _LOWER) == m) + np.uint64((a >> _UPPER) == m))
                count += np.uint64((b & _LOWER) == m) + np.uint64((b >> _UPPER) == m)
                count += np.uint64((c & _LOWER) == m) + np.uint64((c >> _UPPER) == m)
                if x > 0:  # the column to the left belongs to the pair before
                    a, b, c = above[x - 1] >> _UPPER, own[x - 1] >> _UPPER, below[x - 1] >> _UPPER
                    count += inside * np.uint64(a == m) + np.uint64(b == m) + np.uint64(c == m)
                wanted = m - _ONE < _INFINITY
                low += np.uint64(not wanted)
                out[x] = (count > _ONE) & wanted
    return low


def differing(
    tied: Any,
    rows: Any,
    values: Any,
    peaks: Any,
    chosen: Any,
    codes: Any,
    alike: Any,
    geometry: Any,
    found: Any,
) -> None:
    """Mark the windows in which an element with the maximum has another code than AD's element.

    Args:
        tied: (K,) flat positions of windows.
        rows: (K,) which of the codes are those of their images.
        values: (P, H, W) planes.
        peaks: (P * h * w,) maxima.
        chosen: (P * h * w,) flat places of AD's elements in their planes.
        codes: (B, H, W).
        alike: (B, h, w) zeros; memory for whether a window has one code everywhere.
        geometry: Kernel, stride, padding and dilation, vertical and horizontal each.
        found: (K,) booleans to fill.
    """
    kh, kw, sh, sw, ph, pw, dh, dw = geometry
    _, height, width = values.shape
    _, h, w = alike.shape
    across = np.uint32(w)  # divisions of 32 bits take half as long
    for k in range(tied.size):
        window, image = tied[k], rows[k]
        plane = window // (h * w)
        place = np.uint32(window - plane * (h * w))
        y = place // across
        x = place - y * across
        top, left = np.int64(y) * sh - ph, np.int64(x) * sw - pw
        found[k] = False
        # No views of rows here: counting references to them would take most of the time.
        if alike[image, y, x] == 0:
            reference, some, same = np.uint64(0), False, True
            for i in range(kh):
                r = top + i * dh
                for j in range(kw):
                    c = left + j * dw
                    if 0 <= r < height and 0 <= c < width:
                        same = same and (not some or codes[image, r, c] == reference)
                        reference, some = codes[image, r, c], True
            alike[image, y, x] = 1 if same else 2
        if alike[image, y, x] == 1:  # in every channel: neither values nor choices are looked at
            continue
        own = np.uint32(chosen[window])
        reference = codes[image, own // np.uint32(width), own % np.uint32(width)]
        largest = peaks[window]
        differs = False
        for i in range(kh):
            r = top + i * dh
            if r < 0 or r >= height:
                continue
            for j in range(kw):
                c = left + j * dw
                if c >= 0 and c < width:
                    differs |= (codes[image, r, c] != reference) & (values[plane, r, c] == largest)
        found[k] = differs


# Of the mix in `clarke.fast.codes.mix`.
MIX_SHIFTS = (np.uint64(30), np.uint64(27), np.uint64(31))
MIX_FACTORS = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))


def code_pixels(bits: Any, multipliers: Any, found: Any) -> None:
    """Fill in the codes of the channels' values at every place.

    Args:
        bits: (N, C, K) bits of the pixels.
        multipliers: (C,)
        found: (N, K) codes to fill.
    """
    negative_zero = np.uint64(1) << np.uint64(8 * bits.itemsize - 1)
    for n in range(bits.shape[0]):
        out = found[n]
        out[:] = 0
        for c in range(bits.shape[1]):
            plane, factor = bits[n, c], multipliers[c]
            for k in range(plane.size):
                value = np.uint64(plane[k])
                out[k] += (np.uint64(0) if value == negative_zero else value) * factor
        for k in range(out.size):
            code = out[k]
            code = (code ^ (code >> MIX_SHIFTS[0])) * MIX_FACTORS[0]
            code = (code ^ (code >> MIX_SHIFTS[1])) * MIX_FACTORS[1]
            out[k] = code ^ (code >> MIX_SHIFTS[2])


def code_fields(codes: Any, across: Any, down: Any, geometry: Any, found: Any) -> None:
    """Fill in the codes of the windows' contents; what lies outside counts as zero.

    Args:
        codes: (N, H, W)
        across: (kw,) multipliers.
        down: (kh,) multipliers.
        geometry: Kernel, stride, padding and dilation, vertical and horizontal each.
        found: (N, h, w) codes to fill.
    """
    kh, kw, sh, sw, ph, pw, dh, dw = geometry
    _, height, width = codes.shape
    _, h, w = found.shape
    sums = np.empty((height, w), dtype=np.uint64)
    for n in range(codes.shape[0]):
        sums[:] = 0
        for r in range(height):
            line, row = codes[n, r], sums[r]
            for j in range(kw):
                start = j * dw - pw
                begin = 0 if start >= 0 else (sw - 1 - start) // sw
                end = min(w, (width - 1 - start) // sw + 1)
                factor = across[j]
                if sw == 1:  # slices: an index that may be negative is not vectorised
                    read, target = line[begin + start : end + start], row[begin:end]
                    for x in range(target.size):
                        target[x] += read[x] * factor
                else:
                    for x in range(begin, end):
                        row[x] += line[sw * x + start] * factor
        for y in range(h):
            out = found[n, y]
            out[:] = 0
            for i in range(kh):
                r = y * sh - ph + i * dh
                if 0 <= r < height:
                    row, factor = sums[r], down[i]
                    for x in range(w):
                        out[x] += row[x] * factor
            for x in range(w):
                code = out[x]
                code = (code ^ (code >> MIX_SHIFTS[0])) * MIX_FACTORS[0]
                code = (code ^ (code >> MIX_SHIFTS[1])) * MIX_FACTORS[1]
                out[x] = code ^ (code >> MIX_SHIFTS[2])


_LOOPS: tuple[Any, ...] = (
    has_zero,
    tied_twos,
    tied_threes,
    differing,
    code_pixels,
    code_fields,
)
