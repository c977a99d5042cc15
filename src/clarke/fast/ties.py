"""Maxpool windows with ties, found in whole-array passes.

Comparing each of the k*k strided slices of a window with the output is slow on a CPU: strided
loads are not vectorised. Instead the output is spread out, so that element (y, x) of it holds the
maximum of the window that (y, x) belongs to, and compared with the input in one contiguous pass
(several where windows overlap).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from clarke.fast.geometry import Windows
    from clarke.fast.scratch import Scratch


@dataclass(frozen=True, eq=False)
class Ties:
    """Windows whose maximum is attained more than once.

    Attributes:
        windows: Number of windows.
        tied: (K,) flat positions (n, c, y, x) in the output of the windows looked for.
        zero_ties: Number of windows with a tie at zero, if those were left out.
    """

    windows: int
    tied: NDArray[np.intp]
    zero_ties: int


def find_ties(
    values: NDArray[Any],
    peaks: NDArray[Any],
    windows: Windows,
    scratch: Scratch,
    *,
    positive: bool,
) -> Ties:
    """All windows with a tied maximum.

    Args:
        values: (N, C, H, W) input of the maxpool, contiguous.
        peaks: (N, C, h, w) its output, contiguous.
        windows: Geometry.
        scratch: Memory.
        positive: The input has no negative element (it comes from a ReLU), and only ties with a
            positive value are wanted; those at zero are counted.
    """
    wanted = peaks
    zero_ties, expected = 0, peaks.size
    if positive:
        mask = np.greater(peaks, 0, out=scratch.get("positive", peaks.shape, np.bool_))
        expected = int(np.count_nonzero(mask))
        if expected < peaks.size:
            zero_ties = peaks.size - expected
            inside = cells_inside(windows)
            if bool((inside < 2).any()):  # a single element cannot tie
                zero_ties = int(np.count_nonzero(~mask & (inside > 1)))
            # Zero is compared with as -1, which no input is equal to.
            wanted = scratch.get("wanted", peaks.shape, peaks.dtype)
            np.subtract(peaks, np.logical_not(mask, out=mask), out=wanted)
    count = _attained(values, wanted, windows, scratch, expected)
    tied = np.zeros(0, dtype=np.intp) if count is None else np.flatnonzero(count)
    return Ties(peaks.size, tied, zero_ties)


def cells_inside(windows: Windows) -> NDArray[np.int64]:
    """(h, w) how many elements of the input each window holds."""
    total = np.zeros(windows.out, dtype=np.int64)
    for i, j in windows.offsets():
        total[windows.cut(0, i)[0], windows.cut(1, j)[0]] += 1
    return total


def _attained(
    values: NDArray[Any],
    wanted: NDArray[Any],
    windows: Windows,
    scratch: Scratch,
    expected: int,
) -> NDArray[np.bool_] | None:
    """Whether each window attains its wanted value more than once; None if no window does."""
    n, c, height, width = values.shape
    tiled = windows.kernel == windows.stride == (2, 2) and windows.padding == (0, 0)
    if tiled and windows.dilation == (1, 1) and height % 2 == 0 and width % 2 == 0:
        return _by_pairs(values, wanted, scratch, expected)
    count = np.zeros((n, c, *windows.out), dtype=np.uint8)
    total = 0
    for columns in _apart(windows, 1):
        spread = scratch.get("spread", (n, c, windows.out[0], width), values.dtype)
        spread.fill(np.nan)
        for j in columns:
            target, source = windows.cut(1, j)
            spread[..., source] = wanted[..., target]
        for i in range(windows.kernel[0]):
            target, source = windows.cut(0, i)
            here = (n, c, target.stop - target.start, width)
            equal = scratch.get("equal", here, np.bool_)
            np.equal(values[:, :, source], spread[:, :, target], out=equal)
            found = int(np.count_nonzero(equal))
            total += found
            if found:
                for j in columns:
                    x, source = windows.cut(1, j)
                    count[:, :, target, x] += equal[..., source].view(np.uint8)
    return None if total == expected else count > 1


def _by_pairs(
    values: NDArray[Any], wanted: NDArray[Any], scratch: Scratch, expected: int
) -> NDArray[np.bool_] | None:
    """Windows of 2x2 that tile the input: each maximum is spread over its own window."""
    n, c, height, width = values.shape
    rows, half = n * c * (height // 2), width // 2
    pairs = scratch.get("pairs", (rows, half, 2), values.dtype)
    if values.dtype == np.float32:
        double = pairs.view(np.uint64)[..., 0]
        double[...] = wanted.view(np.uint32).reshape(rows, half)
        np.multiply(double, np.uint64((1 << 32) + 1), out=double)
    else:
        pairs[...] = wanted.reshape(rows, half, 1)
    spread = scratch.get("spread", (2 * rows, width), values.dtype)
    twice = scratch.constant("twice", 2 * rows, lambda: np.arange(2 * rows, dtype=np.intp) // 2)
    np.take(pairs.reshape(rows, width), twice, axis=0, out=spread, mode="clip")
    equal = scratch.get("equal", values.shape, np.bool_)
    np.equal(values.reshape(-1), spread.reshape(-1), out=equal.reshape(-1))
    if int(np.count_nonzero(equal)) == expected:
        return None
    # Two counters of eight bits, one for each column: unique maxima leave 1 or 256.
    both = equal.view(np.int16).reshape(rows, 2, half)
    count = scratch.get("count", (rows, half), np.int16)
    np.add(both[:, 0], both[:, 1], out=count)
    several: NDArray[np.bool_] = np.not_equal(count & (count - 1), 0)
    several |= count == 2
    several |= count == 512
    return several


def _apart(windows: Windows, axis: int) -> list[list[int]]:
    """Kernel places in groups within which no two windows share a row or column of the input."""
    stride, dilation = windows.stride[axis], windows.dilation[axis]
    groups: list[list[int]] = []
    for k in range(windows.kernel[axis]):
        for group in groups:
            if all((dilation * (k - other)) % stride for other in group):
                group.append(k)
                break
        else:
            groups.append([k])
    return groups
