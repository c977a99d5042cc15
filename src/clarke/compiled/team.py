"""The threads on which torch runs its own loops."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from typing_extensions import Self

_SHARES_PER_THREAD = 4  # a thread that is held up leaves the rest of its part to the others


class Team:
    """Has a function called by all threads of the OpenMP runtime that torch brings along.

    After each of its loops torch's threads go on spinning for a while, in case of another; threads
    of another pool would share the processors with them. `GOMP_parallel` is what a compiler makes
    of ``#pragma omp parallel``, part of the runtime's public interface: no pool is started and no
    setting is touched that torch has not. Where torch comes without a libgomp of its own there is
    no team.
    """

    def __init__(self, parallel: Any) -> None:
        self._parallel = parallel

    @classmethod
    def of_torch(cls) -> Self | None:
        """The team, if torch has one."""
        only_if_loaded = getattr(os, "RTLD_NOLOAD", None)
        if only_if_loaded is None:
            return None
        for path in sorted((Path(torch.__file__).parent / "lib").glob("libgomp*.so*")):
            try:
                parallel = ctypes.CDLL(str(path), mode=only_if_loaded).GOMP_parallel
            except (OSError, AttributeError):
                continue
            parallel.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint)
            parallel.restype = None
            return cls(parallel)
        return None

    def shares(self, parts: int) -> int:
        """How many shares to make of so many parts; one if torch runs on one thread."""
        threads = torch.get_num_threads()
        return 1 if threads == 1 else min(parts, threads * _SHARES_PER_THREAD)

    def run(
        self, address: int, shares: int, numbers: Sequence[int], arrays: Sequence[NDArray[Any]]
    ) -> None:
        """Call a function of `clarke.compiled.shared` on every thread, and wait for all.

        Args:
            address: Of the function.
            shares: As many as there are.
            numbers: The function's numbers behind the first two.
            arrays: Its arrays, contiguous, of the very types that it expects.
        """
        self.run_at(address, shares, numbers, [array.ctypes.data for array in arrays])

    def run_at(
        self, address: int, shares: int, numbers: Sequence[int], pointers: Sequence[int]
    ) -> None:
        """The same for arrays that are given by their addresses; the caller holds them."""
        own = (ctypes.c_int64 * (2 + len(numbers)))(0, shares, *numbers)
        block = (ctypes.c_void_p * (1 + len(pointers)))(ctypes.addressof(own), *pointers)
        self._parallel(address, block, torch.get_num_threads(), 0)
