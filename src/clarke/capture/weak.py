"""A dictionary whose keys are tensors, held weakly and told apart by identity.

`torch.utils.weak.WeakTensorKeyDictionary` does the same with a Python object for every lookup,
which the recorder, with several lookups for each operation, feels.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    import torch

V = TypeVar("V")


class TensorTable(Generic[V]):
    """Values by tensor; an entry goes when its tensor does."""

    def __init__(self) -> None:
        self._entries: dict[int, tuple[weakref.ref[torch.Tensor], V]] = {}

    def get(self, tensor: torch.Tensor) -> V | None:
        """The value of a tensor, or None."""
        entry = self._entries.get(id(tensor))
        # The caller holds the tensor, so a reference that yields it needs none of the care that
        # torch takes with tensors which only C++ still holds; another tensor at the same address
        # fails the comparison.
        return entry[1] if entry is not None and entry[0]() is tensor else None

    def set(self, tensor: torch.Tensor, value: V) -> None:
        """Give a tensor a value."""
        entries, key = self._entries, id(tensor)

        def forget(reference: weakref.ref[torch.Tensor]) -> None:
            entry = entries.get(key)
            if entry is not None and entry[0] is reference:
                del entries[key]

        entries[key] = (weakref.ref(tensor, forget), value)

    def drop(self, tensor: torch.Tensor) -> None:
        """Forget a tensor's value."""
        if self.get(tensor) is not None:
            del self._entries[id(tensor)]

    def __len__(self) -> int:
        return len(self._entries)
