"""A dictionary whose keys are tensors, held weakly and told apart by identity.

`torch.utils.weak.WeakTensorKeyDictionary` does the same with a Python object for every lookup,
which the recorder, with several lookups for each operation, feels.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    import torch

V = TypeVar("V")


class _Entry(weakref.ref["torch.Tensor"], Generic[V]):
    """A weak reference that knows its key and its value."""

    __slots__ = ("key", "value")
    key: int
    value: V


class TensorTable(Generic[V]):
    """Values by tensor; an entry goes when its tensor does."""

    def __init__(self) -> None:
        entries: dict[int, _Entry[V]] = {}

        def forget(entry: Any) -> None:
            key = entry.key
            if entries.get(key) is entry:
                del entries[key]

        self._entries = entries
        self._forget = forget

    def get(self, tensor: torch.Tensor) -> V | None:
        """The value of a tensor, or None."""
        entry = self._entries.get(id(tensor))
        # The caller holds the tensor, so a reference that yields it needs none of the care that
        # torch takes with tensors which only C++ still holds; another tensor at the same address
        # fails the comparison.
        return entry.value if entry is not None and entry() is tensor else None

    def set(self, tensor: torch.Tensor, value: V) -> None:
        """Give a tensor a value."""
        entry: Any = _Entry(tensor, self._forget)
        entry.key, entry.value = id(tensor), value
        self._entries[entry.key] = entry

    def drop(self, tensor: torch.Tensor) -> None:
        """Forget a tensor's value."""
        if self.get(tensor) is not None:
            del self._entries[id(tensor)]

    def __len__(self) -> int:
        return len(self._entries)
