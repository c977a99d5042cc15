"""Kinks that cancel in exact arithmetic: softplus and logsigmoid as they are written by hand.

Tried as the rewritings of `finite_cures` are: the function has to keep its value, here and beside
the point, and its gradient has to be in the set.
"""

from __future__ import annotations

import math
from types import MappingProxyType
from typing import TYPE_CHECKING

import torch

from clarke.constraints import flatten
from clarke.deadline import rung
from clarke.decide.draft import Draft
from clarke.decide.identities import named, one_plus
from clarke.numerics import CURE_MOVES, CURE_SAME
from clarke.steering import Analysis, Pieces, Program, natural_gradient

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from clarke.capture import OpRecord, Ref
    from clarke.decide.cures import Valid
    from clarke.decide.model import Culprit

    Writing = Callable[[Draft, OpRecord], Ref | None]

_ATEN = torch.ops.aten
_CLAMPS = frozenset({"clamp", "clamp_min", "clamp_max", "relu", "threshold", "maximum", "minimum"})
_SOFTPLUS = (
    "max(x, 0) + log1p(exp(-|x|)) is torch.nn.functional.softplus(x), which is smooth; "
    "with -x*t added it is torch.nn.functional.binary_cross_entropy_with_logits(x, t)."
)
_LOGSIGMOID = "min(x, 0) - log1p(exp(-|x|)) is torch.nn.functional.logsigmoid(x), which is smooth."


@rung("looking for a smooth function")
def smooth_instead(program: Program, culprits: Sequence[Culprit], valid: Valid) -> str | None:
    """The smooth function as which kinks at fault can be written; None if there is none."""
    named = {(c.operation, c.location) for c in culprits}
    ops = program.analysis.recorded.ops
    own = [op for op in ops if (op.shown, op.location) in named]
    for sign, text in ((1, _SOFTPLUS), (-1, _LOGSIGMOID)):
        if _passes(program, _softplus(program, own, sign), valid):
            return text
    return None


def _passes(program: Program, writings: Mapping[int, Writing], valid: Valid) -> bool:
    """Whether a program that is written otherwise is the same function with a right gradient."""
    other = _written(program, writings)
    if other is None or not _keeps_value(program, other):
        return False
    return valid(flatten(natural_gradient(other))) is True


def _written(program: Program, writings: Mapping[int, Writing]) -> Program | None:
    trace = program.analysis.recorded
    draft = Draft(trace, program.deadline)
    ops = [op for op in trace.ops if op.index in writings]
    try:
        if not ops or not all(draft.write(op, writings[op.index]) for op in ops):
            return None
        made = draft.finished(lambda _: False)
    except (RuntimeError, TypeError, IndexError, NotImplementedError):
        return None  # it does not fit here
    analysis = Analysis(made, MappingProxyType({}), (), 0, made)
    return Program(analysis, program.variables, deadline=program.deadline)


def _keeps_value(program: Program, other: Program | None) -> bool:
    """Whether two programs have one value at the point, and beside it wherever they have any."""
    if other is None:
        return False
    for move in CURE_MOVES:
        point = [
            p + move * torch.linspace(-1, 1, p.numel()).to(p).view_as(p) for p in program.point
        ]
        one, two = (
            float(p.run(point, pieces=Pieces.NATURAL, grad=False).output) for p in (program, other)
        )
        if move and not (math.isfinite(one) or math.isfinite(two)):
            continue
        if not abs(one - two) <= CURE_SAME * max(1.0, abs(one)):
            return False
    return True


def _softplus(program: Program, own: Sequence[OpRecord], sign: int) -> dict[int, Writing]:
    """For max(x, 0) + log1p(exp(-|x|)): softplus in the place of the first, zero of the second."""
    draft = Draft(program.analysis.recorded, program.deadline)

    def whole(draft: Draft, op: OpRecord) -> Ref:
        if sign > 0:
            return draft.call(_ATEN.softplus.default, op.args[0])
        below = draft.call(_ATEN.softplus.default, draft.call(_ATEN.neg.default, op.args[0]))
        return draft.call(_ATEN.neg.default, below)

    def nothing(draft: Draft, op: OpRecord) -> Ref:
        return draft.call(_ATEN.zeros_like.default, op.args[0])

    found: dict[int, Writing] = {}
    clamped = {_unsigned(draft, op.args[0]): op for op in own if named(op) in _CLAMPS}
    for op in draft.trace.ops:
        small = one_plus(draft, op)
        size = draft.maker(small) if small is not None else None
        if size is not None and named(size) in {"neg", "mul"}:
            size = draft.maker(size.args[0])
        clamp = None
        if size is not None and named(size) == "abs":
            clamp = clamped.get(_unsigned(draft, size.args[0]))
        if clamp is not None:
            found[op.index] = nothing
            found[clamp.index] = whole
    return found


def _unsigned(draft: Draft, value: object) -> object:
    op = draft.maker(value)
    return op.args[0] if op is not None and named(op) == "neg" else value
