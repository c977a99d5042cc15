"""Run again only what the arguments of some operations need."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from clarke.capture import input_slots
from clarke.kinks import Call
from clarke.steering.adapt import adapted
from clarke.steering.state import State

if TYPE_CHECKING:
    from collections.abc import Sequence

    from clarke.capture import OpRecord
    from clarke.steering.program import Program


class Partial:
    """Runs the operations of a program that some of them depend on, as PyTorch does, many times.

    Args:
        program: The program.
        ops: Operations of its trace whose arguments are wanted; they do not run themselves.

    Attributes:
        ops: These.
        needed: What runs, in order.
    """

    def __init__(self, program: Program, ops: Sequence[OpRecord]) -> None:
        self._program = program
        self.ops = ops
        trace_ops = program.analysis.trace.ops
        position = {id(op): i for i, op in enumerate(trace_ops)}
        before = trace_ops[: max(position[id(op)] for op in ops)]
        self.needed = before if any(map(_writes, before)) else _cone(before, ops)
        # What runs in the replay's type exactly as it was recorded, once that is known.
        self._plain: dict[int, bool] = {}

    def run(
        self, point: Sequence[torch.Tensor], *, grad: bool
    ) -> tuple[tuple[torch.Tensor, ...], list[Call]]:
        """The variables, and the operations wanted with their arguments.

        Args:
            point: Values of the variables.
            grad: Build an autograd graph.
        """
        state = State(self._program, point, None, None, grad=grad)
        with torch.set_grad_enabled(grad):
            for op in self.needed:
                self._step(op, state)
            calls = [state.call(op) for op in self.ops]
        return state.leaves, calls

    def _step(self, op: OpRecord, state: State) -> None:
        call = state.call(op)
        plain = self._plain.get(id(op))
        if plain is None:
            func, args, kwargs = adapted(op, call, self._program.dtype)
            plain = func is op.func and _same(args, call.args) and _same(kwargs, call.kwargs)
            self._plain[id(op)] = plain
        out = op.func(*call.args, **call.kwargs) if plain else state.execute(op, call)
        flat = out if isinstance(out, (list, tuple)) else (out,)
        for slot, value in zip(op.outputs, flat, strict=False):
            if slot is not None and isinstance(value, torch.Tensor):
                state.env[slot] = value


def _same(adapted_to: Any, given: Any) -> bool:
    """Whether arguments were left as they are: their types do not change from run to run."""
    if isinstance(given, dict):
        return list(adapted_to) == list(given) and _same(
            tuple(adapted_to.values()), tuple(given.values())
        )
    return len(adapted_to) == len(given) and all(
        a is b or (not isinstance(a, (torch.Tensor, list, tuple)) and a == b)
        for a, b in zip(adapted_to, given, strict=True)
    )


def _writes(op: OpRecord) -> bool:
    """Whether an operation may write to memory that others read."""
    schema = getattr(op.func, "_schema", None)
    return op.hidden_write or bool(getattr(schema, "is_mutable", False))


def _cone(before: Sequence[OpRecord], ops: Sequence[OpRecord]) -> list[OpRecord]:
    """The operations on which the arguments of `ops` depend, in order."""
    wanted = {slot for op in ops for slot in input_slots(op)}
    found = []
    for op in reversed(before):
        if any(slot in wanted for slot in op.outputs):
            found.append(op)
            wanted.update(input_slots(op))
    return found[::-1]
