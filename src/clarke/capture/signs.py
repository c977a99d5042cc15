"""What is kept of a ReLU: where its input was zero, and its output, which autograd keeps anyway.

A copy of every pre-activation would be as large as all activations together. Their signs are all
that the pieces of a ReLU depend on, and those can be read off the output and the zeros.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from clarke.devices import array_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from clarke.compiled import Compiled

_SMALL = 1 << 12  # elements that are counted in one call, without a copy
_ARRAYS = (torch.float32, torch.float64)  # which NumPy compares quicker than torch
_CHUNK = 1 << 20  # elements; as large as stays in the cache


@dataclass(frozen=True, eq=False)
class Signs:
    """Signs of what a ReLU read.

    Attributes:
        output: What it returned.
        zeros: (K,) flat positions, in C order, at which the input was exactly zero.
    """

    output: torch.Tensor
    zeros: torch.Tensor

    def stand_in(self) -> torch.Tensor:
        """The input, with -1 in the place of every negative value."""
        with torch.no_grad():
            found = torch.where(self.output == 0, -1, self.output).to(self.output.dtype)
            found = found.contiguous()
            found.view(-1)[self.zeros] = 0
            return found


class StandIn(Mapping[int, torch.Tensor]):
    """``{0: signs.stand_in()}``, made when it is first asked for."""

    def __init__(self, signs: Signs) -> None:
        self._signs = signs
        self._made: torch.Tensor | None = None

    def __getitem__(self, position: int) -> torch.Tensor:
        if position != 0:
            raise KeyError(position)
        if self._made is None:
            self._made = self._signs.stand_in()
        return self._made

    def __iter__(self) -> Iterator[int]:
        return iter((0,))

    def __len__(self) -> int:
        return 1


def signs_tell(values: torch.Tensor) -> bool:
    """Whether the signs of a ReLU's input can be found quickly, in place of its values."""
    return (
        values.device.type == "cpu"
        and values.layout == torch.strided
        and values.is_floating_point()
        and type(values) in (torch.Tensor, torch.nn.Parameter)
    )


class ZeroFinder:
    """Finds exact zeros of large tensors; holds memory that is used again."""

    def __init__(self, compiled: Compiled | None = None) -> None:
        self._compiled = compiled
        self._scratch: dict[torch.dtype, torch.Tensor] = {}
        self._equal: NDArray[np.bool_] | None = None
        self._none = torch.zeros(0, dtype=torch.int64, device="cpu")

    def find(self, tensor: torch.Tensor) -> torch.Tensor:
        """(K,) flat positions, in C order, of the entries that are zero (of either sign).

        Whether there are any first, chunk by chunk; where is found out only where there is one.
        """
        size = tensor.numel()
        if size <= _SMALL and int(tensor.count_nonzero()) == size:
            return self._none
        values = tensor.detach()
        if values.is_contiguous():
            flat = values.view(-1)
        elif values.dim() == 4 and values.is_contiguous(memory_format=torch.channels_last):
            flat = values.permute(0, 2, 3, 1).view(-1)
        else:
            flat = values.reshape(-1)
        if self._compiled is not None and not self._compiled.may_have_zero(flat):
            return self._none
        if size <= _CHUNK:
            starts = [0] if self._has_zero(flat) else []
        else:
            every = range(0, size, _CHUNK)
            starts = [a for a in every if self._has_zero(flat[a : a + _CHUNK])]
        if not starts:
            return self._none
        if not values.is_contiguous():
            return (values.reshape(-1) == 0).nonzero().squeeze(1)
        found = [(flat[a : a + _CHUNK] == 0).nonzero().squeeze(1) + a for a in starts]
        return torch.cat(found)

    def _has_zero(self, chunk: torch.Tensor) -> bool:
        if chunk.dtype in _ARRAYS and not chunk.is_neg():
            if self._equal is None:
                self._equal = np.empty(_CHUNK, dtype=np.bool_)
            return bool(np.equal(array_of(chunk), 0, out=self._equal[: chunk.numel()]).any())
        scratch = self._scratch.get(chunk.dtype)
        if scratch is None:
            scratch = self._scratch[chunk.dtype] = torch.empty(_CHUNK, dtype=chunk.dtype)
        # Comparing makes torch take several times as long as the smallest magnitude.
        smallest = torch.abs(chunk, out=scratch[: chunk.numel()]).amin()
        return not float(smallest) > 0  # also where a NaN hides the others
