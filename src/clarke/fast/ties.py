"""Maxpool windows with ties, found in whole-array passes.

A window is tied if its second largest element equals its maximum, which the program has computed.
The two largest elements of a union are found from those of its parts by three comparisons, so
windows are folded along columns, then along rows. Elementwise maxima and minima are the quickest
there is on a CPU: both vectorised and shared among threads, unlike comparisons and counts. A few
images at a time, so that what is in between stays in the cache.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from clarke.compiled import Compiled, Marks
    from clarke.fast.geometry import Windows
    from clarke.fast.scratch import Scratch


@dataclass(frozen=True, eq=False)
class Ties:
    """Windows whose maximum is attained more than once.

    Attributes:
        windows: Number of windows.
        count: Number of tied ones, without those at zero if they were left out.
        zero_ties: Number of windows with a tie at zero, if those were left out.
        found: Those looked for: flat positions (n, c, y, x) in the output, (K,), in ascending
            order; or marks, if compiled loops found them. Tied windows whose largest elements are
            known to have one code may be missing.
    """

    windows: int
    count: int
    zero_ties: int
    found: NDArray[np.intp] | Marks

    @property
    def marks(self) -> Marks | None:
        """What was found, if compiled loops found it."""
        return None if isinstance(self.found, np.ndarray) else self.found

    @cached_property
    def tied(self) -> NDArray[np.intp]:
        """(K,) flat positions of what was found. Where there are many, listing them takes long."""
        return self.found if isinstance(self.found, np.ndarray) else self.found.places()

    def images(self, count: int) -> NDArray[np.intp]:
        """(K,) which of the batch's images they are in, of so many."""
        if isinstance(self.found, np.ndarray):
            size = self.windows // max(count, 1)
            # They are in order: those of an image follow each other.
            return np.flatnonzero(np.diff(np.searchsorted(self.found, np.arange(count + 1) * size)))
        return self.found.images(count)


_CHUNK = 1 << 20  # elements of the input looked at together
_SMALL = 1 << 17  # of fewer, to compare every element with its maxima takes less than to fold them


def find_ties(
    values: NDArray[Any],
    peaks: NDArray[Any],
    windows: Windows,
    scratch: Scratch,
    compiled: Compiled | None = None,
    codes: NDArray[np.uint64] | None = None,
    *,
    positive: bool,
) -> Ties:
    """All windows with a tied maximum.

    Args:
        values: (N, C, H, W) input of the maxpool, contiguous.
        peaks: (N, C, h, w) its output, contiguous.
        windows: Geometry.
        scratch: Memory.
        compiled: Compiled loops, to be used where they fit.
        codes: (N, H, W) of the elements, in all channels. Compiled loops only count ties between
            elements of one code.
        positive: The input has no negative element (it comes from a ReLU), and only ties with a
            positive value are wanted; those at zero are counted.
    """
    if positive and compiled is not None and compiled.can_take(values.size):
        done = compiled.tied(values, peaks, windows.geometry, codes)
        if done is not None:
            return Ties(peaks.size, done.count, done.low, done.found)
    alone = cells_inside(windows) < 2  # a single element cannot tie
    some_alone = bool(alone.any())
    above = np.greater(peaks, 0) if positive and values.size <= _SMALL else None
    if above is not None and _each_attained_once(values, peaks, above, windows):
        low = np.count_nonzero(~(above | alone) if some_alone else ~above)
        return Ties(peaks.size, 0, int(low), np.zeros(0, dtype=np.intp))
    step = max(1, _CHUNK // max(values[:1].size, 1))
    tied: list[NDArray[np.intp]] = [np.zeros(0, dtype=np.intp)]
    zero_ties = 0
    for start in range(0, len(values), step):
        some = peaks[start : start + step]
        found = scratch.get("tied", some.shape, np.bool_)
        second = _second_largest(torch.from_numpy(values[start : start + step]), windows, scratch)
        np.equal(second.reshape(some.shape).numpy(), some, out=found)
        if positive:
            above = np.greater(some, 0, out=scratch.get("above", some.shape, np.bool_))
            np.logical_and(found, above, out=found)
            if some_alone:
                np.logical_or(above, alone, out=above)
            zero_ties += some.size - int(np.count_nonzero(above))
        if some_alone:
            np.logical_and(found, ~alone, out=found)
        tied.append(np.flatnonzero(found) + start * peaks[:1].size)
    every = np.concatenate(tied)
    return Ties(peaks.size, every.size, zero_ties, every)


def _each_attained_once(
    values: NDArray[Any], peaks: NDArray[Any], which: NDArray[np.bool_], windows: Windows
) -> bool:
    """Whether exactly one element of each of these windows, none of them NaN, is its maximum."""
    wanted = np.where(which, peaks, np.nan)
    found = 0
    for i, j in windows.offsets():
        (rows, from_rows), (columns, from_columns) = windows.cut(0, i), windows.cut(1, j)
        equal = values[:, :, from_rows, from_columns] == wanted[:, :, rows, columns]
        found += int(np.count_nonzero(equal))
    return found == int(np.count_nonzero(which))


def cells_inside(windows: Windows) -> NDArray[np.int64]:
    """(h, w) how many elements of the input each window holds."""
    rows, columns = (np.zeros(n, dtype=np.int64) for n in windows.out)
    for axis, inside in enumerate((rows, columns)):
        for k in range(windows.kernel[axis]):
            inside[windows.cut(axis, k)[0]] += 1
    return np.outer(rows, columns)


def _second_largest(values: torch.Tensor, windows: Windows, scratch: Scratch) -> torch.Tensor:
    """(N*C, h, w) the second largest element of each window, with multiplicity; -inf if none."""
    planes = values.reshape(-1, *values.shape[2:])
    high, low = _two_largest(planes, None, windows, 0, scratch)
    return _two_largest(high, low, windows, 1, scratch, last=True)[1]


def _two_largest(
    high: torch.Tensor,
    low: torch.Tensor | None,
    windows: Windows,
    axis: int,
    scratch: Scratch,
    *,
    last: bool = False,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The two largest elements of each window along one axis.

    Args:
        high: (planes, rows, columns) elements, or the largest of some set of elements each.
        low: The second largest of those sets; None if they have one element.
        windows: Geometry.
        axis: 0 for columns, 1 for rows.
        scratch: Memory, of which the results are made.
        last: Only the second largest is wanted.
    """
    count = windows.out[axis]
    shape = (len(high), *(count if i == axis else high.shape[i + 1] for i in range(2)))

    def memory(name: str) -> torch.Tensor:
        kind = np.float64 if high.dtype == torch.float64 else np.float32
        return torch.from_numpy(scratch.get(f"{name} {axis}", shape, kind))

    def at(tensor: torch.Tensor, places: slice) -> torch.Tensor:
        return tensor[:, places] if axis == 0 else tensor[:, :, places]

    first, second, spare = memory("first"), memory("second"), memory("spare")
    cuts = [windows.cut(axis, k) for k in range(windows.kernel[axis])]
    cuts.sort(key=lambda cut: cut[0] != slice(0, count))  # what every window has comes first
    if len(cuts) > 1 and cuts[1][0] == slice(0, count):
        (_, one), (_, other), *cuts = cuts
        torch.minimum(at(high, one), at(high, other), out=second)
        if low is not None:
            torch.maximum(at(low, one), at(low, other), out=spare)
            torch.maximum(second, spare, out=second)
        if cuts or not last:
            torch.maximum(at(high, one), at(high, other), out=first)
    else:
        first.fill_(-torch.inf)
        second.fill_(-torch.inf)
    for target, source in cuts:
        part, own = at(high, source), at(second, target)
        torch.maximum(own, torch.minimum(at(first, target), part, out=at(spare, target)), out=own)
        if low is not None:
            torch.maximum(own, at(low, source), out=own)
        torch.maximum(at(first, target), part, out=at(first, target))
    return first, second
