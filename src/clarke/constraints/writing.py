"""Writes a trace: records of recorded operations, and of new ones between them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from clarke.capture import External, OpRecord, Origin, Ref, Trace, filled
from clarke.kinks.lowering import Lowerer, Part

if TYPE_CHECKING:
    from collections.abc import Mapping

_RECORDS = 4000  # records that following both sides may add
_APART = 1 << 100  # numbers of new records stay clear of those of recorded ones and their parts


class CannotFollowError(Exception):
    """The sides of a jump cannot be followed; never leaves this layer."""


class Records:
    """The records of a new trace, with the constants that they read.

    Args:
        trace: The trace that it replaces.
        values: Every tensor of that at the point, in float64.
    """

    def __init__(self, trace: Trace, values: Mapping[int, torch.Tensor]) -> None:
        self.trace = trace
        self.values = values
        self.ops: list[OpRecord] = []
        self.externals = dict(trace.externals)
        self.dtypes = dict(trace.slot_dtypes)
        self._next = min([0, *self.dtypes, *self.externals]) - 1
        self._written = 0

    def _alias(self, op: OpRecord, slot: int, part: Part) -> None:
        lo = self._lowerer(op)
        last = lo(torch.ops.aten.alias.default, part)
        self._take(lo, {last.ref.slot: slot})

    def _part(self, value: Any) -> Any:
        if isinstance(value, torch.dtype) and value.is_floating_point:
            return torch.float64
        return filled(value, self._read)

    def _read(self, slot: int) -> Part:
        if slot not in self.values:
            raise CannotFollowError
        return Part(Ref(slot), self.values[slot].detach())

    def _lowerer(self, op: OpRecord) -> Lowerer:
        return Lowerer(op, self._next)

    def _take(self, lo: Lowerer, names: Mapping[int, int] | None = None) -> None:
        """Take over what a lowerer has written, with numbers of their own."""
        self.dtypes.update(lo.dtypes)
        self._next = min([self._next, *(s - 1 for s in lo.dtypes)])
        for record in lo.records:
            self._written += 1
            outputs = tuple(names.get(o, o) if names and o else o for o in record.outputs)
            index = record.index + self._written * _APART
            args = tuple(self._held(a) for a in record.args)
            self.ops.append(replace(record, index=index, outputs=outputs, args=args))
        if self._written > _RECORDS:
            raise CannotFollowError

    def _held(self, value: Any) -> Any:
        """Tensors among the arguments of new records become constants of the trace."""
        return self._constant(value).ref if isinstance(value, torch.Tensor) else value

    def _constant(self, value: torch.Tensor) -> Part:
        slot, self._next = self._next, self._next - 1
        where = self.trace.ops[0].location
        self.externals[slot] = External(
            slot, value, Origin.CONSTANT, value._version, None, slot, "", where, stopped=False
        )
        self.dtypes[slot] = value.dtype
        return Part(Ref(slot), value)
