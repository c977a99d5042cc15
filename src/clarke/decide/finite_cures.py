"""What to write against NaN and infinity: rewritings that were run at the point and judged."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from clarke.capture import Ref, all_finite, input_slots, refilled
from clarke.deadline import rung
from clarke.decide import identities
from clarke.decide.disagree import name_nonfinite
from clarke.decide.draft import Draft
from clarke.decide.guarded import GUARDS, SAID, Guard
from clarke.errors import BudgetError, ClarkeError
from clarke.steering import Program, analyse, natural_gradient

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from clarke.capture import Location, OpRecord, Trace
    from clarke.deadline import Deadline
    from clarke.decide.model import Culprit, Decision
    from clarke.kinks import Registry

    # The verdict on a program's own gradient.
    Judge = Callable[[Trace, Sequence[torch.Tensor], Deadline], Decision]

_ATEN = torch.ops.aten
_MOST = 4  # lines of one program that are rewritten
_RIGHT = "Tried here: it makes the gradient right."
_ALL_RIGHT = "Tried here: together they make the gradient right."


class _Rewriting(NamedTuple):
    """What to write for an operation, in words and as operations.

    Attributes:
        text: The words; "" for those of what was written.
        write: Writes it.
    """

    text: str
    write: Callable[[Draft, OpRecord], Ref | None]


def finite_cures(
    decision: Decision,
    registry: Registry,
    variables: Sequence[int],
    gradient: Sequence[torch.Tensor],
    deadline: Deadline,
    judge: Judge,
) -> tuple[str, ...]:
    """What to write instead of what made a gradient NaN or infinite.

    Shown as code is only what was run at this point, and whose gradient is finite and right there.

    Args:
        decision: That the gradient is not finite, with the operations named.
        registry: The rules.
        variables: Slots of the variables.
        gradient: What AD returned.
        deadline: When to give up.
        judge: The verdict on another program's gradient.
    """
    analysis = decision.analysis
    if analysis is None or not decision.culprits:
        return ()
    trial = _Trial(registry, tuple(variables), gradient[0].dtype, deadline, judge)
    try:
        found = trial.search(analysis.recorded, decision.culprits)
    except (BudgetError, ClarkeError):  # the verdict stands without
        found = ()
    if found:
        return (" ".join((*found, _RIGHT if len(found) == 1 else _ALL_RIGHT)),)
    return _words(analysis.recorded, decision)


class _Trial:
    """Runs a program with other operations in the place of some, and has its gradient judged."""

    def __init__(
        self,
        registry: Registry,
        variables: tuple[int, ...],
        dtype: torch.dtype,
        deadline: Deadline,
        judge: Judge,
    ) -> None:
        self._registry = registry
        self._variables = variables
        self._dtype = dtype
        self.deadline = deadline
        self._judge = judge

    @rung("trying what keeps the gradient finite")
    def search(self, trace: Trace, culprits: Sequence[Culprit]) -> tuple[str, ...]:
        """The rewritings, line after line, that make the gradient right; none if none do."""
        texts: list[str] = []
        for _ in range(_MOST):
            moved = None
            for text, other in self._rewritten(trace, culprits):
                program = Program(
                    analyse(other, self._registry, self.deadline),
                    self._variables,
                    self._dtype,
                    self.deadline,
                )
                gradient = natural_gradient(program)
                if all_finite(gradient):
                    if self._judge(other, gradient, self.deadline).verdict.correct:
                        return (*texts, text)
                    continue
                named = name_nonfinite(program)
                if moved is None and named and not _shared(named, culprits):
                    moved = text, other, named
            if moved is None:
                return ()
            text, trace, culprits = moved
            texts.append(text)
        return ()

    def _rewritten(self, trace: Trace, culprits: Sequence[Culprit]) -> Iterator[tuple[str, Trace]]:
        groups = [_named(trace, c) for c in culprits]
        groups += [ops for group in groups for ops in _readers(trace, group)]
        for ops in groups:
            for text, write in _candidates(ops):
                draft = Draft(trace, self.deadline)
                try:
                    if not all(draft.write(op, write) for op in ops):
                        continue
                    other = draft.finished(self._registry.repeatable)
                    said = text or next((SAID[n] for n in SAID if n in draft.written), "")
                    yield said, refilled(other, self._registry.keeps, self.deadline)
                except (RuntimeError, TypeError, IndexError, NotImplementedError):
                    continue  # it does not fit here


def _named(trace: Trace, culprit: Culprit) -> list[OpRecord]:
    """The operations that a culprit names."""
    key = culprit.operation, culprit.location
    return [op for op in trace.ops if (op.shown, op.location) == key and not _is_power(op)]


def _is_power(op: OpRecord) -> bool:
    """Whether it is a square or the like, which is smooth: what stands in one line with a root."""
    exponent = op.args[1] if op.short_name.rstrip("_") == "pow" else None
    return isinstance(exponent, (int, float)) and exponent >= 1 and exponent == int(exponent)


def _readers(trace: Trace, ops: Sequence[OpRecord]) -> Iterator[list[OpRecord]]:
    """The logarithms and quotients of what operations made, of sums and of picks of it."""
    reached = {s for op in ops for s in op.outputs if s is not None}
    found: dict[tuple[str, Location], list[OpRecord]] = {}
    for op in trace.ops:
        if not reached & set(input_slots(op)):
            continue
        name = op.short_name.rstrip("_")
        if name in {"log", "log1p", "div", "reciprocal"}:
            found.setdefault((op.shown, op.location), []).append(op)
        elif name in identities.WALKED:
            reached |= {s for s in op.outputs if s is not None}
    yield from found.values()


def _shared(one: Sequence[Culprit], two: Sequence[Culprit]) -> bool:
    places = {(c.operation, c.location) for c in one}
    return any((c.operation, c.location) in places for c in two)


def _candidates(ops: Sequence[OpRecord]) -> Iterator[_Rewriting]:
    """What may be written for operations of one kind in one line, the best first."""
    if not ops:
        return
    name, shown = ops[0].short_name.rstrip("_"), ops[0].shown
    if name == "sqrt" or (name == "pow" and isinstance(ops[0].args[1], (int, float))):
        yield _Rewriting("", identities.power)
    if name == "hypot":
        yield _Rewriting("", identities.hypot)
    if name in {"log", "log1p"}:
        yield _Rewriting("", _first(identities.log if name == "log" else identities.log1p))
    if name in {"div", "reciprocal"}:
        yield _Rewriting("", identities.quotient)
    guard = GUARDS.get(name)
    if guard is None:
        return
    # A row without any weight is no branch: another value in it would change no other.
    if name not in {"_softmax", "_log_softmax"}:
        inner = f"torch.where(mask, x, {guard.harmless:g})"
        text = (
            "torch.where runs the backward pass of both branches, and 0 times infinity is NaN. "
            f"Give {shown} a harmless argument where its branch is not taken: "
            f"torch.where(mask, {(guard.written or shown + '({})').format(inner)}, other)."
        )
        yield _Rewriting(text, partial(_masked, guard=guard))
    if guard.text:
        yield _Rewriting(guard.text, partial(_clamped, guard=guard))


def _first(push: identities.Push) -> Callable[[Draft, OpRecord], Ref | None]:
    def write(draft: Draft, op: OpRecord) -> Ref | None:
        return push(draft, op.args[0])

    return write


def _clamped(draft: Draft, op: OpRecord, guard: Guard) -> Ref | None:
    """The operation with the guarded argument kept within bounds."""
    given = op.args[guard.argument]
    if not isinstance(given, Ref):
        return None
    value = draft.value(given)
    kind = torch.finfo(value.dtype)
    least, most = (None if bound is None else bound(kind) for bound in (guard.least, guard.most))
    if op.short_name.rstrip("_") in {"div", "reciprocal"} and bool((value < 0).any()):
        return None  # its sign would be lost
    kept = draft.call(_ATEN.clamp.default, given, least, most)
    return draft.call(op.func, *_with(op, guard.argument, kept), **op.kwargs)


def _masked(draft: Draft, op: OpRecord, guard: Guard) -> Ref | None:
    """The operation with a harmless argument wherever its result is not chosen."""
    given, chosen = op.args[guard.argument], _chooser(draft.trace, op)
    if chosen is None or not isinstance(given, Ref):
        return None
    choice, is_first = chosen
    mask = draft.early(choice)
    if mask is None:
        return None
    shape = draft.value(given).shape
    if torch.broadcast_shapes(draft.value(mask).shape, shape) != shape:
        return None
    if is_first:
        mask = draft.call(_ATEN.logical_not.default, mask)
    kept = draft.call(_ATEN.masked_fill.Scalar, given, mask, guard.harmless)
    return draft.call(op.func, *_with(op, guard.argument, kept), **op.kwargs)


def _with(op: OpRecord, position: int, value: Ref) -> tuple[Any, ...]:
    return (*op.args[:position], value, *op.args[position + 1 :])


def _chooser(trace: Trace, op: OpRecord) -> tuple[Ref, bool] | None:
    """The mask of a ``where`` that an operation's result goes into; whether True chooses it."""
    reached = {s for s in op.outputs if s is not None}
    for later in trace.ops:
        if later.index <= op.index or not reached & set(input_slots(later)):
            continue
        name, args = later.short_name.rstrip("_"), later.args
        if name == "where" and len(args) > 2:
            for position in (1, 2):
                branch = args[position]
                if isinstance(branch, Ref) and branch.slot in reached:
                    return args[0], position == 1
        if name == "masked_fill" and isinstance(args[0], Ref) and args[0].slot in reached:
            return args[1], False
        reached |= {s for s in later.outputs if s is not None}
    return None


def _words(trace: Trace, decision: Decision) -> tuple[str, ...]:
    """What to do, where nothing that was tried makes the gradient right."""
    for culprit in decision.culprits:
        ops = _named(trace, culprit)
        guard = GUARDS.get(ops[0].short_name.rstrip("_")) if ops else None
        if guard is not None:
            words = f"Of {culprit.operation}: {guard.words}, before it runs (to choose with"
            return (f"{words} torch.where afterwards is too late).{_valid(decision)}",)
    return (_valid(decision).strip(),) if decision.element is not None else ()


def _valid(decision: Decision) -> str:
    if decision.element is None:
        return ""
    return " A valid gradient: clarke.grad(f, inputs), clarke.audit(on_nonfinite='repair')."
