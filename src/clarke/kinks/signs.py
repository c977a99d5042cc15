"""sign: constant -1 and 1 on either side of zero.

Autograd's derivative of sign is zero, but what multiplies a sign is differentiated: there the
value 0 that sign has at 0 acts as the mixture of its two pieces, half and half.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch

from clarke.kinks.model import Call, KinkRule, Touch

if TYPE_CHECKING:
    from clarke.capture import OpRecord


class SignRule(KinkRule):
    """sign and sgn of real numbers: pieces -1 and 1, separated by the input."""

    by_value: ClassVar[bool] = True

    def find(self, op: OpRecord) -> Touch:
        x = op.kept[0]
        with torch.no_grad():
            value = torch.sign(x).reshape(-1).to(torch.int8)
            elements = (value == 0).nonzero().squeeze(1)
        count = elements.numel()
        owner = torch.arange(count).repeat_interleave(2)
        members = torch.tensor([-1, 1]).repeat(count)
        weights = torch.full((2 * count,), 0.5, dtype=torch.float64)
        return Touch(op, elements, members, owner, weights, {}, value)

    def evaluate(self, call: Call, selection: torch.Tensor, touch: Touch) -> Any:
        x = call.args[0]
        return selection.reshape(x.shape).to(x.dtype) + 0 * x

    def candidates(self, call: Call, touch: Touch) -> torch.Tensor:
        return touch.members.to(call.args[0].dtype)

    def switching(self, call: Call, touch: Touch) -> torch.Tensor:
        values: torch.Tensor = call.args[0].reshape(-1)[touch.elements]
        return values

    def rows(
        self, call: Call, touch: Touch, choice: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        values = self.switching(call, touch)
        return values * choice.to(values.dtype), torch.arange(touch.count)

    def along(self, call: Call, touch: Touch, tangents: torch.Tensor) -> torch.Tensor:
        return torch.where(tangents > 0, 1, -1)
