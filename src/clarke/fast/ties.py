"""Maxpool windows with ties, found in whole-array passes.

Comparing each of the k*k strided slices of a window with the output is slow on a CPU: strided
loads are not vectorised. Instead the output is spread out once, so that column x of it holds the
maximum of the window that x belongs to, and every row of the input is compared with it at full
width: one contiguous pass for each kernel row.
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
            zero_ties = _several(windows, ~mask if _has_single_cells(windows) else None)
            zero_ties = peaks.size - expected if zero_ties < 0 else zero_ties
            # Zero is compared with as -1, which no input is equal to.
            wanted = scratch.get("wanted", peaks.shape, peaks.dtype)
            np.multiply(mask, 1, out=wanted)
            np.subtract(wanted, 1, out=wanted)
            np.add(wanted, peaks, out=wanted)
    count = _attained(values, wanted, windows, scratch, expected)
    tied = np.zeros(0, dtype=np.intp) if count is None else np.flatnonzero(count)
    return Ties(peaks.size, tied, zero_ties)


def _has_single_cells(windows: Windows) -> bool:
    """Whether some window holds a single element of the input, which cannot tie."""
    return bool((cells_inside(windows) < 2).any())


def cells_inside(windows: Windows) -> NDArray[np.int64]:
    """(h, w) how many elements of the input each window holds."""
    total = np.zeros(windows.out, dtype=np.int64)
    for i, j in windows.offsets():
        total[windows.cut(0, i)[0], windows.cut(1, j)[0]] += 1
    return total


def _several(windows: Windows, zero: NDArray[np.bool_] | None) -> int:
    if zero is None:
        return -1
    return int(np.count_nonzero(zero & (cells_inside(windows) > 1)))


def _attained(
    values: NDArray[Any],
    wanted: NDArray[Any],
    windows: Windows,
    scratch: Scratch,
    expected: int,
) -> NDArray[np.bool_] | None:
    """Whether each window attains its wanted value more than once; None if no window does."""
    if windows.dilation[1] == 1 and windows.stride[1] == windows.kernel[1] == 2:
        if windows.padding == (0, 0) and values.shape[3] % 2 == 0:
            return _by_pairs(values, wanted, windows, scratch, expected)
    return _by_columns(values, wanted, windows, scratch, expected)


def _by_pairs(
    values: NDArray[Any],
    wanted: NDArray[Any],
    windows: Windows,
    scratch: Scratch,
    expected: int,
) -> NDArray[np.bool_] | None:
    """Kernel and stride 2 along rows: each maximum stands twice beside itself."""
    n, c, _, width = values.shape
    rows, half = windows.out[0], width // 2
    spread = scratch.get("spread", (n, c, rows, half, 2), values.dtype)
    if values.dtype == np.float32:
        double = spread.view(np.uint64)[..., 0]
        double[..., : windows.out[1]] = wanted.view(np.uint32)
        np.multiply(double, np.uint64((1 << 32) + 1), out=double)
    else:
        spread[..., : windows.out[1], :] = wanted[..., None]
    flat = spread.reshape(n, c, rows, width)
    total, parts = 0, []
    for i in range(windows.kernel[0]):
        target, source = windows.cut(0, i)
        equal = scratch.get(f"equal{i}", (n, c, rows, width), np.bool_)
        if target != slice(0, rows):
            equal[:] = False
        np.equal(values[:, :, source], flat[:, :, target], out=equal[:, :, target])
        total += int(np.count_nonzero(equal))
        parts.append(equal.view(np.int16))
    if total == expected:
        return None
    count = parts[0]
    for part in parts[1:]:
        count = np.add(count, part, out=count)
    # Two counters of eight bits: unique maxima leave 1 or 256.
    return np.not_equal(count & (count - 1), 0) | (count == 2) | (count == 512)


def _by_columns(
    values: NDArray[Any],
    wanted: NDArray[Any],
    windows: Windows,
    scratch: Scratch,
    expected: int,
) -> NDArray[np.bool_] | None:
    """Any geometry: kernel columns that fall on different columns share one comparison."""
    n, c, _, width = values.shape
    rows = windows.out[0]
    count = np.zeros((n, c, *windows.out), dtype=np.uint8)
    total = 0
    for block in _column_blocks(windows):
        spread = scratch.get("spread", (n, c, rows, width), values.dtype)
        spread.fill(np.nan)
        for j in block:
            target, source = windows.cut(1, j)
            spread[..., source] = wanted[..., target]
        for i in range(windows.kernel[0]):
            target, source = windows.cut(0, i)
            here = target.stop - target.start
            equal = scratch.get("equal", (n, c, here, width), np.bool_)
            np.equal(values[:, :, source], spread[:, :, target], out=equal)
            found = int(np.count_nonzero(equal))
            total += found
            if found:
                for j in block:
                    cells, columns = windows.cut(1, j)
                    count[:, :, target, cells] += equal[..., columns].view(np.uint8)
    return None if total == expected else count > 1


def _column_blocks(windows: Windows) -> list[list[int]]:
    """Kernel columns in groups within which no two windows share an input column."""
    kernel, stride, dilation = windows.kernel[1], windows.stride[1], windows.dilation[1]
    blocks: list[list[int]] = []
    for j in range(kernel):
        for block in blocks:
            if all((dilation * (j - other)) % stride for other in block):
                block.append(j)
                break
        else:
            blocks.append([j])
    return blocks
