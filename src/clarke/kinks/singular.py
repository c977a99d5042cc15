"""Operations that are analytic except at named inputs where a slope is infinite or undefined."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from clarke.kinks.model import Call, Hazard, KinkRule, Touch

if TYPE_CHECKING:
    from collections.abc import Callable

    from clarke.capture import OpRecord


@dataclass(frozen=True)
class SingularRule(KinkRule):
    """A rule that only says where the operation is not analytic.

    Attributes:
        special: Gives a boolean tensor, true where an input (or output) element is special.
        hazard: What it is there.
    """

    special: Callable[[Call], torch.Tensor]
    hazard: Hazard = Hazard.INFINITE_SLOPE

    def find(self, op: OpRecord) -> Touch:
        call = Call(op.func, tuple(op.kept.get(i, a) for i, a in enumerate(op.args)), op.kwargs)
        with torch.no_grad():
            elements = torch.as_tensor(self.special(call)).reshape(-1).nonzero().squeeze(1)
        count = elements.numel()
        owner = torch.arange(count)
        hazards = {self.hazard: owner} if count else {}
        ones = torch.ones(count, dtype=torch.float64)
        base = torch.zeros(0, dtype=torch.int8)
        return Touch(op, elements, elements, owner, ones, hazards, base)

    def merge(self, touch: Touch, choice: torch.Tensor) -> torch.Tensor:
        return touch.base

    def evaluate(self, call: Call, selection: torch.Tensor, touch: Touch) -> Any:
        return call.func(*call.args, **call.kwargs)

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


def first_is_zero(call: Call) -> torch.Tensor:
    """Where the first argument is zero."""
    return torch.as_tensor(call.args[0] == 0)


def first_is_plus_minus_one(call: Call) -> torch.Tensor:
    """Where the first argument is 1 or -1."""
    return torch.as_tensor(call.args[0].abs() == 1)


def power_is_special(call: Call) -> torch.Tensor:
    """Where the base is zero and the exponent is not a non-negative integer."""
    base, exponent = torch.as_tensor(call.args[0]), torch.as_tensor(call.args[1])
    natural = (exponent >= 0) & (exponent == exponent.round())
    # A differentiated exponent needs log(base), which is infinite at zero.
    varied = isinstance(call.args[1], torch.Tensor) and call.args[1].dim() > 0
    return (base == 0) & (~natural | varied)


def both_are_zero(call: Call) -> torch.Tensor:
    """Where both arguments are zero."""
    return torch.as_tensor((call.args[0] == 0) & (call.args[1] == 0))


def spread_is_zero(call: Call) -> torch.Tensor:
    """Where the values over the reduced dimensions are all equal."""
    x = call.args[0]
    dims = call.arg(1, "dim")
    dims = list(range(x.dim())) if not dims else ([dims] if isinstance(dims, int) else list(dims))
    return torch.as_tensor(x.amax(dims) == x.amin(dims)) if x.dim() else torch.tensor(True)


def euclidean_norm_is_zero(call: Call) -> torch.Tensor:
    """Where a vector of Euclidean length zero is measured; other orders count as special."""
    x = call.args[0]
    order = call.arg(1, "ord", 2)
    dims = call.arg(2, "dim")
    if x.numel() == 0:
        return torch.zeros(0, dtype=torch.bool)
    if order != 2:
        return torch.tensor(True)
    dims = list(range(x.dim())) if dims is None else ([dims] if isinstance(dims, int) else dims)
    return torch.as_tensor((x != 0).any(dims[0]) == 0) if len(dims) == 1 else _all_zero(x, dims)


def _all_zero(x: torch.Tensor, dims: list[int]) -> torch.Tensor:
    return x.abs().amax(dims) == 0
