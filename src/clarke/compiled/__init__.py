"""Loops compiled by numba, where that is installed (``clarke[fast]``).

They find what whole-array passes elsewhere find, reading every value once. Without numba, and for
arrays that no loop is made for, the passes do it.
"""

from __future__ import annotations

import ctypes
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from clarke.compiled.background import Compiling
from clarke.compiled.coded import MIX_FACTORS, MIX_SHIFTS
from clarke.compiled.loops import TiedLoop
from clarke.compiled.team import Team
from clarke.devices import array_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

    from numpy.typing import NDArray

__all__ = ["MIX_FACTORS", "MIX_SHIFTS", "Compiled", "Marks", "Tied"]

Pair = tuple[int, int]
Geometry = tuple[Pair, Pair, Pair, Pair]  # kernel, stride, padding, dilation

# From so many elements on the loops are quicker; from so many, loading numba is worth it.
_SMALL = 1 << 12
_LARGE = 1 << 18
# So many elements in large arrays take longer to go through in passes than compiling takes.
_PAYS = 1 << 29
# From so many on, torch's other threads are asked to help.
_SHARED = 1 << 19
_FLOATS = (torch.float32, torch.float64)


@dataclass(frozen=True, eq=False)
class Marks:
    """Some of the windows of a maxpool.

    Attributes:
        marked: (P, h, w) whether a window is one of them; unset in all rows without any.
        rows: (P, h) whether some window of the row is one of them.
    """

    marked: NDArray[np.bool_]
    rows: NDArray[np.bool_]

    def images(self, count: int) -> NDArray[np.intp]:
        """(K,) which of so many images some of them are in."""
        return np.flatnonzero(self.rows.reshape(count, -1).any(axis=1))

    def places(self) -> NDArray[np.intp]:
        """(K,) their flat positions, in ascending order."""
        width = self.marked.shape[2]
        rows = np.flatnonzero(self.rows)
        if rows.size == 0:
            return rows
        marked = self.marked.reshape(-1, width)[rows]
        skipped = (rows - np.arange(rows.size)) * width  # windows in rows before that have none
        shifts: NDArray[np.intp] = np.repeat(skipped, np.count_nonzero(marked, axis=1))
        return np.flatnonzero(marked) + shifts


@dataclass(frozen=True, eq=False)
class Tied:
    """Windows whose maximum is attained more than once.

    Attributes:
        found: Those that were asked for.
        count: How many there are in all.
        low: How many windows have a maximum that is not above zero.
    """

    found: Marks
    count: int
    low: int


class Compiled:
    """The loops of this module, compiled when first asked for.

    On as many threads as torch uses, and on torch's own (`clarke.compiled.team.Team`).

    Args:
        always: Take arrays of any size, not only those that are worth it.
        patient: Compile on another thread, once so many elements have come that it pays; do
            without until then.
    """

    def __init__(self, *, always: bool = False, patient: bool = False) -> None:
        self._always = always
        self._patient = patient
        self._functions: ModuleType | None = None
        self._team: Team | None = None
        self._tried = False
        self._seen = 0  # elements in large arrays
        self._compiling: Compiling | None = None

    def can_take(self, elements: int) -> bool:
        """Whether there are compiled loops, and so many elements are worth them."""
        if not self._tried and (self._always or elements >= _LARGE):
            self._try(elements)
        return self._functions is not None and (self._always or elements >= _SMALL)

    def _try(self, elements: int) -> None:
        self._seen += elements
        # What this process has compiled before is there at once.
        if self._patient and f"{__name__}.shared" not in sys.modules and self._compiling is None:
            if self._seen < _PAYS:
                return
            self._compiling = Compiling(_compile)
        if self._compiling is not None and not self._compiling.is_done():
            return
        self._tried = True
        self._functions = _compile() if self._compiling is None else self._compiling.result()
        self._team = None if self._functions is None else Team.of_torch()

    def has_zero(self, values: NDArray[Any]) -> bool:
        """Whether some of (K,) contiguous float32 or float64 numbers is zero, of either sign."""
        functions = self._ready()
        if values.dtype != np.float32:
            return bool(functions.has_zero(values.view(np.uint64)))
        bits = values.view(np.uint32)
        shares = self._shares(bits.size, bits.size)
        if shares == 1:
            return bool(functions.has_zero(bits))
        return self._some_share_has_zero(shares, bits.ctypes.data, bits.size)

    def may_have_zero(self, flat: torch.Tensor) -> bool:
        """Whether some entry of (K,) contiguous numbers may be zero; True where no loop can tell.

        This is asked of every ReLU: on the usual path no array is made of the tensor.
        """
        size = flat.numel()
        # NumPy does not know the imaginary part of a conjugate.
        if flat.dtype not in _FLOATS or flat.is_neg() or not self.can_take(size):
            return True
        shares = self._shares(size, size)
        if shares == 1 or flat.dtype != torch.float32:
            return self.has_zero(array_of(flat))
        return self._some_share_has_zero(shares, flat.data_ptr(), size)

    def _some_share_has_zero(self, shares: int, address: int, size: int) -> bool:
        found = (ctypes.c_bool * shares)()
        function = self._ready().zeros_in_shares.address
        self._ready_team().run_at(function, shares, (size,), (address, ctypes.addressof(found)))
        return any(found)

    def tied(
        self,
        values: NDArray[Any],
        peaks: NDArray[Any],
        geometry: Geometry,
        codes: NDArray[np.uint64] | None = None,
    ) -> Tied | None:
        """Which windows attain a maximum above zero more than once.

        Args:
            values: (N, C, H, W) input of a maxpool, contiguous, none negative.
            peaks: (N, C, h, w) its output, contiguous.
            geometry: Kernel, stride, padding and dilation.
            codes: (N, H, W) of the elements, in all channels; ties are then marked only where
                elements of different codes attain the maximum.

        Returns:
            None if there is no loop for this geometry or dtype.

        Raises:
            ValueError: The shapes do not belong together.
        """
        functions = self._ready()
        (height, width), (h, w) = values.shape[2:], peaks.shape[2:]
        if values.shape[:2] != peaks.shape[:2]:
            raise ValueError(f"Input {values.shape} and output {peaks.shape} of no maxpool.")
        if codes is not None and codes.shape != (len(values), height, width):
            raise ValueError(f"Codes {codes.shape} of another input than {values.shape}.")
        halves = (2 * h, 2 * w) == (height, width)
        kernel, stride, padding, dilation = geometry
        apart = stride == (2, 2) and dilation == (1, 1) and sys.byteorder == "little"
        twos = (kernel, padding) == ((2, 2), (0, 0))
        threes = (kernel, padding) == ((3, 3), (1, 1))
        if not (halves and apart and (twos or threes) and values.dtype == np.float32):
            return None
        images, channels = peaks.shape[:2]
        planes = images * channels
        found = Marks(np.empty((planes, h, w), np.bool_), np.empty((planes, h), np.bool_))
        mask = np.ones((images, h, w), dtype=np.uint64)
        if codes is not None:
            codes = np.ascontiguousarray(codes)
            functions.mixed(codes, np.array(geometry).reshape(-1), mask)
        shares = self._shares(values.size, planes)
        each = planes // shares if planes % shares == 0 else 1
        loop = int(TiedLoop.for_windows(kernel[0], h, w, each))
        if shares == 1:
            pairs = values.view(np.uint64).reshape(planes, height, w)
            singles = values.view(np.uint32).reshape(planes, height, width)
            bits = peaks.view(np.uint32).reshape(planes, h, w)
            marks = (found.marked, found.rows)
            tied, low = functions.find_tied(loop, pairs, singles, bits, 0, channels, mask, *marks)
            if codes is not None:
                found = self.differing(found, values, peaks, codes, np.arange(images), geometry)
            return Tied(found, int(tied), int(low))
        counts = np.empty((2, shares), dtype=np.uint64)
        arrays = [values, peaks, mask, found.marked, found.rows, counts]
        if codes is not None:
            arrays += [codes, np.arange(images), np.array(geometry).reshape(-1)]
        numbers = (planes, h, w, channels, images, 0 if codes is None else len(codes), loop)
        self._share(functions.tied_in_shares, shares, numbers, arrays)
        tied, low = counts.sum(axis=1)
        return Tied(found, int(tied), int(low))

    def differing(
        self,
        marks: Marks,
        values: NDArray[Any],
        peaks: NDArray[Any],
        codes: NDArray[np.uint64],
        which: NDArray[np.intp],
        geometry: Geometry,
    ) -> Marks:
        """The marked windows in which elements of different codes attain the maximum.

        Args:
            marks: Windows with a maximum above zero.
            values: (N, C, H, W) float32 input of a maxpool, contiguous.
            peaks: (N, C, h, w) its output, contiguous.
            codes: (B, H, W) codes of some of the images.
            which: (N,) which of the codes are an image's; anything where none of its windows is
                marked. Other shapes raise ValueError.
            geometry: Kernel, stride, padding and dilation.
        """
        found = Marks(marks.marked.copy(), marks.rows.copy())
        planes = values.view(np.uint32).reshape(-1, *values.shape[2:])
        bits = peaks.view(np.uint32).reshape(-1, *peaks.shape[2:])
        (images, channels), numbers = peaks.shape[:2], np.array(geometry).reshape(-1)
        codes, which = np.ascontiguousarray(codes), np.ascontiguousarray(which)
        if which.shape != (images,) or codes.shape[1:] != values.shape[2:]:
            raise ValueError(f"Codes {codes.shape} of another input than {values.shape}.")
        rest = (codes, which, numbers, found.marked, found.rows)
        shares = self._shares(values.size, len(planes))
        if shares == 1:
            self._ready().keep_differing(planes, bits, 0, channels, *rest)
        else:
            sizes = (*bits.shape, channels, images, *codes.shape)
            arrays = (planes, bits, *rest)
            self._share(self._ready().differing_in_shares, shares, sizes, arrays)
        return found

    def code_pixels(
        self, image: NDArray[Any], multipliers: NDArray[np.uint64]
    ) -> NDArray[np.uint64]:
        """What `clarke.fast.codes.Coder.pixels` computes, of contiguous float32 or float64."""
        functions = self._ready()
        narrow = image.dtype == np.float32
        bits = image.view(np.uint32 if narrow else np.uint64).reshape(*image.shape[:2], -1)
        codes = np.empty((image.shape[0], *image.shape[2:]), dtype=np.uint64)
        arrays = (bits, multipliers, codes.reshape(len(codes), -1))
        shares = self._shares(image.size, len(image))
        if shares == 1 or not narrow:
            functions.code_pixels(*arrays)
        else:
            self._share(functions.pixels_in_shares, shares, bits.shape, arrays)
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
        functions = self._ready()
        found = np.empty((len(codes), *out), dtype=np.uint64)
        given = np.ascontiguousarray(codes)
        arrays = (given, across, down, np.array(geometry).reshape(-1), found)
        shares = self._shares(codes.size * len(across), len(codes))
        if shares == 1:
            functions.code_fields(*arrays)
        else:
            numbers = (*given.shape, *out, len(down), len(across))
            self._share(functions.fields_in_shares, shares, numbers, arrays)
        return found

    def _shares(self, elements: int, parts: int) -> int:
        """How many shares to make of a loop with so many parts; one to run it as a whole."""
        if self._team is None or not (self._always or elements >= _SHARED):
            return 1
        return self._team.shares(parts)

    def _share(
        self, function: Any, shares: int, numbers: Sequence[int], arrays: Sequence[NDArray[Any]]
    ) -> None:
        self._ready_team().run(function.address, shares, numbers, arrays)

    def _ready_team(self) -> Team:
        if self._team is None:
            raise RuntimeError("Ask `_shares` first: there is nobody to share with.")
        return self._team

    def _ready(self) -> ModuleType:
        if self._functions is None:
            raise RuntimeError("Ask `can_take` first: there are no compiled loops.")
        return self._functions


def _compile() -> ModuleType | None:
    try:
        from numba.core import config

        if getattr(config, "DISABLE_JIT", False):
            return None
        from clarke.compiled import shared
    except Exception:  # noqa: BLE001 - no numba, one that refuses this numpy, or nowhere to cache
        return None
    return shared
