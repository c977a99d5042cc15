"""What a compiled program returned and wrote, in the place of what was recorded beside it."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

import torch

from clarke.capture.book import Concern, memory_of
from clarke.capture.live import TENSOR, Node
from clarke.capture.reading import writers_before
from clarke.capture.weak import TensorTable
from clarke.capture.writing import Writing

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from clarke.capture.functions import DeclaredFunction
    from clarke.capture.operators import Operators
    from clarke.capture.places import Places


class Taking(Writing):
    """Takes tensors for others, which were recorded; arguments as of `Reading`.

    Attributes:
        unfollowed: Of results of compiled programs, why it is not known how they were made.
    """

    def __init__(
        self, operators: Operators, places: Places, functions: Mapping[type, DeclaredFunction]
    ) -> None:
        super().__init__(operators, places, functions)
        self.unfollowed: TensorTable[str] = TensorTable()

    @property
    def operators(self) -> Operators:
        """What is known of operators."""
        return self._operators

    def matters(self, tensors: list[torch.Tensor]) -> bool:
        """Whether an operation on these may have to do with a gradient."""
        return self._concern(tensors) is Concern.GRADIENT

    def take_for(self, tensor: torch.Tensor, recorded: torch.Tensor) -> int:
        """What a compiled program returned stands for what was recorded of it as written.

        Returns:
            The number of the operation that made it; 0 where it is a constant.
        """
        slot = self._slot(recorded)
        if slot is None:
            return 0
        memory, own = memory_of(tensor), memory_of(recorded)
        if memory is not None and own is not None and memory is not own:
            # With its views and what was written there.
            slot.storage.move(memory)
            self._storages[memory._cdata] = weakref.ref(slot.storage)
            self._storages.pop(own._cdata, None)
        self._slots.set(tensor, slot)
        made_by = slot.storage.writers[-1] if slot.storage.writers else slot.producer
        return 0 if made_by is None else made_by.index

    def written_as(self, tensor: torch.Tensor, recorded: torch.Tensor) -> None:
        """A compiled program has written to a tensor what was recorded of it as written."""
        location = self.places.here()[0]
        slot, source = self._read(tensor, location), self._read(recorded, location)
        self.count += 1
        node = Node(self.count, torch.ops.aten.copy_.default, location)
        node.pattern, node.inputs = (TENSOR, TENSOR), (slot, source)
        node.writers_before = writers_before(node.inputs)
        node.varied = frozenset({0, 1}) if tensor.requires_grad else frozenset({1})
        node.differentiated, node.outputs = True, (slot.number,)
        self._add_writer(slot.storage, node)

    def note_cut(self, tensors: Iterable[torch.Tensor]) -> None:
        """These were computed out of sight, with gradients off, from differentiated values."""
        for tensor in tensors:
            if not tensor.requires_grad and tensor.is_floating_point():
                slot = self._slot(tensor) or self._new_slot(tensor, self.places.here()[0])
                slot.stopped = True
