"""What to write instead: rewritings that were tried at the point, and guards against NaN.

A rewriting of a kink is shown only where its slopes, in the place of autograd's, give a gradient in
the set. So it is never the operation at fault itself, whose slopes gave a wrong one.
"""

from __future__ import annotations

from pathlib import PurePath
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

import torch

from clarke.capture import Ref, input_slots
from clarke.constraints import flatten
from clarke.deadline import rung
from clarke.errors import BudgetError
from clarke.numerics import CURE_SHARE
from clarke.steering import selected_gradient

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from clarke.capture import OpRecord
    from clarke.decide.model import Culprit
    from clarke.kinks import Touch
    from clarke.steering import Program

    # Whether a gradient is in the set; None where that cannot be told.
    Valid = Callable[[NDArray[np.float64]], bool | None]

_MOST = 4  # operations whose rewritings are tried
_CLAMPS = frozenset({"clamp", "clamp_min", "clamp_max", "relu", "threshold"})
_SOFTPLUS = (
    "max(x, 0) + log1p(exp(-|x|)) is torch.nn.functional.softplus(x), which is smooth; "
    "with -x*t added it is torch.nn.functional.binary_cross_entropy_with_logits(x, t)."
)
_MASK = (
    "A mask from a comparison decides the slope at the tie: use torch.relu, torch.where "
    "with equal values on both sides, or torch.maximum."
)
_ELSE = (
    "No rewriting is known that is right here. Combine the kinks that cancel into one operation, "
    "or take a valid gradient: clarke.grad(f, inputs), clarke.audit(on_wrong='repair')."
)


class Slopes(NamedTuple):
    """What can be written for an operation to get another slope at its kink, "" for nothing.

    Attributes:
        mean: The mean of both.
        first: That of the first piece: of the left side, of the first argument.
        last: That of the last piece.
    """

    mean: str = ""
    first: str = ""
    last: str = ""


_REWRITINGS: Mapping[str, Slopes] = MappingProxyType(
    {
        "relu": Slopes("torch.maximum(x, torch.zeros_like(x))", "", "torch.where(x >= 0, x, 0)"),
        "clamp": Slopes("torch.minimum(torch.maximum(x, low), high)"),
        "clamp_min": Slopes("torch.maximum(x, low)", "torch.where(x > low, x, low)"),
        "clamp_max": Slopes("torch.minimum(x, high)", "", "torch.where(x < high, x, high)"),
        "hardtanh": Slopes("torch.minimum(torch.maximum(x, low), high)"),
        "leaky_relu": Slopes("", "", "torch.where(x >= 0, x, slope * x)"),
        "abs": Slopes("", "torch.where(x > 0, x, -x)", "torch.where(x >= 0, x, -x)"),
        "maximum": Slopes("", "torch.where(a >= b, a, b)", "torch.where(a > b, a, b)"),
        "minimum": Slopes("", "torch.where(a <= b, a, b)", "torch.where(a < b, a, b)"),
        "max": Slopes("torch.amax(x, dim)"),
        "min": Slopes("torch.amin(x, dim)"),
    }
)


def hints(
    program: Program, culprits: Sequence[Culprit], valid: Valid | None = None
) -> tuple[str, ...]:
    """Rewritings without the fault of the kinks that made the gradient wrong.

    Args:
        program: The program at its point.
        culprits: The operations at fault.
        valid: Tells whether a gradient is in the set; without it nothing can be tried.
    """
    names = {op.short_name.rstrip("_") for op in program.analysis.trace.ops}
    own = {c.operation.rstrip("_") for c in culprits}
    if own & _CLAMPS and "abs" in own and "log1p" in names and "exp" in names:
        return (_SOFTPLUS,)
    if own & {"max", "amax", "maximum"} and {"exp", "log"} <= names:
        return ("A maximum inside log and exp: torch.logsumexp is smooth.",)
    if own & {"gt", "ge", "lt", "le", "sign"}:
        return (_MASK,)
    try:
        part = program.within(program.deadline.part(float(CURE_SHARE)))
        found = None if valid is None else _tried(part, culprits, valid)
    except BudgetError:  # time, too: the verdict stands without
        found = None
    if found is None and not own & set(_REWRITINGS):
        return ()  # a Function of the user's own, for one, whose reason says what to mend
    return (found or _ELSE,)


@rung("looking for a rewriting")
def _tried(program: Program, culprits: Sequence[Culprit], valid: Valid) -> str | None:
    """The first rewriting of one operation, else of all, whose gradient is in the set."""
    groups = _groups(program, culprits)
    for name, touches in list(groups.items())[:_MOST]:
        for text, weights in _candidates(name, touches):
            if valid(flatten(selected_gradient(program, weights=weights))):
                return f"{text} in place of {_named(touches)} makes the gradient right here."
    means: dict[int, torch.Tensor] = {}
    texts = []
    for name, touches in groups.items():
        text = _REWRITINGS.get(_one_sided(name, touches), Slopes()).mean
        mean = _weights(touches, "mean") if text else None
        if mean is None:
            continue
        means.update(mean)
        texts.append(f"{text} in place of {_named(touches)}")
    if len(texts) > 1 and valid(flatten(selected_gradient(program, weights=means))):
        return f"{' and '.join(texts)} make the gradient right here."
    return None


def _groups(program: Program, culprits: Sequence[Culprit]) -> dict[str, dict[int, Touch]]:
    """Touches of the operations at fault by position, by name."""
    named = {(c.operation, c.location) for c in culprits}
    found: dict[str, dict[int, Touch]] = {}
    for site in program.analysis.ordered():
        touch = site.touch
        op = touch.op
        if touch.count and (op.shown, op.location) in named:
            found.setdefault(op.shown.rstrip("_"), {})[site.position] = touch
    return found


def _candidates(
    name: str, touches: Mapping[int, Touch]
) -> Iterator[tuple[str, dict[int, torch.Tensor]]]:
    slopes = _REWRITINGS.get(_one_sided(name, touches), Slopes())
    for kind, text in slopes._asdict().items():
        weights = _weights(touches, kind) if text else None
        if weights is not None:
            yield text, weights


def _one_sided(name: str, touches: Mapping[int, Touch]) -> str:
    """A clamp by the bound that it has, where it has one."""
    if name != "clamp":
        return name
    bounds = set()
    for touch in touches.values():
        given = {**dict(zip(("x", "min", "max"), touch.op.args, strict=False)), **touch.op.kwargs}
        bounds |= {side for side in ("min", "max") if given.get(side) is not None}
    return f"clamp_{bounds.pop()}" if len(bounds) == 1 else name


def _weights(touches: Mapping[int, Touch], kind: str) -> dict[int, torch.Tensor] | None:
    """Weights of every candidate under a rewriting; None where they are more than it knows."""
    found = {}
    for position, touch in touches.items():
        sizes = torch.bincount(touch.owner, minlength=touch.count)
        first = torch.zeros_like(sizes)
        first[1:] = sizes.cumsum(0)[:-1]
        if touch.hazards or (kind != "mean" and bool((sizes != 2).any())):
            return None
        if kind == "mean":
            found[position] = 1.0 / sizes[touch.owner].to(torch.float64)
        else:
            chosen = first if kind == "first" else first + sizes - 1
            weights = torch.zeros(len(touch.owner), dtype=torch.float64)
            weights[chosen] = 1.0
            found[position] = weights
    return found


def _named(touches: Mapping[int, Touch]) -> str:
    ops = [t.op for t in touches.values()]
    many = "both " if len(ops) == 2 else ("every " if len(ops) > 2 else "")
    lines = dict.fromkeys(_place(op) for op in ops)
    plural = "s" if len(ops) == 2 else ""
    return f"{many}{ops[0].shown}{plural} at {', '.join(lines)}"


def _place(op: OpRecord) -> str:
    return f"{PurePath(op.location.file).name}:{op.location.line}"


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
        return (
            "The root of a sum of squares is torch.linalg.vector_norm(x, dim=...), which has "
            "slope 0 at 0, a valid one."
        )
    if name == "log" and "_softmax" in before:
        return "torch.log(torch.softmax(x, dim)) is torch.log_softmax(x, dim), which is finite."
    if name == "log" and "sigmoid" in before:
        return "torch.log(torch.sigmoid(x)) is torch.nn.functional.logsigmoid(x), which is finite."
    if name == "log" and "exp" in before:
        return "The log of a sum of exponentials is torch.logsumexp(x, dim), which is finite."
    if name in {"exp", "sinh", "cosh", *_GUARDS} and _is_chosen(ops, op):
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
