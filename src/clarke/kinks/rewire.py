"""Let the derivative of a ReLU, differentiated once more, ask the ReLU's argument for its sign.

Autograd keeps the result of a ReLU, not its argument, and its backward pass compares that with
zero. The result equals zero wherever the unit is off, which is no tie. ``relu(x) > 0`` where
``x > 0``, and nowhere else. The argument is copied first: the ReLU itself may overwrite it, or what
comes later.
"""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING

import torch

from clarke.capture import OpRecord, Ref, Trace
from clarke.kinks.lowering import copied_index

if TYPE_CHECKING:
    from collections.abc import Sequence

_BACKWARD = torch.ops.aten.threshold_backward.default
_RELUS = (torch.ops.aten.relu.default, torch.ops.aten.relu_.default)


def rewired(trace: Trace) -> Trace:
    """The trace, in which slopes of ReLUs depend on what the ReLUs read."""
    asked = {slot for slot in map(sloped, trace.ops) if slot is not None}
    if not asked:
        return trace
    writers = _writers(trace.ops)
    dtypes = dict(trace.slot_dtypes)
    free = min([0, *dtypes]) - 1  # from here on downwards
    read: dict[int, tuple[Ref, torch.Tensor]] = {}
    ops: list[OpRecord] = []
    for op in trace.ops:
        result = op.outputs[0] if op.func in _RELUS else None
        if result in asked and writers.get(result, op) is op:
            copy = Ref(free - len(read))
            dtypes[copy.slot] = dtypes[op.args[0].slot]
            ops.append(_copied(op, copy))
            read[result] = copy, op.kept[0]
        ops.append(op)
        of = sloped(op)
        if of is not None and of in read:
            copy, kept = read[of]
            ops[-1] = replace(
                op,
                args=(op.args[0], copy, *op.args[2:]),
                kept=MappingProxyType({**op.kept, 1: kept}),
            )
    return replace(trace, ops=tuple(ops), slot_dtypes=MappingProxyType(dtypes))


def sloped(op: OpRecord) -> int | None:
    """The slot of a ReLU's result whose slope an operation is, or None."""
    slope = op.func is _BACKWARD and isinstance(op.args[1], Ref) and op.args[2] == 0
    return op.args[1].slot if slope else None


def _writers(ops: Sequence[OpRecord]) -> dict[int, OpRecord]:
    """The last operation that writes in place to each tensor."""
    return {
        op.args[0].slot: op
        for op in ops
        if op.args and isinstance(op.args[0], Ref) and op.func._schema.name.endswith("_")
    }


def _copied(op: OpRecord, copy: Ref) -> OpRecord:
    """A copy of what an operation is about to read."""
    return replace(
        op.bare(),
        index=copied_index(op.index),
        func=torch.ops.aten.clone.default,
        args=op.args[:1],
        outputs=(copy.slot,),
    )
