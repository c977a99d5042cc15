"""What to write against NaN and infinity."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from clarke.capture import Ref, input_slots

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from clarke.capture import OpRecord
    from clarke.decide.model import Culprit
    from clarke.steering import Program

# What keeps the argument of an operation away from where its slope is not finite.
_GUARDS: Mapping[str, str] = MappingProxyType(
    {
        "sqrt": "torch.sqrt(x.clamp_min(eps)) has slope 0 up to eps",
        "rsqrt": "torch.rsqrt(x.clamp_min(eps)) has slope 0 up to eps",
        "pow": "keep the base away from 0: x.clamp_min(eps) ** p",
        "log": "torch.log(x.clamp_min(eps)) is finite and has slope 0 up to eps",
        "log2": "torch.log2(x.clamp_min(eps)) is finite and has slope 0 up to eps",
        "log10": "torch.log10(x.clamp_min(eps)) is finite and has slope 0 up to eps",
        "log1p": "torch.log1p(x.clamp_min(eps - 1)) is finite and has slope 0 up to eps - 1",
        "xlogy": "torch.xlogy(x, y.clamp_min(eps)) has a finite slope",
        "div": "keep the denominator away from 0: a / b.clamp_min(eps) where b cannot be negative",
        "reciprocal": "keep x away from 0: 1 / x.clamp_min(eps) where x cannot be negative",
        "acos": "torch.acos(x.clamp(-1 + eps, 1 - eps)) has slope 0 beyond",
        "asin": "torch.asin(x.clamp(-1 + eps, 1 - eps)) has slope 0 beyond",
        "atanh": "torch.atanh(x.clamp(-1 + eps, 1 - eps)) is finite",
        "acosh": "torch.acosh(x.clamp_min(1 + eps)) has slope 0 up to 1 + eps",
        "hypot": "torch.linalg.vector_norm(torch.stack((a, b)), dim=0) has slope 0 at the origin",
        "exp": "it overflows: use torch.logsumexp, log_softmax or softplus, or subtract the "
        "maximum first",
        "_softmax": "a row that is -inf throughout has no softmax: mask with "
        "torch.finfo(x.dtype).min instead of -inf",
        "_log_softmax": "a row that is -inf throughout has no softmax: mask with "
        "torch.finfo(x.dtype).min instead of -inf",
    }
)
_CHOOSES = frozenset({"where", "masked_fill", "masked_fill_"})
_SUMS = frozenset({"sum", "mean", "add"})
_SQUARES = frozenset({"pow", "square", "mul"})


def guards(program: Program, culprits: Sequence[Culprit]) -> tuple[str, ...]:
    """What to write against a gradient that is not finite, for the operation named first."""
    ops = program.analysis.recorded.ops
    for culprit in culprits:
        op = next(
            (o for o in ops if (o.shown, o.location) == (culprit.operation, culprit.location)),
            None,
        )
        text = "" if op is None else _guard(ops, op)
        if text:
            return (text,)
    return ()


def _guard(ops: Sequence[OpRecord], op: OpRecord) -> str:
    makers = {s: o for o in ops for s in o.outputs if s is not None}
    name = op.short_name.rstrip("_")
    before = _behind(makers, op, _SUMS | {"select", "index"})
    if name in {"sqrt", "pow"} and before & _SUMS and before & _SQUARES:
        what, norm = "sum", "torch.linalg.vector_norm(x, dim=...)"
        if "mean" in before:
            what, norm = "mean", "torch.linalg.vector_norm(x) / x.numel() ** 0.5"
        return f"The root of a {what} of squares is {norm}, which has slope 0 at 0, a valid one."
    if name == "log" and "_softmax" in before:
        return "torch.log(torch.softmax(x, dim)) is torch.log_softmax(x, dim), which is finite."
    if name == "log" and "sigmoid" in before:
        return "torch.log(torch.sigmoid(x)) is torch.nn.functional.logsigmoid(x), which is finite."
    if name == "log" and "exp" in before:
        return "The log of a sum of exponentials is torch.logsumexp(x, dim), which is finite."
    # A row without any weight is no branch: another value in it would change no other.
    whole = name in {"_softmax", "_log_softmax"}
    if not whole and name in {"exp", "sinh", "cosh", *_GUARDS} and _is_chosen(ops, op):
        return (
            f"torch.where runs the backward pass of both branches, and 0 times infinity is NaN. "
            f"Give {op.shown} a harmless argument where its branch is not taken: "
            f"torch.where(mask, {op.shown}(torch.where(mask, x, 1)), other)."
        )
    text = _GUARDS.get(name, "")
    if text and not text.startswith("torch."):
        text = text[0].upper() + text[1:]
    return f"{text}." if text else ""


def _behind(makers: Mapping[int, OpRecord], op: OpRecord, through: frozenset[str]) -> set[str]:
    """Names of what an operation reads, and of what that reads where it is one of `through`."""
    found: set[str] = set()
    left = [op]
    seen: set[int] = set()
    while left:
        for slot in input_slots(left.pop()):
            maker = makers.get(slot)
            if maker is None or maker.index in seen:
                continue
            seen.add(maker.index)
            name = maker.short_name.rstrip("_")
            found.add(name)
            if name in through:
                left.append(maker)
    return found


def _is_chosen(ops: Sequence[OpRecord], op: OpRecord) -> bool:
    """Whether what an operation made goes into a branch of a ``where``."""
    reached = {s for s in op.outputs if s is not None}
    for later in ops:
        if later.index <= op.index or not reached & set(input_slots(later)):
            continue
        if later.short_name in _CHOOSES:
            branches = later.args[1:3] if later.short_name == "where" else later.args[:1]
            if any(isinstance(a, Ref) and a.slot in reached for a in branches):
                return True
        reached |= {s for s in later.outputs if s is not None}
    return False
