"""Casts of real numbers to integers and truth values: steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from clarke.capture import Keep
from clarke.kinks.steps import ConstantRule, jump_touch

if TYPE_CHECKING:
    from clarke.capture import OpRecord
    from clarke.kinks.lowering import Lowerer, Part
    from clarke.kinks.model import Call, Touch


@dataclass(frozen=True)
class CastRule(ConstantRule):
    """A cast of real numbers to integers: rounding towards zero, which jumps at integers."""

    @property
    def keep(self) -> Keep:
        return Keep.DISCRETE

    def speaks_for(self, op: OpRecord) -> bool:
        real = 0 not in op.kept or op.kept[0].is_floating_point()
        return real and 0 in op.kept_outputs

    def find(self, op: OpRecord) -> Touch:
        whole = op.kept_outputs[0]
        x = op.kept.get(0)
        if x is None:  # whole before: it jumps where what made it so does
            return jump_touch(op, torch.zeros(whole.shape, dtype=torch.bool), whole.reshape(-1))
        jumps = (x != 0) & (x == x.trunc()) & torch.isfinite(x)
        return jump_touch(op, jumps, whole.to(torch.float64).reshape(-1))

    def evaluate(self, call: Call, selection: torch.Tensor, touch: Touch) -> Any:
        return touch.op.kept_outputs[0]


def cast_to_truth(lo: Lowerer) -> tuple[Part, ...] | None:
    """``x.bool()`` asks whether x differs from zero."""
    if lo.named("dtype") is not torch.bool or not lo.op.kept:
        return None
    x = lo.arg(0, "self")
    return (lo(torch.ops.aten.ne.Scalar, x, 0),) if x.value.is_floating_point() else None
