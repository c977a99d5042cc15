"""Fingerprints of receptive fields, one channel wide.

The code of a place (n, y, x) stands for what the channels there are: equal codes mean that in
every channel the two elements have the same value and the same gradient with respect to the
parameters, under the pieces that AD chose. That holds for

- a constant image, if the pixels are equal;
- a convolution, if the codes of everything that it reads are equal (padding has the code of
  zeros that depend on nothing);
- normalisation over a channel, if its inputs' codes are equal: all elements of the channel share
  mean and deviation;
- a ReLU, if the same channels are active and the inputs' codes are equal; with no active channel
  the inputs do not matter: everything is zero and depends on nothing;
- a smooth function of every element, if its input's codes are equal;
- tensors one behind the other along the channels, if the codes of all of them are equal;
- a maxpool, if in every channel the chosen elements' codes are equal, wherever they stand.

It is exact equality in real arithmetic: elements that rounding has pulled apart keep equal codes.

The code zero stands for a zero that depends on nothing: a black pixel, padding, a place where no
channel is active. What a bias or a normalisation may move is none, whatever it reads.

Codes are 64-bit integers with wrap-around: sums do not depend on the order, and different
contents have equal codes with a probability of about 2**-60 for a pair.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from clarke.compiled import MIX_FACTORS, MIX_SHIFTS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from clarke.compiled import Compiled
    from clarke.fast.geometry import Windows

Codes = Any  # NDArray[np.uint64] of shape (N, H, W)

_LIMIT = 1 << 40  # sums of up to 2**13 multipliers stay exact in float64


class Coder:
    """Draws the multipliers; the same for every layer, different in every run of `seed`.

    Args:
        seed: Of the private generator.
        compiled: Compiled loops, used on large arrays; None to do without.
    """

    def __init__(self, seed: int, compiled: Compiled | None = None) -> None:
        self._compiled = compiled
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
        multipliers = self._multipliers("pixels", image.shape[1])
        if self._compiled is not None and self._compiled.can_take(image.size):
            return self._compiled.code_pixels(np.ascontiguousarray(image), multipliers)
        kind = np.uint32 if image.dtype.itemsize == 4 else np.uint64
        bits = (image + image.dtype.type(0)).view(kind)  # the sum turns -0 into +0
        total = np.zeros((image.shape[0], *image.shape[2:]), dtype=np.uint64)
        for c, factor in enumerate(multipliers):
            # Signs and powers of two sit in the highest bits, where an odd factor moves nothing.
            total += mix(bits[:, c].astype(np.uint64)) * factor
        return mix(total)

    def fields(self, codes: Codes, windows: Windows) -> Codes:
        """(N, h, w) codes of the windows' contents; what lies outside counts as zero."""
        n = codes.shape[0]
        by_column = self._multipliers("across", windows.kernel[1])
        by_row = self._multipliers("down", windows.kernel[0])
        if self._compiled is not None and self._compiled.can_take(codes.size * len(by_column)):
            return self._compiled.code_fields(
                codes, by_column, by_row, windows.geometry, windows.out
            )
        across = np.zeros((n, windows.space[0], windows.out[1]), dtype=np.uint64)
        for j, factor in enumerate(by_column):
            target, source = windows.cut(1, j)
            across[:, :, target] += codes[:, :, source] * factor
        total = np.zeros((n, *windows.out), dtype=np.uint64)
        for i, factor in enumerate(by_row):
            target, source = windows.cut(0, i)
            total[:, target] += across[:, source] * factor
        return mix(total)

    def moved(self, codes: Codes) -> Codes:
        """Codes of places to which something is added that is the same for all of a channel."""
        return codes + self._multipliers("moved", 1)[0]

    def active(self, codes: Codes, active: NDArray[np.bool_]) -> Codes:
        """(N, H, W) codes where only the `active` channels, (N, C, H, W), are handed on."""
        n, c, h, w = active.shape
        factors = self._real.get(c)
        if factors is None:
            whole = self._random.integers(1, _LIMIT, (2, c))
            factors = self._real[c] = whole.astype(np.float64)
        # Sums of whole numbers below 2**53 are exact in float64 in any order.
        flags = active.reshape(n, c, h * w).astype(np.float64)
        sums = np.matmul(factors, flags).astype(np.uint64).reshape(n, 2, h, w)
        own, first, second = self._multipliers("active", 3)
        whole_code = mix(codes * own + sums[:, 0] * first + sums[:, 1] * second)
        return np.where(sums[:, 0] == 0, np.uint64(0), whole_code)

    def chosen(
        self, codes: Codes, indices: NDArray[np.int64], active: NDArray[np.bool_] | None
    ) -> Codes:
        """(N, h, w) codes of a maxpool's outputs.

        Args:
            codes: (N, H, W) of its inputs.
            indices: (N, C, h, w) flat places of the chosen elements.
            active: (N, C, h, w) which outputs depend on anything; None for all.
        """
        n, c, h, w = indices.shape
        taken = np.take_along_axis(codes.reshape(n, -1), indices.reshape(n, -1), axis=1).reshape(
            n, c, h * w
        )
        own = self._multipliers("pool", 1)[0]
        taken += own  # so that an active element whose code is zero differs from an inactive one
        taken *= self._multipliers("channels", c)[:, None]
        if active is not None:
            taken *= active.reshape(n, c, h * w)
        return mix(taken.sum(axis=1).reshape(n, h, w))

    def mapped(self, codes: Codes, function: str) -> Codes:
        """Codes of a smooth function of each element; that of zero need not be zero."""
        return mix(codes + self._multipliers(f"mapped by {function}", 1)[0])

    def pair(self, first: Codes, second: Codes) -> Codes:
        """Codes of two codes."""
        left, right = self._multipliers("pair", 2)
        return mix(first * left + second * right)


def mix(codes: NDArray[np.uint64]) -> Codes:
    """A bijection of 64-bit integers that spreads every bit (Steele, Lea, Flood 2014)."""
    codes = codes ^ (codes >> MIX_SHIFTS[0])
    codes *= MIX_FACTORS[0]
    codes ^= codes >> MIX_SHIFTS[1]
    codes *= MIX_FACTORS[1]
    codes ^= codes >> MIX_SHIFTS[2]
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
