"""One operation as the rules of `clarke.theorems.transfer` see it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from clarke.capture import OpRecord, Ref, input_slots
from clarke.theorems.affine import State

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class Step:
    """One operation on states.

    Args:
        op: The operation.
        states: States by slot.
        shapes: Shapes of the results.
    """

    def __init__(
        self, op: OpRecord, states: Mapping[int, State], shapes: Sequence[torch.Size | None]
    ) -> None:
        self.op = op
        self.shapes = shapes
        self._states = states

    def state(self, value: Any) -> State:
        """The state of an argument; numbers are constants."""
        if isinstance(value, Ref):
            return self._states.get(value.slot, State(None))
        if isinstance(value, (int, float)):
            return State(torch.Size(()), data=torch.tensor(float(value), dtype=torch.float64))
        return State(None)

    def arg(self, position: int, name: str, default: Any = None) -> Any:
        """An argument by position or name."""
        if position < len(self.op.args):
            return self.op.args[position]
        return self.op.kwargs.get(name, default)

    def reads(self) -> list[State]:
        """The states of all tensors that the operation reads."""
        return [self._states.get(s, State(None)) for s in input_slots(self.op)]


def shape_of(state: State) -> torch.Size:
    """The shape of a state of which `transfer` knows one."""
    assert state.shape is not None  # noqa: S101 - transfer() has looked
    return state.shape


def number_of(value: Any) -> float | None:
    """A number that is no truth value, as a float; None for all else."""
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None
