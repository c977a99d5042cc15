"""Embeddings whose author told autograd to return something else than the derivative.

``padding_idx`` leaves out the gradient of one row: the row is a constant by declaration, and what
autograd returns is the derivative of that function. ``scale_grad_by_freq`` divides by counts: a
derivative of the author's own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import torch

from clarke.capture import Ref
from clarke.kinks.lowering import Part

if TYPE_CHECKING:
    from collections.abc import Iterable

    from clarke.capture import OpRecord
    from clarke.kinks.lowering import Lowerer

_NAME: Final = "aten::embedding.default"


def _argument(op: OpRecord, position: int, name: str, default: Any) -> Any:
    return op.args[position] if position < len(op.args) else op.kwargs.get(name, default)


def padding_row(op: OpRecord) -> int | None:
    """The row that an embedding reads and whose gradient it leaves out, if there is one."""
    indices = op.kept.get(1)
    if op.name != _NAME or indices is None:
        return None
    row = int(_argument(op, 2, "padding_idx", -1))
    return row if row >= 0 and bool((indices == row).any()) else None


def is_scaled(op: OpRecord) -> bool:
    """Whether an embedding divides gradients by how often a row was read, more than once."""
    indices = op.kept.get(1)
    if op.name != _NAME or indices is None or not _argument(op, 3, "scale", False):
        return False
    return bool(indices.unique().numel() < indices.numel())


def constant_padding(lo: Lowerer) -> tuple[Part, ...] | None:
    """The lookup in a table of which the left-out row is a constant."""
    row, weight = padding_row(lo.op), lo.arg(0, "weight")
    if row is None or is_scaled(lo.op):
        return None
    here = (torch.arange(weight.value.shape[0]) == row)[:, None]
    table = lo(torch.ops.aten.where.self, here, weight.value, weight)
    return (lo(torch.ops.aten.embedding.default, table, lo.arg(1, "indices")),)


def held_rows(ops: Iterable[OpRecord]) -> dict[int, tuple[int, OpRecord]]:
    """By slot of a table, the row that is a declared constant, and where."""
    found: dict[int, tuple[int, OpRecord]] = {}
    for op in ops:
        row = padding_row(op)
        if row is not None and isinstance(op.args[0], Ref):
            found[op.args[0].slot] = (row, op)
    return found
