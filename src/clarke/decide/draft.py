"""A recorded program written otherwise: operations in the place of some of its own."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from itertools import count
from typing import TYPE_CHECKING, Any

import torch

from clarke.capture import OpRecord, Ref, dtypes_of, filled, input_slots, values_again
from clarke.deadline import UNLIMITED, Deadline

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from clarke.capture import Trace


class Draft:
    """What would run if some operations of a program were others.

    Args:
        trace: What ran.
        deadline: When to give up.
    """

    def __init__(self, trace: Trace, deadline: Deadline = UNLIMITED) -> None:
        self.trace = trace
        self.makers = {s: op for op in trace.ops for s in op.outputs if s is not None}
        self._deadline = deadline
        self._slots = count(max((*trace.slot_dtypes, *self.makers, *trace.externals)) + 1)
        self._at: OpRecord | None = None
        self._before: dict[int, list[OpRecord]] = {}
        self._instead: dict[int, int] = {}

    @cached_property
    def _values(self) -> dict[int, torch.Tensor]:
        return dict(values_again(self.trace, self._deadline))

    def value(self, ref: Ref) -> torch.Tensor:
        """A tensor of the program, or of what was written, in its own type."""
        return self._values[ref.slot]

    def maker(self, ref: object) -> OpRecord | None:
        """The operation that made a tensor of the program."""
        return self.makers.get(ref.slot) if isinstance(ref, Ref) else None

    def write(self, op: OpRecord, rewriting: Callable[[Draft, OpRecord], Ref | None]) -> bool:
        """Let what `rewriting` writes stand for an operation; whether it could write it."""
        if op.within is not None or op.func._schema.name.endswith("_"):
            return False  # a Function's author owns its derivative; memory may be read elsewhere
        self._at = op
        found = rewriting(self, op)
        if found is None:
            return False
        self._instead[op.index] = found.slot
        return True

    @property
    def written(self) -> frozenset[str]:
        """Names of the operations that were written."""
        return frozenset(op.short_name for new in self._before.values() for op in new)

    def call(self, func: Any, *args: Any, result: int = 0, **kwargs: Any) -> Ref:
        """Write an operation before the one that is replaced; returns one of its results."""
        if self._at is None:
            raise RuntimeError("Nothing is being written.")
        with torch.no_grad():
            given, named = ([filled(a, self._values.__getitem__) for a in args], dict(kwargs))
            made = func(*given, **named)
        every = made if isinstance(made, (tuple, list)) else (made,)
        slots = tuple(next(self._slots) for _ in every)
        self._values.update(zip(slots, every, strict=True))
        varied = frozenset(i for i, a in enumerate(args) if self._varies(a))
        op = replace(
            self._at.bare(),
            func=func,
            args=args,
            kwargs=kwargs,
            outputs=slots,
            differentiated=bool(varied) and every[result].is_floating_point(),
            varied=varied,
            stands_for="",
        )
        self._before.setdefault(self._at.index, []).append(op)
        self.makers.update(dict.fromkeys(slots, op))
        return Ref(slots[result])

    def again(self, op: OpRecord, first: Ref) -> Ref:
        """Write an operation of the program once more, on another first argument."""
        return self.call(op.func, first, *op.args[1:], **op.kwargs)

    def early(self, ref: Ref) -> Ref | None:
        """A tensor of the program that is there, or can be, when the replaced operation runs."""
        op = self.makers.get(ref.slot)
        at = self._at
        if op is None or at is None or op.index < at.index:
            return ref
        if op.kwargs or len(op.outputs) != 1 or op is at or ref.slot == at.outputs[0]:
            return None
        moved = [self.early(a) if isinstance(a, Ref) else a for a in op.args]
        return None if None in moved else self.call(op.func, *moved)

    def _varies(self, value: object) -> bool:
        items = value if isinstance(value, (list, tuple)) else (value,)
        for item in items:
            if not isinstance(item, Ref):
                continue
            op = self.makers.get(item.slot)
            leaf = self.trace.externals.get(item.slot)
            if (op is not None and op.differentiated) or (
                leaf is not None and leaf in self._leaves
            ):
                return True
        return False

    @cached_property
    def _leaves(self) -> frozenset[Any]:
        return frozenset(self.trace.leaves())

    def finished(self, repeatable: Callable[[Any], bool]) -> Trace:
        """The program as it was written, without kept values.

        Args:
            repeatable: Whether an operator returns the same when it runs again.
        """
        renamed = {self.makers_of(index).outputs[0]: slot for index, slot in self._instead.items()}
        ops: list[OpRecord] = []
        for op in self.trace.ops:
            new = [*self._before.get(op.index, ())]
            if op.index not in self._instead:
                new.append(op if not repeatable(op.func) else op.bare())
            ops += [replace(_renamed(o, renamed), index=len(ops) + i) for i, o in enumerate(new)]
        output = renamed.get(self.trace.output, self.trace.output)
        used = {s for op in ops for s in input_slots(op)}
        externals = {
            s: e for s, e in self.trace.externals.items() if s in used or e in self._leaves
        }
        made = replace(self.trace, ops=tuple(ops), output=output, externals=externals, emptied=True)
        return replace(made, slot_dtypes=dtypes_of(made, self._deadline))

    def makers_of(self, index: int) -> OpRecord:
        """The operation with a number."""
        return next(op for op in self.trace.ops if op.index == index)


def _renamed(op: OpRecord, names: Mapping[int | None, int]) -> OpRecord:
    def put(slot: int) -> Ref:
        return Ref(names.get(slot, slot))

    if not any(s in names for s in input_slots(op)):
        return op
    return replace(
        op,
        args=tuple(filled(a, put) for a in op.args),
        kwargs={k: filled(v, put) for k, v in op.kwargs.items()},
    )
