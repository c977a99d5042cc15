"""Write an operation as several simpler ones that have rules of their own.

A fused operation such as ``linalg_vector_norm(x, ord=1)`` hides kinks inside. Its lowering runs
``abs`` and ``sum`` on the recorded values and writes records of them, which then stand in its place
wherever pieces are forced; natural replays still run the operation that the program ran.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import torch

from clarke.capture import OpRecord, Ref

_APART = 1 << 40  # numbers of parts stay clear of those of recorded operations
_MOST_PARTS = 4096


def recorded_index(index: int) -> int:
    """The number of the recorded operation of which an operation is, or is a part."""
    return index % _APART


def copied_index(index: int) -> int:
    """The number of a copy of what a recorded operation reads."""
    return index + _APART * (_MOST_PARTS - 1)


@dataclass(frozen=True, eq=False)
class Part:
    """A tensor in a lowering: its place in the trace, and its recorded value."""

    ref: Ref
    value: torch.Tensor


class Lowerer:
    """Runs the parts of one operation on its recorded values, and writes their records.

    Args:
        op: The operation.
        first: A slot number below which all are free (they count downwards).
    """

    def __init__(self, op: OpRecord, first: int) -> None:
        self.op = op
        self.records: list[OpRecord] = []
        self.dtypes: dict[int, torch.dtype] = {}
        self._next = first
        self._copy: Part | None = None

    def keep_first(self) -> Part:
        """Let the parts read a copy of the first argument; returns the argument itself."""
        given: Part = self.arg(0, "self")
        self._copy = self(torch.ops.aten.clone.default, given)
        return given

    def arg(self, position: int, name: str, default: Any = None) -> Any:
        """An argument: a `Part` for a recorded tensor, a tuple of them for a list, or the value."""
        if position >= len(self.op.args):
            return self.named(name, default)
        given = self.op.args[position]
        if position == 0 and self._copy is not None:
            return self._copy
        if isinstance(given, Ref):
            return Part(given, self.op.kept[position])
        if isinstance(given, (list, tuple)) and any(isinstance(g, Ref) for g in given):
            return tuple(
                Part(g, self.op.kept_lists[position, i]) if isinstance(g, Ref) else g
                for i, g in enumerate(given)
            )
        return given

    def named(self, name: str, default: Any = None) -> Any:
        """A keyword argument: a `Part` for a recorded tensor, or the value."""
        given = self.op.kwargs.get(name, default)
        return Part(given, self.op.kept_named[name]) if isinstance(given, Ref) else given

    def varied(self, position: int) -> bool:
        """Whether the argument at `position` was differentiated."""
        return position in self.op.varied

    def __call__(self, func: Any, *args: Any, **kwargs: Any) -> Any:
        """Run an operation on parts and constants; returns a `Part`, or a tuple of them."""
        values = tuple(_value(a) for a in args)
        written = func._schema.name.endswith("_")
        kept = {i: v for i, v in enumerate(values) if isinstance(v, torch.Tensor)}
        kept_lists = {
            (i, j): v
            for i, value in enumerate(values)
            if isinstance(value, (list, tuple))
            for j, v in enumerate(value)
            if isinstance(v, torch.Tensor)
        }
        with torch.no_grad():
            running = (values[0].clone(), *values[1:]) if written else values
            out = func(*running, **kwargs)
        flat = tuple(out) if isinstance(out, (list, tuple)) else (out,)
        parts: tuple[Part, ...] = tuple(self._new(v) for v in (() if written else flat))
        if written:
            parts = (Part(args[0].ref, out),)
        record = replace(
            self.op,
            index=self.op.index + (len(self.records) + 1) * _APART,
            func=func,
            args=tuple(_reference(a) for a in args),
            kwargs=MappingProxyType(dict(kwargs)),
            outputs=tuple(p.ref.slot for p in parts),
            kept=MappingProxyType(kept),
            kept_lists=MappingProxyType(kept_lists),
            kept_outputs=MappingProxyType(
                {i: v for i, v in enumerate(flat) if not v.is_floating_point()}
            ),
            # Some of these tensors may be constants; numbers are.
            varied=frozenset(i for i, a in enumerate(args) if self.op.varied and _holds_part(a)),
            stands_for=self.op.shown,
        )
        self.records.append(record)
        return parts if isinstance(out, (list, tuple)) else parts[0]

    def _new(self, value: torch.Tensor) -> Part:
        part = Part(Ref(self._next), value)
        self._next -= 1
        self.dtypes[part.ref.slot] = value.dtype
        return part

    def finish(self, results: tuple[Part, ...]) -> None:
        """Name the parts that are the operation's results."""
        alias = torch.ops.aten.alias.default
        for slot, part in zip(self.op.outputs, results, strict=True):
            if slot is None or slot == part.ref.slot:  # written in place
                continue
            last = self(alias, part)
            self.dtypes.pop(last.ref.slot)
            self.records[-1] = replace(self.records[-1], outputs=(slot,))


# What it returns stands for the operation's results; None: the operation is not lowered.
Lowering = Callable[[Lowerer], "tuple[Part, ...] | None"]


def _holds_part(argument: Any) -> bool:
    if isinstance(argument, (list, tuple)):
        return any(_holds_part(a) for a in argument)
    return isinstance(argument, Part)


def _value(argument: Any) -> Any:
    if isinstance(argument, Part):
        return argument.value
    if isinstance(argument, (list, tuple)):
        return type(argument)(_value(a) for a in argument)
    return argument


def _reference(argument: Any) -> Any:
    if isinstance(argument, Part):
        return argument.ref
    if isinstance(argument, (list, tuple)):
        return type(argument)(_reference(a) for a in argument)
    return argument


def lower(
    op: OpRecord, find: Callable[[Any], Lowering | None], first: int
) -> tuple[tuple[OpRecord, ...], Mapping[int, torch.dtype]]:
    """An operation as its simplest parts (itself, if it has none), and the dtypes of new slots.

    Args:
        op: The operation.
        find: The lowering of an overload, if it has one.
        first: A slot number below which all are free.
    """
    lowering = find(op.func)
    if lowering is None:
        return (op,), {}
    lowerer = Lowerer(op, first)
    results = lowering(lowerer)
    if results is None:
        return (op,), {}
    lowerer.finish(results)
    dtypes = dict(lowerer.dtypes)
    parts: list[OpRecord] = []
    for number, record in enumerate(lowerer.records):
        below = min([first, *dtypes]) - 1
        inner, more = lower(record, find, below)
        if len(inner) > 1 or inner[0] is not record:
            # Parts of parts keep distinct numbers.
            inner = tuple(
                replace(r, index=r.index + (number + 1) * _APART * _MOST_PARTS) for r in inner
            )
        parts += inner
        dtypes.update(more)
    return tuple(parts), dtypes
