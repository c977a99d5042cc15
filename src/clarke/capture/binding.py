"""The results of operations get their slots."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from clarke.capture.live import place_of
from clarke.capture.taking import Taking
from clarke.torch_others import Weak

if TYPE_CHECKING:
    from clarke.capture.live import Node, Slot
    from clarke.capture.operators import Operator


class Binding(Taking):
    """Notes what operations return and what they wrote to; arguments as of `Reading`."""

    def _bind_outputs(
        self,
        node: Node,
        operator: Operator,
        out: Any,
        written: list[torch.Tensor],
        *,
        masked: bool,
        virtual: bool,
        keeps: bool,
    ) -> None:
        """Give the results of an operation their slots, and note what it wrote to."""
        differentiated = node.differentiated
        outputs: list[int | None] = []
        kept: dict[int, torch.Tensor] = {}
        flat = out if isinstance(out, (list, tuple)) else (out,)
        # A maximum with its index: the value belongs to the choice as the index does.
        indexed = (
            len(flat) == 2
            and isinstance(flat[1], torch.Tensor)
            and not (flat[1].is_floating_point() or flat[1].is_complex())
        )
        for position, value in enumerate(flat):
            if not isinstance(value, torch.Tensor):
                outputs.append(None)
                continue
            same = bool(written) and any(t is value for t in written)
            slot = self._slot(value) if same else None
            if slot is None:
                slot = self._made(node, operator, value, masked=masked, virtual=virtual)
            outputs.append(slot.number)
            if keeps and not value.is_floating_point():
                kept[position] = value
            elif keeps and not written and (indexed or operator.draws):
                kept[position] = self._kept_value(node, value, written)
        node.outputs = tuple(outputs)
        if kept:
            node.kept_outputs = kept
        for tensor in written:
            slot = self._slot(tensor)
            if slot is not None:
                self._add_writer(slot.storage, node)
                slot.place = place_of(tensor)
                slot.masked = slot.masked or (masked and not differentiated)
                if self._inside and differentiated and not tensor.requires_grad:
                    slot.storage.virtual = self._virtual = True
                cut = node.reads_stopped and not (differentiated or tensor.requires_grad)
                if cut and self.epoch == 0:
                    slot.stopped = slot.storage.cut = self._cuts = True

    def _made(
        self, node: Node, operator: Operator, value: torch.Tensor, *, masked: bool, virtual: bool
    ) -> Slot:
        """The slot of a new result."""
        slot = self._new_slot(value, node.location)
        slot.producer = node
        if operator.shape_only:
            slot.key = Weak(value)
        dtype = slot.dtype
        discrete = not (dtype.is_floating_point or dtype.is_complex)
        # Of a detached value too: a comparison of it may stand at a tie.
        if masked or (discrete and (node.differentiated or node.reads_stopped)):
            slot.masked = True
        if node.reads_stopped and not node.differentiated:
            slot.stopped = True
        if virtual and not discrete:
            slot.virtual = True
        return slot
