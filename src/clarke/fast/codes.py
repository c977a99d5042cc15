"""Fingerprints of receptive fields, one channel wide.

Two elements of the same channel whose receptive fields have the same content are computed by the
same sequence of operations from the same numbers, provided that every operation between treats
all places and samples alike: convolutions and pools do, pointwise operations do, normalisation
over a channel does (all elements share its mean and deviation). So they are equal, and so are
their gradients with respect to the parameters, provided further that AD chose the same pieces at
corresponding places; where the network has kinks in between, its choices are part of the
fingerprint (`choice_codes`). What lies outside of the image has a code of its own, so that a
field that sticks out is equal only to fields that stick out in the same way.

Codes are 64-bit integers with wrap-around: the same content always has the same code, whatever
the order of summation, and different contents have different codes up to a probability of
about 2**-60 for a pair (2**-33 for pixels that differ in signs only).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from clarke.fast.geometry import Windows

Codes = Any  # NDArray[np.uint64] of shape (N, H, W)

_SHIFTS = (np.uint64(30), np.uint64(27), np.uint64(31))
_FACTORS = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
_LIMIT = 1 << 31  # multipliers of choices: sums of up to 2**12 products stay exact in float64


class Coder:
    """Draws the multipliers; the same for every layer, different in every run of `seed`."""

    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng(seed)
        self._odd: dict[str, NDArray[np.uint64]] = {}
        self._real: dict[int, NDArray[np.float64]] = {}

    def _multipliers(self, purpose: str, count: int) -> NDArray[np.uint64]:
        found = self._odd.get(purpose)
        if found is None or found.size < count:
            found = self._random.integers(0, 1 << 63, count, dtype=np.uint64)
            found = self._odd[purpose] = found * np.uint64(2) + np.uint64(1)
        return found[:count]

    def pixels(self, image: NDArray[Any]) -> Codes:
        """(N, H, W) codes of the channels' values at every place of an (N, C, H, W) constant."""
        kind = np.uint32 if image.dtype.itemsize == 4 else np.uint64
        bits = np.ascontiguousarray(image).view(kind)
        total = np.zeros((image.shape[0], *image.shape[2:]), dtype=np.uint64)
        for c, factor in enumerate(self._multipliers("pixels", image.shape[1])):
            total += bits[:, c] * factor
        return mix(total)

    def zero_pixel(self) -> np.uint64:
        """The code of a pixel whose channels are all +0, as zero padding supplies."""
        return np.uint64(0)

    def outside(self) -> np.uint64:
        """The code of what lies outside of a hidden layer's input."""
        return self._multipliers("outside", 1)[0]

    def fields(self, codes: Codes, windows: Windows, outside: np.uint64) -> Codes:
        """(N, h, w) codes of the windows' contents."""
        n = codes.shape[0]
        beyond = np.full(1, outside, dtype=np.uint64)  # arrays wrap around without a warning
        across = np.zeros((n, windows.space[0], windows.out[1]), dtype=np.uint64)
        for j, factor in enumerate(self._multipliers("across", windows.kernel[1])):
            target, source = windows.cut(1, j)
            if target != slice(0, windows.out[1]):
                missing = np.ones(windows.out[1], dtype=bool)
                missing[target] = False
                across[:, :, missing] += beyond * factor
            across[:, :, target] += codes[:, :, source] * factor
        # Rows outside have the code of a row of places outside.
        empty = beyond * self._multipliers("across", windows.kernel[1]).sum(dtype=np.uint64)
        total = np.zeros((n, *windows.out), dtype=np.uint64)
        for i, factor in enumerate(self._multipliers("down", windows.kernel[0])):
            target, source = windows.cut(0, i)
            if target != slice(0, windows.out[0]):
                missing = np.ones(windows.out[0], dtype=bool)
                missing[target] = False
                total[:, missing] += empty * factor
            total[:, target] += across[:, source] * factor
        return mix(total)

    def choices(self, tokens: NDArray[np.float64]) -> Codes:
        """(N, H, W) codes of one small whole number for each element of (N, C, H, W).

        Sums of products of whole numbers below 2**53 are exact in float64 in any order.
        """
        n, c, h, w = tokens.shape
        factors = self._real.get(c)
        if factors is None:
            whole = self._random.integers(1, _LIMIT, (2, c))
            factors = self._real[c] = whole.astype(np.float64)
        sums = np.matmul(factors, tokens.reshape(n, c, h * w)).astype(np.uint64)
        first, second = self._multipliers("choices", 2)
        return mix(sums[:, 0] * first + sums[:, 1] * second).reshape(n, h, w)

    def pair(self, first: Codes, second: Codes) -> Codes:
        """Codes of two codes."""
        left, right = self._multipliers("pair", 2)
        return mix(first * left + second * right)


def mix(codes: NDArray[np.uint64]) -> Codes:
    """A bijection of 64-bit integers that spreads every bit (Steele, Lea, Flood 2014)."""
    codes = codes ^ (codes >> _SHIFTS[0])
    codes *= _FACTORS[0]
    codes ^= codes >> _SHIFTS[1]
    codes *= _FACTORS[1]
    codes ^= codes >> _SHIFTS[2]
    return codes


def same_field(codes: Codes, windows: Windows) -> NDArray[np.bool_]:
    """(N, h, w) whether all elements inside a pool's window have the same code."""
    shape = (codes.shape[0], *windows.out)
    reference = np.zeros(shape, dtype=np.uint64)
    seen = np.zeros(shape, dtype=bool)
    same = np.ones(shape, dtype=bool)
    for i, j in windows.offsets():
        (y, source_y), (x, source_x) = windows.cut(0, i), windows.cut(1, j)
        part = codes[:, source_y, source_x]
        view = (slice(None), y, x)
        same[view] &= ~seen[view] | (reference[view] == part)
        reference[view] = np.where(seen[view], reference[view], part)
        seen[view] = True
    return same
