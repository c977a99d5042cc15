"""What a result was computed from, in the live record: operations, and what none of them made."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

import torch

from clarke.capture.asserts import in_assertion
from clarke.capture.live import is_rewritten, version_of
from clarke.capture.memory import is_there

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from clarke.capture.live import Node, Slot
    from clarke.capture.recorder import Recorder
    from clarke.capture.trace import Location

    # A value that went into Python (None for one that is gone), where, and whether only its shape.
    Level = Callable[[Any, torch.dtype], bool]
    Seen = tuple[Slot | None, Location, bool]


class Outside(Enum):
    """What kind of tensor a program read that none of its operations made."""

    LEAF = "a leaf that requires a gradient, unchanged since it was read"
    CONSTANT = "a tensor that requires none"
    CUT = "a tensor that requires none since it was detached"


@dataclass(frozen=True, eq=False)
class Reached:
    """The part of a record on which a result depends.

    Attributes:
        nodes: The operations, in evaluation order.
        output: The result.
        reads: What went into Python on the way.
    """

    nodes: tuple[Node, ...]
    output: Slot
    reads: tuple[Seen, ...]


def reach(recorder: Recorder, output: torch.Tensor) -> Reached | None:
    """The operations on which `output` depends; None where only `collect_trace` can tell."""
    slot = recorder.slot_of(output)
    if slot is None or slot.producer is None or slot.within is not None:
        return None
    found: dict[int, Node] = {}
    if not _walk(slot, found):
        return None
    reads: list[Seen] = []
    last = max(found) if recorder.reads else 0
    for read in recorder.reads:
        if read.at >= last or in_assertion(read.location):
            continue
        value = read.slot()
        if value is None:
            if read.held is not None:
                continue
        elif value.masked and value.producer is not None:
            more = dict(found)
            if not _walk(value, more):
                continue  # from an earlier iteration, whose graph has been freed
            found = more
        reads.append((value, read.location, read.shape))
    nodes = tuple([found[i] for i in sorted(found)])
    if recorder.tampered:
        used = (slot, *(s for n in nodes for s in n.inputs))
        if any(recorder.tampering(s) is not None for s in used):
            return None
    return Reached(nodes, slot, tuple(reads))


def _walk(slot: Slot, found: dict[int, Node]) -> bool:
    """Add what made a value; False where part of it is gone, or in a custom Function's forward."""
    todo = [n for n in (slot.producer, *slot.storage.writers) if n is not None]
    while todo:
        node = todo.pop()
        if node.index in found:
            continue
        if node.released or not (node.within is None or node.within.is_plain):
            return False  # gone, or a custom Function's own derivative
        found[node.index] = node
        for each in node.inputs:
            made_by = each.producer
            if made_by is not None:
                todo.append(made_by)
        if node.writers_before:
            for each, count in zip(node.inputs, node.writers_before, strict=True):
                todo += each.storage.writers[:count]
    return True


def kind_of(slot: Slot) -> Outside | None:
    """What kind of tensor a slot stands for; None where that takes a closer look."""
    tensor, storage = slot.held, slot.storage
    if tensor is None or slot.producer is not None or is_rewritten(slot):
        return None
    if storage.snapshot is not None or storage.writers or tensor.is_inference():
        return None
    original = tensor if slot.key is None else slot.key()
    if original is not None and not storage.holds(original):
        return None
    if storage.gathered is None and not is_there(tensor):
        return None
    if tensor.requires_grad:
        unchanged = tensor.is_leaf and version_of(slot, tensor) == slot.version
        return Outside.LEAF if unchanged else None
    return Outside.CUT if slot.stopped else Outside.CONSTANT


class Behind(Enum):
    """What is known of where detached values came from."""

    OTHERS = "tensors that are none of the variables"
    LOST = "where some came from is not known any more: all are constants"
    VARIABLES = "perhaps the variables"


def behind_cut(cut: Sequence[Slot], variables: Sequence[Slot], level: Level) -> Behind:
    """What moves detached values, as `collect_opened` would find it.

    `level` says of an operator and the type of a result that nothing does.
    """
    own = {id(s.storage) for s in variables} | {_address(s) for s in variables}
    found = Behind.OTHERS
    seen: set[int] = set()
    todo = list(cut)
    while todo:
        slot = todo.pop()
        if id(slot) in seen:
            continue
        seen.add(id(slot))
        made_by = slot.producer or slot.history
        if id(slot.storage) in own or slot.storage.writers:
            return Behind.VARIABLES
        if made_by is None:
            held = slot.held
            if held is None or _address(slot) in own:
                return Behind.VARIABLES
            if slot.stopped or (held.requires_grad and not held.is_leaf):
                found = Behind.LOST
        elif made_by.hidden_write or made_by.func._schema.is_mutable:
            return Behind.VARIABLES
        elif made_by.released:
            return Behind.LOST
        elif not level(made_by.func, slot.dtype):
            todo += made_by.inputs
    return found


def _address(slot: Slot) -> int:
    """Where a tensor's memory is: arrays of NumPy may be that of several."""
    if slot.held is None or slot.held.layout != torch.strided:
        return -1
    return -1 - slot.held.untyped_storage().data_ptr()
