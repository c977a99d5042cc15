"""The verdict on a compiled program's own gradient, against the function that was compiled."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from clarke.audit.judge import alone, decided
from clarke.audit.watch import are_fresh
from clarke.capture import refilled, without_values
from clarke.decide import Decision
from clarke.decide.compiler import Uncompiled, compare
from clarke.errors import CaptureError, OutOfTimeError
from clarke.torch_compiled import compiles_backward
from clarke.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from clarke.audit.engine import BackwardCall
    from clarke.audit.judge import Case
    from clarke.capture import Shadow, Shadows
    from clarke.deadline import Deadline
    from clarke.decide import Settings
    from clarke.fast import QuickJudge
    from clarke.kinks import Registry


_BESIDE = (
    "The compiled program's gradient lies outside of the set, but a kink lies within rounding of "
    "the point, and the compiled program, which rounds otherwise, may stand on its other side. "
    "Run the program in float64 to tell."
)

_NOT_TOLD = (
    "A compiled program that draws random numbers, or uses custom Functions, takes part in a "
    "gradient of several processes, where clarke cannot tell whether it keeps to what was written. "
    "Audit it uncompiled, or in one process."
)
_IN_PARTS = (
    "A compiled program computes with parameters of which every process holds a part (FSDP2), so "
    "that their values are not there to run it as it was written. Audit it uncompiled."
)
_OTHERWISE = (
    "What the compiled program computes in this process is not the gradient of the function as it "
    "was written, so that nothing is said of what all processes put together. Audit it in one "
    "process."
)


def judge_shadowed(
    case: Case,
    shadows: Sequence[Shadow],
    gradient: tuple[torch.Tensor, ...],
    value: float,
    registry: Registry,
    settings: Settings,
    deadline: Deadline,
    quick: QuickJudge | None,
    *,
    proof: bool,
    hooked: bool,
) -> Decision:
    """Hold a compiled program's gradient against the set of the function as it was written.

    Args:
        case: What ran: of what was compiled, the run of it as written.
        shadows: The compiled functions in it.
        gradient: The compiled program's.
        value: What the compiled program computed.
        registry: The rules.
        settings: Limits.
        deadline: When to give up.
        quick: Judges common cases from recorded values alone; None to climb the whole ladder.
        proof: Somebody is going to see the certificate.
        hooked: Hooks of the user's may have changed the gradient on its way.

    Raises:
        Exception: Whatever goes wrong; the caller turns it into UNDECIDED.
    """
    with alone():
        if any(s.gap for s in shadows):
            # What came after them was computed from the compiled functions' results.
            trace = refilled(without_values(case.trace(), lambda _: True), registry.keeps, deadline)
            case = replace(case, source=trace)
        try:
            uncompiled = Uncompiled(case.trace(), registry, case.slots, deadline)
            written, own = uncompiled.in_own_type()
        except OutOfTimeError as error:
            return Decision(Verdict.UNDECIDED, str(error), out_of_time=True)
        if case.trace().applied:
            # Their authors' backward functions, which are not run again, may return anything.
            written, own = gradient, value
        drew = any(s.drew for s in shadows)
        beside = compare(case.trace(), written, own, gradient, value, draws=drew)
        if case.trace().applied and any(s.drew and s.gap for s in shadows):
            beside = replace(beside, like=False)
        refused = beside.refusal(lambda: written)
        if refused is not None:
            return _with_gap(refused, shadows)
        found = None
        if beside.like and quick is not None and uncompiled.is_like(gradient, written):
            found = _quickly(case, gradient, quick, deadline, proof=proof)
        if found is None:
            shown = written if beside.broken else gradient
            given = not (beside.like or beside.broken or hooked)
            found = decided(case, shown, registry, settings, deadline, given=given)
        found = beside.told(found)
        if found.verdict is Verdict.NOT_CLARKE and not beside.like and uncompiled.is_near_kinks():
            found = replace(
                found,
                verdict=Verdict.UNDECIDED,
                reason=_BESIDE,
                certificate=None,
                element=None,
            )
        return _with_gap(found, shadows)


def as_written(
    case: Case,
    shadows: Sequence[Shadow],
    gradient: tuple[torch.Tensor, ...],
    registry: Registry,
    deadline: Deadline,
    quick: QuickJudge | None,
) -> tuple[Case, Decision | None]:
    """What one of several processes has of a step, if its compiled program is as it was written.

    Args:
        case: What ran there.
        shadows: The compiled functions in it.
        gradient: What the compiled program computed there, before it was put together.
        registry: The rules.
        deadline: When to give up.
        quick: Judges common cases from recorded values alone; None to do without.

    Returns:
        The program as it was written, and what the quick judge says of it.

    Raises:
        CaptureError: What the compiled program computed is not that up to roundings.
        OutOfTimeError: There is no time to tell.
    """
    if any(s.drew for s in shadows) or case.trace().applied:
        raise CaptureError(_NOT_TOLD)
    if any(s.gap for s in shadows):
        trace = refilled(without_values(case.trace(), lambda _: True), registry.keeps, deadline)
        case = replace(case, source=trace)
    uncompiled = Uncompiled(case.trace(), registry, case.slots, deadline)
    written, own = uncompiled.in_own_type()
    beside = compare(case.trace(), written, own, gradient, own, draws=False)
    if not (beside.like and uncompiled.is_like(gradient, written)):
        raise CaptureError(_OTHERWISE + beside.difference)
    if quick is None:
        return case, None
    return case, _quickly(case, gradient, quick, deadline, proof=False)


def _quickly(
    case: Case,
    gradient: tuple[torch.Tensor, ...],
    quick: QuickJudge,
    deadline: Deadline,
    *,
    proof: bool,
) -> Decision | None:
    """What the quick judge says of the function as it was written, whose gradient this is."""
    try:
        found = quick.decide(case.trace(), case.slots, gradient, deadline, proof=proof)
    except Exception:  # noqa: BLE001 - what it is not made for, the whole ladder judges
        return None
    return found if isinstance(found, Decision) else None


def compiled_parts(
    call: BackwardCall, case: Case, shadows: Shadows | None, ranks: object
) -> tuple[Shadow, ...] | None:
    """The compiled functions in what a call differentiates; None where nothing of it is compiled.

    Raises:
        CaptureError: It is compiled in a way that is not followed.
    """
    found = shadows.of(case.trace()) if shadows else ()
    backward = compiles_backward()
    if not (found or backward):
        return None
    if ranks is not None and backward:
        raise CaptureError(
            "The backward pass is compiled and gives a part of a gradient of several processes, "
            "which clarke does not follow. Leave it uncompiled, or audit it in one process."
        )
    if any(e.gathered is not None for e in case.trace().externals.values()):
        raise CaptureError(_IN_PARTS)
    if backward and call.accumulates and not are_fresh(case.leaves):
        raise CaptureError(
            "The backward pass is compiled, so that clarke adds no hooks to it, and .grad held "
            "something before, or a hook changes it. Clear gradients by zero_grad() (set_to_none) "
            "before each backward call."
        )
    return found


def value_of(call: BackwardCall) -> float:
    """The number whose gradient a call computed."""
    with torch.no_grad():
        pairs = zip(call.roots, call.weights, strict=True)
        return sum(float((r.detach() * w).sum()) for r, w in pairs if w is not None)


def _with_gap(found: Decision, shadows: Sequence[Shadow]) -> Decision:
    """A verdict with what the compiled functions themselves returned, where that is another."""
    told = max(shadows, key=lambda s: s.gap, default=None)
    if told is None or not told.gap:
        return found
    note = f"What the compiled program computes differs by up to {told.gap:.3g}: {told.told}."
    return replace(found, notes=(*found.notes, note))
