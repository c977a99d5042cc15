"""Let the derivative of a ReLU, differentiated once more, ask the ReLU's argument for its sign.

Autograd keeps the result of a ReLU, not its argument, and its backward pass compares that with
zero. The result equals zero wherever the unit is off, which is no tie. ``relu(x) > 0`` where
``x > 0``, and nowhere else.
"""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING

import torch

from clarke.capture import OpRecord, Ref

if TYPE_CHECKING:
    from collections.abc import Sequence

_BACKWARD = torch.ops.aten.threshold_backward.default
_RELU = torch.ops.aten.relu.default


def rewired(ops: Sequence[OpRecord]) -> tuple[OpRecord, ...]:
    """The operations, in which slopes of ReLUs depend on what the ReLUs read."""
    if not any(op.func is _BACKWARD for op in ops):
        return tuple(ops)
    relus = {op.outputs[0]: op for op in ops if op.func is _RELU}
    written = {
        op.args[0].slot
        for op in ops
        if op.args and isinstance(op.args[0], Ref) and op.func._schema.name.endswith("_")
    }

    def one(op: OpRecord) -> OpRecord:
        if op.func is not _BACKWARD or not isinstance(op.args[1], Ref) or op.args[2] != 0:
            return op
        relu = relus.get(op.args[1].slot)
        if relu is None or op.args[1].slot in written or relu.args[0].slot in written:
            return op
        return replace(
            op,
            args=(op.args[0], relu.args[0], *op.args[2:]),
            kept=MappingProxyType({**op.kept, 1: relu.kept[0]}),
        )

    return tuple(one(op) for op in ops)
