"""A replay and its backward pass ask the deadline at every operation."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import torch

from clarke.numerics import MODULES_LOADED, SLOW_OPERATION

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
        self._modules = len(sys.modules)

    def at(self, position: int) -> None:
        """Ask in front of an operation.

        Raises:
            OutOfTimeError: Time is up.
        """
        if not self._limited:
            return
        left = self._deadline.left
        modules = len(sys.modules)
        if modules - self._modules > MODULES_LOADED:
            # Torch loads its Python rules on first use, once in a process, and takes seconds.
            self._deadline.extend(self._before - left)
            left = self._deadline.left
        self._modules = modules
        if left <= 0:
            self._deadline.ask(
                "running the program again: operation {} of {}", position + 1, len(self._ops)
            )
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
