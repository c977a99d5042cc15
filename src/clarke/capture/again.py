"""Let go of the values that a trace holds, and compute them again when they are asked for.

An audit that held every kept value until the gradient is there would keep autograd from freeing
its activations as the backward pass goes on. Once the verdict is known only its proof is needed,
and that rarely.
"""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch

from clarke.capture.memory import refuse_missing
from clarke.capture.signs import Signs, StandIn, ZeroFinder, signs_tell
from clarke.capture.trace import Keep, OpRecord, Trace, filled
from clarke.deadline import UNLIMITED, Deadline

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def without_values(trace: Trace, repeatable: Callable[[Any], bool]) -> Trace:
    """The trace without what was kept of repeatable operations; `refilled` brings it back.

    Args:
        trace: What ran.
        repeatable: Whether an operator overload returns the same when it runs again.
    """
    ops = tuple(
        # Casts of whole numbers keep their results alone; of others, they keep more.
        op if not repeatable(op.func) or (op.kept_outputs and not op.kept) else op.bare()
        for op in trace.ops
    )
    return replace(trace, ops=ops, emptied=True)


def refilled(trace: Trace, keep: Callable[[Any], Keep], deadline: Deadline = UNLIMITED) -> Trace:
    """The trace of `without_values` with its values, from running its operations again.

    Parameters and constants must be what they were.
    """
    if not trace.emptied:
        return trace
    refuse_missing(trace)
    again = _Again(trace, keep)
    ops: list[OpRecord] = []
    with torch.no_grad():
        for op in trace.ops:
            deadline.ask("computing values again: operation {} of {}", len(ops), len(trace.ops))
            ops.append(again.run(op))
    return replace(trace, ops=tuple(ops), emptied=False)


def dtypes_of(trace: Trace, deadline: Deadline = UNLIMITED) -> Mapping[int, torch.dtype]:
    """The dtype of every tensor of a program, from running its operations."""
    return MappingProxyType({s: v.dtype for s, v in values_again(trace, deadline).items()})


def values_again(trace: Trace, deadline: Deadline = UNLIMITED) -> Mapping[int, torch.Tensor]:
    """Every value of a program, by slot, in its own types, as the last operation leaves it."""
    refuse_missing(trace)
    again = _Again(trace, lambda _: Keep.NOTHING)
    with torch.no_grad():
        for op in trace.ops:
            deadline.ask("running operation {} of {}", op.index, len(trace.ops))
            again.run(op)
    read = {slot: e.tensor.detach() for slot, e in trace.externals.items()}
    return MappingProxyType({**read, **again.values})


class _Again:
    """One repetition; values by slot."""

    def __init__(self, trace: Trace, keep: Callable[[Any], Keep]) -> None:
        self._trace = trace
        self._keep = keep
        self.values: dict[int, torch.Tensor] = {}
        self._memory: dict[int, torch.Tensor] = {}
        # What an operation read may be overwritten by a later one.
        self._copies = any(a.is_write for op in trace.ops for a in _aliased(op))
        self._zeros = ZeroFinder()

    def run(self, op: OpRecord) -> OpRecord:
        """Repeat an operation; returns its record with what a recorder would have kept."""
        if op.kept_outputs and len(op.kept_outputs) == len(op.outputs):
            results: tuple[Any, ...] = tuple(op.kept_outputs[i] for i in range(len(op.outputs)))
            self._store(op, results)
            return op
        if 0 in op.drawn:  # random numbers, written to the first argument
            self._store(op, (op.drawn[0].clone(),))
            return op
        written = {
            i
            for i, a in enumerate(op.func._schema.arguments)
            if a.alias_info is not None and a.alias_info.is_write
        }
        # Batch normalisation updates its running statistics, and not every schema says so.
        all_copied = "batch_norm" in op.short_name
        args = [self._resolve(a, written=all_copied or i in written) for i, a in enumerate(op.args)]
        kwargs = {k: self._resolve(v, written=False) for k, v in op.kwargs.items()}
        keep = self._keep(op.func).of(kwargs.get("dtype"))
        signs = keep is Keep.SIGNS and not kwargs and signs_tell(args[0])
        zeros = self._zeros.find(args[0]) if signs else None
        kept, lists = self._inputs(args, written) if keep is Keep.VALUES else ({}, {})
        out = op.func(*args, **kwargs)
        results = tuple(out) if isinstance(out, (list, tuple)) else (out,)
        self._store(op, results)
        if zeros is not None:
            first = results[0].clone() if self._copies else results[0]
            made = Signs(first, zeros)
            outputs = MappingProxyType({0: first})
            return replace(op, kept=StandIn(made), kept_outputs=outputs, signs=made)
        if keep is Keep.NOTHING:
            return op
        return replace(
            op,
            kept=MappingProxyType(kept),
            kept_lists=MappingProxyType(lists),
            kept_named=MappingProxyType(
                {k: self._copied(v) for k, v in kwargs.items() if isinstance(v, torch.Tensor)}
            ),
            kept_outputs=MappingProxyType(
                {i: self._copied(v) for i, v in _results(results, in_place=bool(written)).items()}
            ),
        )

    def _store(self, op: OpRecord, results: tuple[Any, ...]) -> None:
        for slot, value in zip(op.outputs, results, strict=True):
            if slot is not None:
                self.values[slot] = value

    def _resolve(self, value: Any, *, written: bool) -> Any:
        def tensor(slot: int) -> torch.Tensor:
            found = self.values.get(slot)
            return self._external(slot, copy=written) if found is None else found

        return filled(value, tensor)

    def _external(self, slot: int, *, copy: bool) -> torch.Tensor:
        external = self._trace.externals[slot]
        tensor = external.tensor.detach()
        if external.snapshot is not None:
            # One memory for all that alias it, as when the program ran.
            flat = self._memory.setdefault(external.storage, external.snapshot.clone())
            return flat.as_strided(tensor.size(), tensor.stride(), tensor.storage_offset())
        return tensor.clone() if copy else tensor

    def _copied(self, value: torch.Tensor) -> torch.Tensor:
        return value.clone() if self._copies else value

    def _inputs(
        self, args: list[Any], written: set[int]
    ) -> tuple[dict[int, torch.Tensor], dict[tuple[int, int], torch.Tensor]]:
        kept: dict[int, torch.Tensor] = {}
        lists: dict[tuple[int, int], torch.Tensor] = {}
        for position, value in enumerate(args):
            if isinstance(value, torch.Tensor):
                kept[position] = value.clone() if position in written else self._copied(value)
            elif isinstance(value, (list, tuple)):
                items = enumerate(value)
                lists.update(
                    {
                        (position, i): self._copied(v)
                        for i, v in items
                        if isinstance(v, torch.Tensor)
                    }
                )
        return kept, lists


def _aliased(op: OpRecord) -> list[Any]:
    return [a.alias_info for a in op.func._schema.arguments if a.alias_info is not None]


def _results(results: tuple[Any, ...], *, in_place: bool) -> dict[int, torch.Tensor]:
    """Integer and boolean results, and the values that come with an index."""
    tensors = {i: v for i, v in enumerate(results) if isinstance(v, torch.Tensor)}
    discrete = {i: v for i, v in tensors.items() if not (v.is_floating_point() or v.is_complex())}
    if len(results) == 2 and 1 in discrete and not in_place:
        return tensors
    return discrete
