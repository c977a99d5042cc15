"""Slots that keep their value beside the point: what signs, roundings and indices give off a tie.

``x.detach().floor().long()`` reads a whole number, where casts jump; but that number is constant
wherever ``x`` is not whole itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from clarke.capture import OpRecord, Origin, Trace, input_slots
from clarke.steering.memory import shared_memory

if TYPE_CHECKING:
    from collections.abc import Iterable


class Still:
    """Follows constants through a trace, in evaluation order.

    Memory that is written to in place is left out.
    """

    def __init__(self, trace: Trace) -> None:
        self._kinds = trace.slot_dtypes
        self._shared = shared_memory(trace)
        self._written = {
            self._name(slot)
            for op in trace.ops
            if op.short_name.endswith("_")
            for slot in (*input_slots(op)[:1], *(o for o in op.outputs if o is not None))
        }
        self._still = {
            e.slot
            for e in trace.externals.values()
            if e.origin is Origin.CONSTANT
            and not (e.stopped or e.cut_by or e.rewritten)
            and self._name(e.slot) not in self._written
        }

    def _name(self, slot: int) -> int:
        return self._shared.get(slot, slot)

    def follow(self, op: OpRecord) -> bool:
        """Whether an operation reads constants alone; its results are then constant too."""
        read = input_slots(op)
        same = bool(read) and all(s in self._still for s in read) and not op.drawn
        if same or (not read and not op.differentiated):
            self._add(op.outputs)
        return same

    def settle(self, op: OpRecord, *, all_results: bool) -> None:
        """Note an operation off its ties: its integers and truth values are constant.

        Args:
            op: The operation.
            all_results: So are its real numbers.
        """
        self._add(s for s in op.outputs if all_results or self._is_discrete(s))

    def _is_discrete(self, slot: int | None) -> bool:
        dtype = self._kinds.get(slot) if slot is not None else None
        return dtype is not None and not (dtype.is_floating_point or dtype.is_complex)

    def _add(self, slots: Iterable[int | None]) -> None:
        self._still.update(s for s in slots if s is not None and self._name(s) not in self._written)
