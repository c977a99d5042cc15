"""Detached values that do not depend on the variables after all are constants like any other.

A critic is trained on ``fake.detach()``: a function of the generator's parameters, not of its own.
"""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING

from clarke.capture import Origin, input_slots
from clarke.steering.memory import shared_memory

if TYPE_CHECKING:
    from collections.abc import Sequence

    from clarke.capture import External, Trace


def independent(opened: Trace, trace: Trace, variables: Sequence[int]) -> bool:
    """Whether nothing that a program detached was computed from the variables.

    What shares memory with a variable, or with what was computed from one, counts as it.

    Args:
        opened: The trace with all that detached values were computed from.
        trace: The trace itself.
        variables: External slots of the variables.
    """
    known = (Origin.LEAF, Origin.CONSTANT)
    if any(e.stopped or e.origin not in known for e in opened.externals.values()):
        return False  # where these come from is not known
    if any(op.hidden_write for op in opened.ops):
        return False
    if any(slot not in opened.externals for slot in variables):
        return False
    own = {key for slot in variables for key in _memory(opened.externals[slot])}
    shared = shared_memory(opened.ops)
    moved = {
        shared.get(e.slot, e.slot)
        for e in opened.externals.values()
        if not own.isdisjoint(_memory(e))
    }
    written = -1
    while written != len(moved):  # what is written to may have been read under another name before
        written = len(moved)
        for op in opened.ops:
            if any(shared.get(s, s) in moved for s in input_slots(op)):
                moved.update(shared.get(o, o) for o in op.outputs if o is not None)
                if op.func._schema.is_mutable:
                    moved.update(shared.get(s, s) for s in input_slots(op))
    return not any(e.stopped and shared.get(s, s) in moved for s, e in trace.externals.items())


def attached(trace: Trace) -> Trace:
    """The trace with its detached values as plain constants."""
    externals = {
        slot: replace(e, stopped=False, cut_by="") if e.stopped else e
        for slot, e in trace.externals.items()
    }
    ops = tuple(replace(op, reads_stopped=False) if op.reads_stopped else op for op in trace.ops)
    return replace(trace, ops=ops, externals=MappingProxyType(externals))


def _memory(external: External) -> tuple[tuple[str, int], ...]:
    """What two tensors in the same memory have in common: its number in the record, its address."""
    found = [("number", external.storage)]
    try:
        address = external.tensor.untyped_storage().data_ptr()
    except (RuntimeError, NotImplementedError):  # a sparse tensor
        return tuple(found)
    if address:
        found.append(("address", address))
    return tuple(found)
