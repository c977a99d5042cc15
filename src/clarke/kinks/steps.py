"""Piecewise constant operations: comparisons, sign, rounding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from clarke.capture import Ref
from clarke.kinks.model import Call, Hazard, KinkRule, Touch, UnsteeredRule, broadcast_shape

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

    @property
    def isolated(self) -> bool:
        """Whether it gives the same on both sides, and something else at equality only."""
        return self.below == self.above

    def _call(self, op: OpRecord) -> Call:
        return Call(op.func, tuple(op.kept.get(i, a) for i, a in enumerate(op.args)), op.kwargs)

    def places(self, op: OpRecord) -> tuple[int, torch.Tensor] | None:
        none = torch.zeros(0, dtype=torch.int64)
        if isinstance(op.args[0], Ref) and op.args[0] == op.args[1]:
            return op.kept[0].numel(), none
        with torch.no_grad():
            gap = _difference(self._call(op))
            touched = int(gap.count_nonzero()) != gap.numel()
        return None if touched else (gap.numel(), none)

    def find(self, op: OpRecord) -> Touch:
        if isinstance(op.args[0], Ref) and op.args[0] == op.args[1]:
            # x == x asks for NaN only.
            same = torch.full((op.kept[0].numel(),), int(self.equal), dtype=torch.int8)
            return jump_touch(op, torch.zeros(0, dtype=torch.bool), same)
        with torch.no_grad():
            gap = _difference(self._call(op)).reshape(-1)
        value = torch.where(gap > 0, self.above, self.below)
        value = torch.where(gap == 0, self.equal, value).to(torch.int8)
        elements = (gap == 0).nonzero().squeeze(1)
        count = elements.numel()
        owner = torch.arange(count)
        # Candidates are the truth values; AD follows the one that held.
        members = torch.tensor([0, 1]).repeat(count)
        weights = (members == int(self.equal)).to(torch.float64)
        return Touch(op, elements, members, owner.repeat_interleave(2), weights, {}, value)

    def evaluate(self, call: Call, selection: torch.Tensor, touch: Touch) -> Any:
        shape = broadcast_shape(*call.args)
        return (selection == 1).reshape(shape)

    def candidates(self, call: Call, touch: Touch) -> torch.Tensor:
        return touch.members.to(torch.float64)

    def switching(self, call: Call, touch: Touch) -> torch.Tensor:
        return _difference(call).reshape(-1)[touch.elements]

    def rows(
        self, call: Call, touch: Touch, choice: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        values = self.switching(call, touch)
        if self.isolated:
            # What holds at equality only holds nowhere beside it: the rows contradict each other.
            at = (choice != int(self.below)).nonzero().squeeze(1)
            return torch.cat([values[at], -values[at]]), torch.cat([at, at])
        sign = torch.where(choice == int(self.above), 1.0, -1.0).to(values.dtype)
        return values * sign, torch.arange(touch.count)

    def along(self, call: Call, touch: Touch, tangents: torch.Tensor) -> torch.Tensor:
        return torch.where(tangents > 0, int(self.above), int(self.below))


@dataclass(frozen=True)
class StepRule(UnsteeredRule):
    """sign, round, floor, ceil, trunc, frac: constant (or x minus a constant) between jumps.

    Attributes:
        at_jump: Says elementwise whether an input stands on a jump.
        residue: The operation returns x minus the constant (frac) instead of the constant.
        scaled: It rounds to `decimals` decimal places.
    """

    at_jump: Callable[[torch.Tensor], torch.Tensor]
    residue: bool = False
    scaled: bool = False

    def find(self, op: OpRecord) -> Touch:
        x = op.kept[0]
        args = tuple(op.kept.get(i, a) for i, a in enumerate(op.args))
        with torch.no_grad():
            out = op.func(x.clone(), *args[1:], **op.kwargs)
            value = out.to(torch.float64).reshape(-1)
            if self.residue:
                value = x.to(torch.float64).reshape(-1) - value
            if self.scaled:
                x = x * 10.0 ** op.kwargs.get("decimals", 0)
            elements = self.at_jump(x.expand(out.shape)).reshape(-1).nonzero().squeeze(1)
        count = elements.numel()
        hazards = {Hazard.STEP: torch.arange(count)} if count else {}
        ones = torch.ones(count, dtype=torch.float64)
        return Touch(op, elements, elements, torch.arange(count), ones, hazards, value.clone())

    def is_level(self) -> bool:
        return not self.residue

    def evaluate(self, call: Call, selection: torch.Tensor, touch: Touch) -> Any:
        x = call.args[0]
        if touch.op.name == "aten::signbit.default":
            return (selection != 0).reshape(x.shape)
        if len(call.args) > 1 and isinstance(call.args[1], torch.Tensor):
            x = x.expand(broadcast_shape(x, call.args[1]))
        constant = selection.to(x.dtype).reshape(x.shape)
        return x - constant if self.residue else constant + 0 * x


@dataclass(frozen=True)
class ConstantRule(UnsteeredRule):
    """isnan, isinf: constant around every input without NaN and infinities."""

    def is_level(self) -> bool:
        return True

    def find(self, op: OpRecord) -> Touch:
        return untouched(op)


def untouched(op: OpRecord) -> Touch:
    """No kink is touched, and no selection is needed."""
    return jump_touch(op, torch.zeros(0, dtype=torch.bool), torch.zeros(0, dtype=torch.int8))


def jump_touch(op: OpRecord, jumps: torch.Tensor, base: torch.Tensor) -> Touch:
    """Kinks where `jumps` holds, all of them steps, with a selection that keeps `base`."""
    elements = jumps.reshape(-1).nonzero().squeeze(1)
    count = elements.numel()
    owner = torch.arange(count)
    hazards = {Hazard.STEP: owner} if count else {}
    ones = torch.ones(count, dtype=torch.float64)
    return Touch(op, elements, elements, owner, ones, hazards, base)


def _numbers(op: OpRecord) -> tuple[torch.Tensor, torch.Tensor]:
    left, right = (torch.as_tensor(op.kept.get(i, op.args[i])) for i in (0, 1))
    return torch.broadcast_tensors(left, right)  # type: ignore[no-any-return]


@dataclass(frozen=True)
class RemainderRule(ConstantRule):
    """remainder and fmod: ``x - y * q`` with a quotient q that jumps.

    Attributes:
        truncated: The quotient is rounded towards zero (fmod), not down.
    """

    truncated: bool

    def is_level(self) -> bool:
        return False

    def find(self, op: OpRecord) -> Touch:
        x, y = _numbers(op)
        with torch.no_grad():
            rest = torch.fmod(x, y) if self.truncated else torch.remainder(x, y)
            quotient = ((x.double() - rest.double()) / y.double()).round()
            jumps = rest == 0
            if self.truncated:
                jumps = jumps & (x != 0)
        return jump_touch(op, jumps, quotient.reshape(-1))

    def evaluate(self, call: Call, selection: torch.Tensor, touch: Touch) -> Any:
        x, y = (torch.as_tensor(a) for a in call.args[:2])
        shape = broadcast_shape(x, y)
        dtype = torch.promote_types(x.dtype, y.dtype)
        return x - y * selection.to(dtype).reshape(shape)


@dataclass(frozen=True)
class QuotientRule(ConstantRule):
    """floor_divide, and div with a rounding mode: a quotient that jumps."""

    def find(self, op: OpRecord) -> Touch:
        x, y = _numbers(op)
        mode = op.kwargs.get("rounding_mode", "floor" if "floor" in op.short_name else None)
        with torch.no_grad():
            if mode is None:
                return untouched(op)
            value = torch.div(x, y, rounding_mode=mode)
            jumps = torch.fmod(x, y) == 0
            if mode == "trunc":
                jumps = jumps & (x != 0)
        return jump_touch(op, jumps, value.to(torch.float64).reshape(-1))

    def evaluate(self, call: Call, selection: torch.Tensor, touch: Touch) -> Any:
        out = call.func(*call.args, **call.kwargs)
        if touch.base.numel() == 0:
            return out
        return 0 * out + selection.to(out.dtype).reshape(out.shape)


@dataclass(frozen=True)
class SignCopyRule(ConstantRule):
    """copysign of a constant: a sign that jumps where the second argument is 0."""

    def find(self, op: OpRecord) -> Touch:
        x, sign = _numbers(op)
        with torch.no_grad():
            value = torch.copysign(x, sign)
            jumps = (sign == 0) & (x != 0)
        return jump_touch(op, jumps, value.to(torch.float64).reshape(-1))

    def evaluate(self, call: Call, selection: torch.Tensor, touch: Touch) -> Any:
        out = call.func(*call.args, **call.kwargs)
        return 0 * out + selection.to(out.dtype).reshape(out.shape)


@dataclass(frozen=True)
class MantissaRule(ConstantRule):
    """frexp: ``x / 2**e`` with a whole number e that jumps at powers of 2, and at 0."""

    def is_level(self) -> bool:
        return False

    def find(self, op: OpRecord) -> Touch:
        with torch.no_grad():
            mantissa, exponent = torch.frexp(op.kept[0])
        jumps = (mantissa.abs() == 0.5) | (mantissa == 0)
        return jump_touch(op, jumps, exponent.to(torch.float64).reshape(-1))

    def evaluate(self, call: Call, selection: torch.Tensor, touch: Touch) -> Any:
        x = call.args[0]
        # 2 ** -e alone overflows where x is below the smallest normal number.
        half = torch.exp2(-selection / 2).to(x.dtype).reshape(x.shape)
        return x * half * half, selection.to(torch.int32).reshape(x.shape)


@dataclass(frozen=True)
class SearchRule(ConstantRule):
    """bucketize and searchsorted: an integer that jumps where a value equals a boundary.

    Attributes:
        sorted_first: The boundaries are the first argument.
    """

    sorted_first: bool

    def find(self, op: OpRecord) -> Touch:
        bounds, values = (op.kept[0], op.kept[1]) if self.sorted_first else (op.kept[1], op.kept[0])
        with torch.no_grad():
            kwargs = {k: v for k, v in op.kwargs.items() if k == "sorter" and v is not None}
            if kwargs:
                equal = torch.isin(values, bounds)
            else:
                low = torch.searchsorted(bounds, values)
                equal = torch.searchsorted(bounds, values, right=True) > low
        return jump_touch(op, equal, op.kept_outputs[0].reshape(-1).clone())

    def evaluate(self, call: Call, selection: torch.Tensor, touch: Touch) -> Any:
        return touch.op.kept_outputs[0]
