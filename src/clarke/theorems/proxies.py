"""AD's proxies at the kinks of an operation, measured by differentiating it there."""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch

from clarke.capture import OpRecord, Ref
from clarke.kinks import Call
from clarke.kinks.regions import RegionRule
from clarke.numerics import SHIFT_APART

if TYPE_CHECKING:
    from collections.abc import Sequence

# Slopes at which operations with a learnt slope (prelu) are measured; the answer must not differ.
_SLOPES = (0.25, -0.5)
# Operations whose second tensor is compared with the first; others hold a parameter.
_PAIRS = frozenset({"maximum", "minimum", "fmax", "fmin"})


@dataclass(frozen=True)
class KinkPoint:
    """One kink of an elementwise operation.

    Attributes:
        value: The input (for maximum and minimum: the difference) at which it is.
        upper: AD's weight of the piece above it, the paper's lambda; NaN if AD's derivative is no
            convex combination of the pieces'.
        jump: The pieces do not meet: a step.
    """

    value: float
    upper: float
    jump: bool = False

    @property
    def proper(self) -> bool:
        """Whether AD's proxy is in the Clarke subdifferential of the operation."""
        return self.upper == self.upper and not self.jump

    def __str__(self) -> str:
        share = f"{self.upper:.3g}" if self.proper else "none"
        return f"{share} at {self.value:g}"


def is_pair(op: OpRecord) -> bool:
    """Whether the operation compares two tensors."""
    return op.short_name.removesuffix("_") in _PAIRS


def kink_points(op: OpRecord, rule: RegionRule, dtype: torch.dtype) -> tuple[KinkPoint, ...] | None:
    """The kinks of an operation, smooth junctions left out; None if they cannot be told.

    Args:
        op: The operation; its first argument is replaced by the values at the kinks.
        rule: Its rule.
        dtype: Type in which the program ran it.
    """
    others = [a for a in (*op.args[1:], *op.kwargs.values()) if isinstance(a, Ref)]
    if not others:
        return _measure(op, rule, (), dtype)
    if len(others) > 1 or not isinstance(op.args[1], Ref) or len(op.args) > 2:
        return None
    if is_pair(op):
        return _measure(op, rule, (0.0,), dtype)
    if op.short_name not in ("_prelu_kernel", "prelu"):
        return None
    found = {_measure(op, rule, (slope,), dtype) for slope in _SLOPES}
    return found.pop() if len(found) == 1 else None


def _measure(
    op: OpRecord, rule: RegionRule, second: Sequence[float], dtype: torch.dtype
) -> tuple[KinkPoint, ...] | None:
    zero = torch.zeros(1, dtype=dtype)

    def call(x: torch.Tensor) -> Call:
        more = [torch.full_like(x, s) for s in second]
        return Call(op.func, (x, *more, *op.args[1 + len(second) :]), op.kwargs)

    with torch.no_grad():
        splits = [torch.as_tensor(s) for s in rule.split(call(zero))]
        ones = [torch.as_tensor(s) for s in rule.split(call(zero + 1))]
    if any(s.numel() != 1 for s in (*splits, *ones)):
        return None
    # All switching functions must be x minus a number, for the kinks to be where we look.
    values = [0.0 - float(s) for s in splits]
    if any(abs(float(o) - float(s) - 1) > SHIFT_APART for s, o in zip(splits, ones, strict=True)):
        return None
    if sorted(set(values)) != values:
        return None
    x = torch.tensor(values, dtype=dtype)
    given = call(x)
    kept = {i: a for i, a in enumerate(given.args) if isinstance(a, torch.Tensor)}
    args = tuple(None if i in kept else a for i, a in enumerate(given.args))
    touch = rule.find(replace(op, args=args, kept=MappingProxyType(kept)))
    if touch.count != len(values):
        return None
    smooth = _meets_smoothly(rule, given, touch.members, touch.owner)
    hazards = {int(k): h for h, kinks in touch.hazards.items() for k in kinks}
    found = []
    for i, value in enumerate(values):
        own = touch.owner == i
        if int(own.sum()) != 2:
            return None
        hazard = hazards.get(i)
        if hazard is not None:
            found.append(KinkPoint(value, float("nan"), jump=hazard.name == "STEP"))
        elif not smooth[i]:
            found.append(KinkPoint(value, float(touch.weights[own][1])))
    return tuple(found)


def _meets_smoothly(
    rule: RegionRule, call: Call, members: torch.Tensor, owner: torch.Tensor
) -> list[bool]:
    """For every kink, whether the two pieces have equal derivatives there (elu with alpha 1)."""
    with torch.enable_grad():
        args: list[Any] = list(call.args)
        inputs = [
            a.detach().to(torch.float64).requires_grad_() if _is_float(a) else a for a in args
        ]
        wrt = [a for a in inputs if _is_float(a)]
        pieces = rule.pieces(Call(call.func, tuple(inputs), call.kwargs))
        slopes = []
        for piece in pieces:
            total = piece.sum()
            grads = (
                torch.autograd.grad(total, wrt, allow_unused=True)
                if total.requires_grad
                else [None] * len(wrt)
            )
            slopes.append(
                torch.stack(
                    [
                        torch.zeros_like(w) if g is None else g
                        for g, w in zip(grads, wrt, strict=True)
                    ]
                )
            )
    found = []
    for i in range(wrt[0].numel()):
        a, b = members[owner == i][:2].tolist()
        found.append(bool((slopes[a][:, i] == slopes[b][:, i]).all()))
    return found


def _is_float(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.is_floating_point()


def elementwise_result(op: OpRecord, read: Sequence[torch.Tensor | None]) -> torch.Tensor | None:
    """The result on the meta device where it has the layout of all that is read; else None.

    Asking torch for it may load all of its compiler.
    """
    func, first = op.func, read[0] if read else None
    if first is None or torch.Tag.pointwise not in func.tags or func._schema.is_mutable:
        return None
    if len(func._schema.returns) != 1 or "memory_format" in op.kwargs:
        return None
    layout = first.shape, first.stride()
    alike = all(t is not None and (t.shape, t.stride()) == layout for t in read)
    return torch.empty_like(first) if alike else None
