"""Which tensors of a trace may share memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from clarke.capture import input_slots

if TYPE_CHECKING:
    from collections.abc import Sequence

    from clarke.capture import OpRecord


def aliases(op: OpRecord) -> bool:
    """Whether an operation writes to its arguments or returns a view of them."""
    return any(a.alias_info is not None for a in op.func._schema.arguments)


def shared_memory(ops: Sequence[OpRecord]) -> dict[int, int]:
    """One representative for all slots that views and in-place operations may tie together."""
    parent: dict[int, int] = {}

    def root(slot: int) -> int:
        while parent.setdefault(slot, slot) != slot:
            slot = parent[slot]
        return slot

    for op in ops:
        if aliases(op):
            slots = [*input_slots(op), *(o for o in op.outputs if o is not None)]
            for slot in slots[1:]:
                parent[root(slot)] = root(slots[0])
    return {slot: root(slot) for slot in parent}
