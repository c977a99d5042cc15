"""Loops over codes of pixels and receptive fields, as Python that numba can compile.

Integers wrap around, as they do when compiled.
"""

from __future__ import annotations

from typing import Any

import numpy as np

_ZERO = np.uint64(0)


def mixed(codes: Any, geometry: Any, found: Any) -> None:
    """Tell windows whose elements have several codes (one) from the others (zero).

    Args:
        codes: (N, H, W)
        geometry: Kernel, stride, padding and dilation, vertical and horizontal each.
        found: (N, h, w) to fill.
    """
    kh, kw, sh, sw, ph, pw, dh, dw = geometry
    _, height, width = codes.shape
    w = found.shape[2]
    every, some = np.empty(w, dtype=np.uint64), np.empty(w, dtype=np.uint64)
    for n in range(found.shape[0]):
        for y in range(found.shape[1]):
            every[:], some[:] = ~_ZERO, _ZERO
            for i in range(kh):
                r = y * sh - ph + i * dh
                for j in range(kw if 0 <= r < height else 0):
                    line, start = codes[n, r], j * dw - pw
                    for x in range(w):
                        c = sw * x + start
                        if 0 <= c < width:
                            every[x] &= line[c]
                            some[x] |= line[c]
            for x in range(w):
                found[n, y, x] = np.uint64(every[x] != some[x])


def keep_differing(
    values: Any,
    peaks: Any,
    first: Any,
    channels: Any,
    codes: Any,
    which: Any,
    geometry: Any,
    found: Any,
    rows: Any,
) -> None:
    """Of marked windows, keep those in which elements of different codes attain the maximum.

    Args:
        values: (P, H, W) bits of planes.
        peaks: (P, h, w) bits of the maxima, above zero where a window is marked.
        first: Which of all planes the first of these is.
        channels: Planes of an image.
        codes: (B, H, W) of the elements, in all channels of an image.
        which: (N,) which of the codes are an image's.
        geometry: Kernel, stride, padding and dilation, vertical and horizontal each.
        found: (P, h, w) the marks, in some rows.
        rows: (P, h) which rows those are.
    """
    kh, kw, sh, sw, ph, pw, dh, dw = geometry
    _, height, width = values.shape
    for p in range(rows.shape[0]):
        image = which[(first + p) // channels]
        for y in range(rows.shape[1]):
            if not rows[p, y]:
                continue
            some = False
            for x in range(found.shape[2]):
                if not found[p, y, x]:
                    continue
                # Without branches: whether an element attains the maximum is hard to predict. All
                # codes are one if what they have in common is what any of them has.
                largest, common, present = peaks[p, y, x], ~_ZERO, _ZERO
                for i in range(kh):
                    r = y * sh - ph + i * dh
                    for j in range(kw if 0 <= r < height else 0):
                        c = x * sw - pw + j * dw
                        if 0 <= c < width:
                            attains = _ZERO - np.uint64(values[p, r, c] == largest)
                            common &= codes[image, r, c] | ~attains
                            present |= codes[image, r, c] & attains
                found[p, y, x] = common != present
                some = some or common != present
            rows[p, y] = some


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
                value = np.uint64(0) if value == negative_zero else value
                value = (value ^ (value >> MIX_SHIFTS[0])) * MIX_FACTORS[0]
                value = (value ^ (value >> MIX_SHIFTS[1])) * MIX_FACTORS[1]
                out[k] += (value ^ (value >> MIX_SHIFTS[2])) * factor
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
                begin = 0 if start >= 0 else min(w, (sw - 1 - start) // sw)
                # Not before the beginning: where all of the row lies outside of the map.
                end = max(begin, min(w, (width - 1 - start) // sw + 1))
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
