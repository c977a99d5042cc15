"""Piecewise constant operations: comparisons, sign, rounding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from clarke.kinks.model import Call, Hazard, KinkRule, Touch

if TYPE_CHECKING:
    from collections.abc import Callable

    from clarke.capture import OpRecord


def _difference(call: Call) -> torch.Tensor:
    left, right = call.args[0], call.args[1]
    return torch.as_tensor(left - right)


@dataclass(frozen=True)
class ComparisonRule(KinkRule):
    """gt, ge, lt, le, eq, ne: pieces False and True on either side of ``left - right = 0``.

    Attributes:
        below: The value where left < right.
        above: The value where left > right.
        equal: The value where they are equal: the side that AD follows.
    """

    by_value: ClassVar[bool] = True

    below: bool
    above: bool
    equal: bool

    def _call(self, op: OpRecord) -> Call:
        return Call(op.func, tuple(op.kept.get(i, a) for i, a in enumerate(op.args)), op.kwargs)

    def find(self, op: OpRecord) -> Touch:
        with torch.no_grad():
            gap = _difference(self._call(op)).reshape(-1)
        value = torch.where(gap > 0, self.above, self.below)
        value = torch.where(gap == 0, self.equal, value).to(torch.int8)
        elements = (gap == 0).nonzero().squeeze(1)
        count = elements.numel()
        owner = torch.arange(count)
        if self.below == self.above:
            members = torch.full((count,), int(self.below))
            isolated = {Hazard.ISOLATED: owner} if count else {}
            weights = torch.ones(count, dtype=torch.float64)
            return Touch(op, elements, members, owner, weights, isolated, value)
        # Candidates are the truth values; AD follows the one that held.
        members = torch.tensor([0, 1]).repeat(count)
        weights = (members == int(self.equal)).to(torch.float64)
        return Touch(op, elements, members, owner.repeat_interleave(2), weights, {}, value)

    def evaluate(self, call: Call, selection: torch.Tensor, touch: Touch) -> Any:
        shape = torch.broadcast_shapes(
            *(a.shape for a in call.args if isinstance(a, torch.Tensor))
        )
        return (selection == 1).reshape(shape)

    def candidates(self, call: Call, touch: Touch) -> torch.Tensor:
        return touch.members.to(torch.float64)

    def switching(self, call: Call, touch: Touch) -> torch.Tensor:
        return _difference(call).reshape(-1)[touch.elements]

    def rows(
        self, call: Call, touch: Touch, choice: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        values = self.switching(call, touch)
        sign = torch.where(choice == int(self.above), 1.0, -1.0).to(values.dtype)
        return values * sign, torch.arange(touch.count)

    def along(self, call: Call, touch: Touch, tangents: torch.Tensor) -> torch.Tensor:
        return torch.where(tangents > 0, int(self.above), int(self.below))


@dataclass(frozen=True)
class StepRule(KinkRule):
    """sign, round, floor, ceil, trunc, frac: constant (or x minus a constant) between jumps.

    Attributes:
        at_jump: Says elementwise whether an input stands on a jump.
        residue: The operation returns x minus the constant (frac) instead of the constant.
    """

    at_jump: Callable[[torch.Tensor], torch.Tensor]
    residue: bool = False

    def find(self, op: OpRecord) -> Touch:
        x = op.kept[0]
        with torch.no_grad():
            value = op.func(x.clone(), *op.args[1:], **op.kwargs).to(torch.float64).reshape(-1)
            if self.residue:
                value = x.to(torch.float64).reshape(-1) - value
            elements = self.at_jump(x).reshape(-1).nonzero().squeeze(1)
        count = elements.numel()
        hazards = {Hazard.STEP: torch.arange(count)} if count else {}
        ones = torch.ones(count, dtype=torch.float64)
        return Touch(op, elements, elements, torch.arange(count), ones, hazards, value.clone())

    def merge(self, touch: Touch, choice: torch.Tensor) -> torch.Tensor:
        return touch.base

    def evaluate(self, call: Call, selection: torch.Tensor, touch: Touch) -> Any:
        x = call.args[0]
        constant = selection.to(x.dtype).reshape(x.shape)
        return x - constant if self.residue else constant + 0 * x

    def candidates(self, call: Call, touch: Touch) -> torch.Tensor:
        return torch.zeros(touch.members.numel(), dtype=torch.float64)

    def switching(self, call: Call, touch: Touch) -> torch.Tensor:
        return self.candidates(call, touch)

    def rows(
        self, call: Call, touch: Touch, choice: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.zeros(0, dtype=torch.float64), torch.zeros(0, dtype=torch.int64)

    def along(self, call: Call, touch: Touch, tangents: torch.Tensor) -> torch.Tensor:
        return touch.members
