"""A replay and its backward pass ask the deadline at every operation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from clarke.numerics import SLOW_OPERATION

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from clarke.capture import OpRecord
    from clarke.deadline import Deadline


class Pace:
    """Follows one replay.

    What takes long forward takes long backward as well, in one call of autograd's engine that
    nothing interrupts but a hook: so each slow operation gets one, which asks.

    Args:
        deadline: What is asked.
        ops: The operations, in the order in which they run.
        env: Their results by slot, as far as they have run.
    """

    def __init__(
        self, deadline: Deadline, ops: Sequence[OpRecord], env: Mapping[int, torch.Tensor]
    ) -> None:
        self._deadline = deadline
        self._ops = ops
        self._env = env
        self._limited = deadline.left < float("inf")
        self._before = deadline.left

    def at(self, position: int) -> None:
        """Ask in front of an operation.

        Raises:
            OutOfTimeError: Time is up.
        """
        if not self._limited:
            return
        self._deadline.ask(
            "running the program again: operation {} of {}", position + 1, len(self._ops)
        )
        left = self._deadline.left
        if position and self._before - left > SLOW_OPERATION:
            self._watch(self._ops[position - 1])
        self._before = left

    def _watch(self, op: OpRecord) -> None:
        for slot in op.outputs:
            value = None if slot is None else self._env.get(slot)
            if value is not None and value.requires_grad:
                value.register_hook(self._ask)

    def _ask(self, _: torch.Tensor) -> None:
        self._deadline.ask("differentiating the program")
