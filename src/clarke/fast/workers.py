"""Comparisons of large arrays on several threads: NumPy releases the interpreter meanwhile."""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch

from clarke.fast.scratch import Scratch
from clarke.fast.ties import Ties, find_ties

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from clarke.fast.geometry import Windows

    T = TypeVar("T")
    R = TypeVar("R")

_WORTH = 1 << 18  # elements; splitting fewer costs more than it saves


class Workers:
    """As many threads as torch uses, started when first needed, each with memory of its own."""

    def __init__(self) -> None:
        self._scratch: list[Scratch] = []
        self._pool: ThreadPoolExecutor | None = None
        self._size = 0

    def parts(self, elements: int, length: int) -> list[slice]:
        """Into which parts a batch of `length` samples is split."""
        count = min(torch.get_num_threads(), length) if elements >= _WORTH else 1
        edges = np.linspace(0, length, max(count, 1) + 1).astype(int).tolist()
        return [slice(a, b) for a, b in itertools.pairwise(edges)]

    def map(self, function: Callable[[T, Scratch], R], items: Sequence[T]) -> list[R]:
        """``function(item, scratch)`` for every item, each in a thread of its own."""
        while len(self._scratch) < len(items):
            self._scratch.append(Scratch())
        if len(items) == 1:
            return [function(items[0], self._scratch[0])]
        if self._pool is None or self._size < len(items):
            if self._pool is not None:
                self._pool.shutdown(wait=False)
            self._size = len(items)
            self._pool = ThreadPoolExecutor(self._size, thread_name_prefix="clarke")
        return list(self._pool.map(function, items, self._scratch[: len(items)]))


def find_ties_in_parts(
    values: NDArray[Any],
    peaks: NDArray[Any],
    windows: Windows,
    workers: Workers,
    *,
    positive: bool,
) -> Ties:
    """`find_ties`, with the batch split among the workers."""

    def one(part: slice, scratch: Scratch) -> Ties:
        return find_ties(values[part], peaks[part], windows, scratch, positive=positive)

    parts = workers.parts(values.size, len(values))
    found = workers.map(one, parts)
    size = peaks[0].size if len(peaks) else 0
    return Ties(
        windows=sum(t.windows for t in found),
        tied=np.concatenate(
            [t.tied + part.start * size for t, part in zip(found, parts, strict=True)]
        ),
        zero_ties=sum(t.zero_ties for t in found),
    )


def zeros(values: torch.Tensor, workers: Workers) -> NDArray[np.intp]:
    """(K,) flat positions of the entries that are exactly zero."""
    flat = values.detach().contiguous().reshape(-1)
    if flat.device.type != "cpu" or flat.dtype not in (torch.float32, torch.float64):
        return np.asarray((flat == 0).nonzero().squeeze(1).cpu().numpy(), dtype=np.intp)
    array = flat.numpy()

    def one(part: slice, scratch: Scratch) -> Any:
        own = array[part]
        equal = np.equal(own, 0, out=scratch.get("zero", own.shape, np.bool_))
        if not np.count_nonzero(equal):
            return np.zeros(0, dtype=np.intp)
        return np.flatnonzero(equal) + part.start

    return np.concatenate(workers.map(one, workers.parts(array.size, array.size)))
