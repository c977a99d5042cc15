"""Which slots of a trace may share memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from clarke.capture import input_slots

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    import torch

    from clarke.capture import External, OpRecord, Trace

    Level = Callable[[Any, torch.dtype], bool]


def aliases(op: OpRecord) -> bool:
    """Whether an operation writes to its arguments or returns a view of them."""
    return any(a.alias_info is not None for a in op.func._schema.arguments)


def shared_memory(trace: Trace) -> dict[int, int]:
    """One representative for all slots that views and in-place operations may tie together.

    Views of a buffer that was made without gradients are no operations of the record: of what
    has been written to, all that lies in one memory is one.
    """
    parent: dict[int, int] = {}

    def root(slot: int) -> int:
        while parent.setdefault(slot, slot) != slot:
            slot = parent[slot]
        return slot

    def tie(slots: Sequence[int]) -> None:
        for slot in slots[1:]:
            parent[root(slot)] = root(slots[0])

    for op in trace.ops:
        if aliases(op):
            tie([*input_slots(op), *(o for o in op.outputs if o is not None)])
    first: dict[int, int] = {}
    for slot, external in trace.externals.items():
        if external.snapshot is not None:
            tie([first.setdefault(external.storage, slot), slot])
    return {slot: root(slot) for slot in parent}


def _never(_func: Any, _dtype: torch.dtype) -> bool:
    return False


def behind_detached(
    opened: Trace, trace: Trace, variables: Sequence[int], level: Level = _never
) -> frozenset[int]:
    """Numbers of the variables from which something that a program detached was computed.

    What shares memory with a variable, or with what was computed from one, counts as it.

    Args:
        opened: The trace with all that detached values were computed from.
        trace: The trace itself.
        variables: External slots of the variables.
        level: Says of an operator and the type of a result that this keeps its value beside the
            point: what it was computed from does not move it.
    """
    shared = shared_memory(opened)
    start = {shared.get(s, s) for s, e in trace.externals.items() if e.stopped}
    wanted = _read_for(opened, start, shared, level)
    places = {
        place
        for slot, e in opened.externals.items()
        if shared.get(slot, slot) in wanted
        for place in _places(e)
    }
    return frozenset(
        number
        for number, slot in enumerate(variables)
        if shared.get(slot, slot) in wanted
        or (slot in opened.externals and not places.isdisjoint(_places(opened.externals[slot])))
    )


def only_by_steps(trace: Trace, level: Level) -> frozenset[int]:
    """Detached values of which nothing but indices, truth values and roundings reach the result.

    Args:
        trace: The trace.
        level: As for `behind_detached`.
    """
    stopped = frozenset(s for s, e in trace.externals.items() if e.stopped)
    if not stopped:
        return stopped
    shared = shared_memory(trace)
    wanted = _read_for(trace, {shared.get(trace.output, trace.output)}, shared, level)
    return frozenset(s for s in stopped if shared.get(s, s) not in wanted)


def _read_for(trace: Trace, start: set[int], shared: dict[int, int], level: Level) -> set[int]:
    """All that moves some values, by the names that `shared` gives."""
    wanted, before = set(start), -1
    while before != len(wanted):  # what is written to may have been read under another name before
        before = len(wanted)
        for op in reversed(trace.ops):
            read = {shared.get(s, s) for s in input_slots(op)}
            made = [o for o in op.outputs if o is not None]
            reached = {shared.get(o, o) for o in made}
            writes = op.func._schema.is_mutable
            if writes:
                reached |= read
            if wanted.isdisjoint(reached):
                continue
            own = [trace.slot_dtypes.get(o) for o in made if shared.get(o, o) in wanted]
            if writes or not own or not all(d is not None and level(op.func, d) for d in own):
                wanted |= read
    return wanted


def _places(external: External) -> list[tuple[str, int]]:
    """What two tensors in the same memory have in common: its number in the record, its address."""
    found = [("number", external.storage)]
    try:
        address = external.tensor.untyped_storage().data_ptr()
    except (RuntimeError, NotImplementedError):  # a sparse tensor
        return found
    return [*found, ("address", address)] if address else found
