"""A dictionary whose keys are tensors, held weakly and told apart by identity.

`torch.utils.weak.WeakTensorKeyDictionary` does the same with a Python object for every lookup,
which the recorder, with several lookups for each operation, feels.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from clarke.torch_others import Weak

if TYPE_CHECKING:
    import torch

V = TypeVar("V")


class _Entry(Weak, Generic[V]):
    """A weak reference that knows its key and its value."""

    __slots__ = ("key", "value")
    key: int
    value: V


class TensorTable(Generic[V]):
    """Values by tensor; an entry goes when its tensor does, at the next `set` or `sweep`.

    Attributes:
        entries: By `id` of the tensor; whoever looks at them has to see to it that an entry's
            tensor is the one in question, as `get` does.
    """

    def __init__(self) -> None:
        self.entries: dict[int, _Entry[V]] = {}
        # Whose tensors are gone. A callback of Python's would swallow a KeyboardInterrupt.
        self._dead: deque[_Entry[V]] = deque()
        self._forget: Any = self._dead.append

    def get(self, tensor: torch.Tensor) -> V | None:
        """The value of a tensor, or None."""
        entry = self.entries.get(id(tensor))
        # The caller holds the tensor, so a reference that yields it needs none of the care that
        # torch takes with tensors which only C++ still holds; another tensor at the same address
        # fails the comparison.
        return entry.value if entry is not None and entry() is tensor else None

    def set(self, tensor: torch.Tensor, value: V) -> None:
        """Give a tensor a value."""
        dead, entries, key = self._dead, self.entries, id(tensor)
        while dead:
            gone = dead.pop()
            if entries.get(gone.key) is gone:
                del entries[gone.key]
        entry: Any = entries.get(key)
        if entry is None or entry() is not tensor:
            entry = entries[key] = _Entry(tensor, self._forget)
            entry.key = key
        entry.value = value

    def drop(self, tensor: torch.Tensor) -> None:
        """Forget a tensor's value."""
        if self.get(tensor) is not None:
            del self.entries[id(tensor)]

    def sweep(self) -> None:
        """Let go the values of tensors that are gone."""
        while self._dead:
            entry = self._dead.pop()
            if self.entries.get(entry.key) is entry:
                del self.entries[entry.key]

    def __len__(self) -> int:
        self.sweep()
        return len(self.entries)
