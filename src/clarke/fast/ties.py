"""Maxpool windows with ties, found in whole-array passes.

Comparing each of the k*k strided slices of a window with the output is slow on a CPU: strided
loads are not vectorised. Instead the output is spread out, so that element (y, x) of it holds the
maximum of the window that (y, x) belongs to, and compared with the input in contiguous passes: one
where windows of 2x2 tile the input, four (each shifted) for windows of 3x3 two apart, several for
any others. A few images at a time, so that what is in between stays in the cache.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Callable

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


_CHUNK = 1 << 19  # elements of the input looked at together


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
    method = _method(values, windows)
    step = max(1, _CHUNK // max(values[:1].size, 1))
    alone = bool((cells_inside(windows) < 2).any()) if positive else False
    tied: list[NDArray[np.intp]] = [np.zeros(0, dtype=np.intp)]
    zero_ties = 0
    for start in range(0, len(values), step):
        own = slice(start, start + step)
        some, zeros = peaks[own], 0
        if positive:
            above = np.greater(some, 0, out=scratch.get("above", some.shape, np.bool_))
            zeros = some.size - int(np.count_nonzero(above))
            zero_ties += zeros
            if alone:  # a single element cannot tie
                zero_ties -= int(np.count_nonzero(~above & (cells_inside(windows) < 2)))
        several = method(values[own], some, windows, scratch, zeros)
        if several is not None:
            if zeros:
                np.logical_and(several, above.reshape(several.shape), out=several)
            tied.append(np.flatnonzero(several) + start * peaks[:1].size)
    return Ties(peaks.size, np.concatenate(tied), zero_ties)


def cells_inside(windows: Windows) -> NDArray[np.int64]:
    """(h, w) how many elements of the input each window holds."""
    total = np.zeros(windows.out, dtype=np.int64)
    for i, j in windows.offsets():
        total[windows.cut(0, i)[0], windows.cut(1, j)[0]] += 1
    return total


def _method(values: NDArray[Any], windows: Windows) -> Callable[..., NDArray[np.bool_] | None]:
    """Which of the ways to count fits the geometry."""
    height, width = values.shape[2:]
    two_apart = windows.stride == (2, 2) and windows.dilation == (1, 1)
    if not two_apart or height % 2 or width % 2:
        return _anywhere
    halves = windows.out == (height // 2, width // 2)
    if halves and windows.kernel == (2, 2) and windows.padding == (0, 0):
        return _tiles
    if halves and windows.kernel == (3, 3) and windows.padding == (1, 1):
        return _threes
    return _anywhere


def _anywhere(
    values: NDArray[Any],
    peaks: NDArray[Any],
    windows: Windows,
    scratch: Scratch,
    _zeros: int,
) -> NDArray[np.bool_]:
    """(N, C, h, w) whether each window attains its maximum more than once; any geometry."""
    n, c, _, width = values.shape
    count = np.zeros((n, c, *windows.out), dtype=np.uint8)
    for columns in _apart(windows, 1):
        spread = scratch.get("spread", (n, c, windows.out[0], width), values.dtype)
        spread.fill(np.nan)
        for j in columns:
            target, source = windows.cut(1, j)
            spread[..., source] = peaks[..., target]
        for i in range(windows.kernel[0]):
            target, source = windows.cut(0, i)
            here = (n, c, target.stop - target.start, width)
            equal = scratch.get("equal", here, np.bool_)
            np.equal(values[:, :, source], spread[:, :, target], out=equal)
            if equal.any():
                for j in columns:
                    x, source = windows.cut(1, j)
                    count[:, :, target, x] += equal[..., source].view(np.uint8)
    return count > 1


def _tiles(
    values: NDArray[Any],
    peaks: NDArray[Any],
    _windows: Windows,
    scratch: Scratch,
    zeros: int,
) -> NDArray[np.bool_] | None:
    """The same for windows of 2x2 that tile the input; (rows, w).

    None if there are no ties but those of the `zeros` windows that hold nothing but zeros.
    """
    n, c, height, width = values.shape
    rows, half = n * c * (height // 2), width // 2
    spread = _spread(peaks, scratch)
    equal = scratch.get("equal", values.shape, np.bool_)
    np.equal(values.reshape(-1), spread, out=equal.reshape(-1))
    if int(np.count_nonzero(equal)) == peaks.size + 3 * zeros:
        return None
    # Two counters of eight bits, one for each column, then their sum in the upper one.
    both = torch.from_numpy(equal.view(np.int16).reshape(rows, 2, half))
    count = scratch.get("count", (rows, half), np.uint16)
    # Short rows: NumPy's loop over them costs three times what torch's does.
    torch.add(both[:, 0], both[:, 1], out=torch.from_numpy(count.view(np.int16)))
    np.multiply(count, 257, out=count)
    return _several(count, scratch)


def _threes(
    values: NDArray[Any],
    peaks: NDArray[Any],
    _windows: Windows,
    scratch: Scratch,
    _zeros: int,
) -> NDArray[np.bool_]:
    """The same for windows of 3x3, two apart, with a border of one: (rows, w).

    With each maximum spread over its window's lower right 2x2 elements, the element to the left
    belongs to the maximum found one place on, the one above to that found one row on.
    """
    n, c, height, width = values.shape
    rows, size = n * c * (height // 2), values.size
    spread, flat = _spread(peaks, scratch), values.reshape(-1)

    def columns(name: str, ahead: int) -> NDArray[np.uint8]:
        """How often the maximum `ahead` places on is attained.

        At even columns: by the element itself and the one to its left; at odd ones: by itself.
        """
        found = scratch.get(name, (size,), np.bool_)
        found[size - ahead :] = False
        np.equal(flat[: size - ahead], spread[ahead:], out=found[: size - ahead])
        left = scratch.get("left", (size,), np.bool_)
        left[size - ahead - 1 :] = False
        np.equal(flat[: size - ahead - 1], spread[ahead + 1 :], out=left[: size - ahead - 1])
        left.reshape(-1, width)[:, -1] = False  # what follows is another row
        np.bitwise_and(left.view(np.uint16), 0xFF00, out=left.view(np.uint16))  # odd columns
        total: NDArray[np.uint8] = found.view(np.uint8)
        np.add(total[1:], left.view(np.uint8)[:-1], out=total[1:])
        return total

    below = columns("below", width)
    below.reshape(n * c, -1)[:, -width:] = 0  # the last row: what follows is another plane
    total = columns("own", 0)
    # In even rows: the row itself, the next one, and the one before.
    both = scratch.get("both", (size,), np.uint8)
    np.add(total[:-width], total[width:], out=both[:-width])
    np.add(both[width:], below[:-width], out=both[width:])
    even = scratch.constant("even", rows, lambda: np.arange(rows, dtype=np.intp) * 2)
    kept = scratch.get("kept", (rows, width), np.uint8)
    np.take(both.reshape(2 * rows, width), even, axis=0, out=kept, mode="clip")
    count = kept.view(np.uint16)
    np.multiply(count, 257, out=count)
    return _several(count, scratch)


def _several(count: NDArray[np.uint16], scratch: Scratch) -> NDArray[np.bool_]:
    """Whether the sum of two counters, in the upper eight bits, is more than one."""
    found: NDArray[np.bool_] = scratch.get("several", count.shape, np.bool_)
    np.greater_equal(count, 512, out=found)
    return found


def _spread(peaks: NDArray[Any], scratch: Scratch) -> NDArray[Any]:
    """Flat, four times as large: each maximum at the four places of a 2x2 tile."""
    n, c, height, half = peaks.shape
    rows, width = n * c * height, 2 * half
    pairs = scratch.get("pairs", (rows, half, 2), peaks.dtype)
    if peaks.dtype == np.float32:
        double = pairs.view(np.uint64)[..., 0]
        double[...] = peaks.view(np.uint32).reshape(rows, half)
        np.multiply(double, np.uint64((1 << 32) + 1), out=double)
    else:
        pairs[...] = peaks.reshape(rows, half, 1)
    spread = scratch.get("spread", (2 * rows, width), peaks.dtype)
    twice = scratch.constant("twice", 2 * rows, lambda: np.arange(2 * rows, dtype=np.intp) // 2)
    np.take(pairs.reshape(rows, width), twice, axis=0, out=spread, mode="clip")
    return spread.reshape(-1)


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
