"""What to write instead of kinks that make a gradient wrong: rewritings that were tried there.

A rewriting of a kink is shown only where its slopes, in the place of autograd's, give a gradient in
the set. So it is never the operation at fault itself, whose slopes gave a wrong one.
"""

from __future__ import annotations

from pathlib import PurePath
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

import torch

from clarke.constraints import flatten
from clarke.deadline import rung
from clarke.decide.smoothed import smooth_instead
from clarke.decide.verification import ad_weights
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
        first: That of the piece on the left, where the (first) argument is smaller.
        last: That of the piece on the right.
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
        "maximum": Slopes("", "torch.where(a > b, a, b)", "torch.where(a >= b, a, b)"),
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
    if own & {"gt", "ge", "lt", "le", "sign"}:
        return (_MASK,)
    found = None
    try:
        part = program.within(program.deadline.part(float(CURE_SHARE)))
        if valid is not None and "exp" in names:
            found = smooth_instead(part, culprits, valid)
        if valid is not None and found is None:
            found = _tried(part, culprits, valid)
    except BudgetError:  # time, too: the verdict stands without
        found = None
    if found is None and not own & set(_REWRITINGS):
        return ()  # a Function of the user's own, for one, whose reason says what to mend
    return (found or _ELSE,)


@rung("looking for a rewriting")
def _tried(program: Program, culprits: Sequence[Culprit], valid: Valid) -> str | None:
    """The first rewriting of one operation, else of all, whose gradient is in the set."""
    groups = _groups(program, culprits)
    own = ad_weights(program)  # of what stays as it is

    def right(weights: Mapping[int, torch.Tensor]) -> bool:
        return valid(flatten(selected_gradient(program, weights={**own, **weights}))) is True

    for name, touches in list(groups.items())[:_MOST]:
        for text, weights in _candidates(name, touches):
            if right(weights):
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
    if len(texts) > 1 and right(means):
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
