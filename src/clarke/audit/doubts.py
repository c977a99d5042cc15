"""Gradients in ``.grad`` of which not all is known: they matter once somebody uses them.

An actor's backward pass adds to the ``.grad`` of the critic that it goes through, which the
critic's next step clears: what that sum was need not be known. So nothing is said of it until an
optimizer takes it, the parameter changes while ``.grad`` holds it, or the audit ends with it.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch.utils.weak import TensorWeakRef

from clarke.capture import TensorTable, Unrecorded, memory_of
from clarke.torch_others import PLAIN
from clarke.torch_sharded import local_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from typing_extensions import Self

    from clarke.capture import Recorder

    Taken = Callable[[int, str], None]


class Version(NamedTuple):
    """The state of a tensor's values: autograd's count of writes, and those it does not count."""

    counted: int
    memory: weakref.ref[torch.UntypedStorage] | None  # None where there is none
    unrecorded: Unrecorded
    uncounted: int

    @classmethod
    def of(cls, tensor: torch.Tensor, recorder: Recorder) -> Self:
        """The present state."""
        if type(tensor) not in PLAIN:
            tensor = local_of(tensor)
        unrecorded = recorder.unrecorded
        try:
            held = weakref.ref(tensor.untyped_storage())
        except (RuntimeError, NotImplementedError):  # as for `memory_of`
            held = None
        return tuple.__new__(cls, (tensor._version, held, unrecorded, unrecorded.count))

    def is_of(self, tensor: torch.Tensor) -> bool:
        """Whether nothing has been written since."""
        if type(tensor) not in PLAIN:
            tensor = local_of(tensor)
        if self.counted != tensor._version:
            return False
        memory = memory_of(tensor)
        if memory is None or self.memory is None:
            return memory is None and self.memory is None
        moved = self.memory() is not memory
        return not (moved or self.unrecorded.any_since(memory._cdata, self.uncounted))


@dataclass(frozen=True, eq=False)
class _Doubt:
    """What call `number` added to is not all known, for the reason `why`."""

    number: int
    why: str
    leaf: TensorWeakRef
    version: Version


class Doubts:
    """The leaves whose ``.grad`` holds a sum that cannot be judged; holds no tensor.

    Args:
        taken: ``taken(number, why)`` is called when somebody uses what call `number` added to.
    """

    def __init__(self, taken: Taken) -> None:
        self._taken = taken
        self._open: TensorTable[_Doubt] = TensorTable()
        self._optimized: TensorTable[bool] = TensorTable()

    def __bool__(self) -> bool:
        return bool(self._open.entries)

    def of(self, leaf: torch.Tensor) -> str:
        """Why the sum that a leaf's ``.grad`` holds is not known, or "" if it is."""
        doubt = self._open.get(leaf)
        return "" if doubt is None else doubt.why

    def settle(self, leaf: torch.Tensor) -> str:
        """A leaf is looked at again: if it changed meanwhile, somebody used its gradient.

        Returns:
            Why the sum that its ``.grad`` holds was not known, or "" if it was.
        """
        doubt = self._open.get(leaf)
        if doubt is None:
            return ""
        self._open.drop(leaf)
        if not doubt.version.is_of(leaf):
            self._taken(doubt.number, doubt.why)
        return doubt.why

    def add(self, leaf: torch.Tensor, number: int, why: str, recorder: Recorder) -> None:
        """From call `number` on, what ``.grad`` of a leaf holds is not all known."""
        doubt = _Doubt(number, why, TensorWeakRef(leaf), Version.of(leaf, recorder))
        self._open.set(leaf, doubt)

    def optimized(self, parameters: Iterable[torch.Tensor]) -> None:
        """An optimizer takes the gradients of these."""
        for parameter in parameters:
            if parameter.grad is None:
                continue
            if not self._optimized.get(parameter):
                self._optimized.set(parameter, value=True)
            doubt = self._open.get(parameter) if self._open.entries else None
            if doubt is not None:
                self._open.drop(parameter)
                if is_nonzero(parameter.grad):
                    self._taken(doubt.number, doubt.why)

    def end(self) -> None:
        """What is left in ``.grad`` may be read by others, where no optimizer has ever cleared it.

        A leaf that an optimizer has stepped is that optimizer's to clear before its next step.
        """
        for doubt in [entry.value for entry in self._open.entries.values()]:
            leaf = doubt.leaf()
            if leaf is None or self._open.get(leaf) is not doubt:
                continue
            self._open.drop(leaf)
            held = leaf.grad is not None and is_nonzero(leaf.grad)
            left = held and not self._optimized.get(leaf)
            if left or not doubt.version.is_of(leaf):
                self._taken(doubt.number, doubt.why)


def is_nonzero(gradient: torch.Tensor) -> bool:
    """Whether any entry of a gradient, of whatever layout, is not zero."""
    found = local_of(gradient).detach()
    if found.layout == torch.sparse_coo:
        found = found.coalesce().values()
    elif found.layout != torch.strided:
        found = found.to_dense()
    return bool(found.any())
