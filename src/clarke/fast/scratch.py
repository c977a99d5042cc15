"""Memory that is used again: a fresh large array costs more than what is computed into it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Scratch:
    """Arrays by purpose, kept from one step to the next. Contents are whatever was left there."""

    def __init__(self) -> None:
        self._blocks: dict[tuple[str, str], NDArray[Any]] = {}

    def get(self, purpose: str, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
        """An uninitialised array, valid until the same purpose is asked for again."""
        kind = np.dtype(dtype)
        size = math.prod(shape)
        key = (purpose, kind.str)
        block = self._blocks.get(key)
        if block is None or block.size < size:
            block = self._blocks[key] = np.empty(size, dtype=kind)
        return block[:size].reshape(shape)
