"""Custom `torch.autograd.Function`s: what their forward computes against what their backward says.

The operations of a forward are part of the record, so the ladder judges the gradient that came out
of the backward as it would judge anybody's. What is left for this module: to say SURROGATE where a
backward is meant to be no derivative, because its author says so or because forward is a step; not
to call a gradient wrong where the record of a forward does not describe it; and to name the
Function, with numbers, where its backward is wrong. For that it runs the Function by itself, at the
recorded values and beside them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from clarke.capture import Origin, input_slots
from clarke.decide.alone import Alone, Answer, Finding, hold, jump_of, size_of
from clarke.decide.model import Culprit, Decision
from clarke.decide.rounding import Rounding
from clarke.decide.verification import ad_weights, own_gradient
from clarke.errors import OutOfTimeError, ReplayError
from clarke.kinks.steps import ConstantRule, StepRule
from clarke.numerics import APPLIED_ASIDE
from clarke.steering import Pieces, Program
from clarke.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from clarke.capture import Applied, Trace
    from clarke.deadline import Deadline
    from clarke.kinks import Registry
    from clarke.steering import Analysis

    Tensors = Mapping[int, torch.Tensor]

_SIDES = 2  # points beside, at which a record is compared with its Function


# ------------------------------------------------------------------ before the ladder


def declared_derivative(
    analysis: Analysis, registry: Registry, variables: Sequence[int], deadline: Deadline
) -> Decision | None:
    """SURROGATE where a backward is meant to be no derivative of its forward."""
    trace = analysis.recorded
    for applied in trace.applied:
        if registry.is_surrogate(applied.function):
            return _surrogate(analysis, applied, "declared so by its author (register_function)")
    stepping = [a for i, a in enumerate(trace.applied) if steps_in(trace, i, registry)]
    if not stepping:
        return None
    try:
        values = _values(analysis, variables, deadline)
    except (ReplayError, RuntimeError, ValueError):
        return None
    for applied in stepping:
        found = hold(applied, values, deadline)
        if found.answer is Answer.UNKNOWN:  # it may stand on a jump
            found = hold(applied, values, deadline, aside=True)
        if found.answer is Answer.OTHER:
            jump = jump_of(applied, values, deadline)
            if jump:
                return _surrogate(analysis, applied, f"forward {jump}; {found.rates}")
    return None


def _surrogate(analysis: Analysis, applied: Applied, why: str) -> Decision:
    return Decision(
        Verdict.SURROGATE,
        f"{applied.name} at {applied.location} is a custom autograd.Function with a derivative of "
        f"its own: {why}.",
        culprits=(Culprit(applied.name, applied.location, "custom autograd.Function"),),
        analysis=analysis,
    )


def steps_in(trace: Trace, number: int, registry: Registry) -> bool:
    """Whether a forward rounds, compares, or turns numbers into integers."""
    kinds = trace.slot_dtypes
    for op in trace.ops:
        if op.within != number:
            continue
        rule = registry.known(op.func).rule
        if rule is not None and (rule.is_level() or isinstance(rule, (StepRule, ConstantRule))):
            return True
        results = [kinds[o] for o in op.outputs if o is not None and o in kinds]
        if any(not (k.is_floating_point or k.is_complex) for k in results):
            return True
    return False


# ------------------------------------------------------------------ after it


def hold_functions(
    found: Decision,
    variables: Sequence[int],
    gradient: Sequence[torch.Tensor],
    deadline: Deadline,
) -> Decision:
    """A verdict on a program with custom Functions, once these have been run by themselves.

    Args:
        found: What the ladder said of AD's gradient and the recorded operations.
        variables: Slots of the variables.
        gradient: AD's.
        deadline: When to give up.

    Raises:
        OutOfTimeError: The Functions could not be looked at in time.
    """
    analysis = found.analysis
    if analysis is None or found.verdict is Verdict.NONFINITE:
        return found
    trace = analysis.recorded
    if found.verdict.correct and not any(
        may_hide(trace, i, a) for i, a in enumerate(trace.applied)
    ):
        return found
    hidden = hidden_in(analysis, variables, deadline)
    if found.verdict.correct or hidden is not None:
        return found if hidden is None else _not_described(found, hidden)
    values = _values(analysis, variables, deadline)
    findings = [hold(a, values, deadline) for a in trace.applied]
    others = [f for f in findings if f.answer is Answer.OTHER]
    if not others and found.verdict is Verdict.NOT_CLARKE:  # at a kink it may be wrong all around
        unknown = [f.applied for f in findings if f.answer is Answer.UNKNOWN]
        beside = [hold(a, values, deadline, aside=True) for a in unknown]
        others = [f for f in beside if f.answer is Answer.OTHER]
    if others:
        return _wrong(found, others)
    if (
        found.verdict is Verdict.NOT_CLARKE
        and all(f.answer is Answer.DERIVATIVE for f in findings)
        and not _is_of_pieces(analysis, variables, gradient, deadline)
    ):
        first = trace.applied[0]
        return replace(
            found,
            verdict=Verdict.UNDECIDED,
            certificate=None,
            element=None,
            reason=f"The gradient differs from what the operations give, but {first.name} at "
            f"{first.location} has the right derivative when it runs by itself in float64: "
            "roundings of its own backward may be the reason. Run the program in float64.",
        )
    return found


def _is_of_pieces(
    analysis: Analysis,
    variables: Sequence[int],
    gradient: Sequence[torch.Tensor],
    deadline: Deadline,
) -> bool:
    """Whether a gradient is that of the pieces AD took, with the Functions' true derivatives."""
    program = Program(analysis, variables, deadline=deadline)
    rounding = Rounding(program, own_gradient(program), weights=ad_weights(program))
    return rounding.covers(gradient)


def not_vouched(
    analysis: Analysis, registry: Registry, variables: Sequence[int], deadline: Deadline
) -> Decision | None:
    """Why the recorded operations are not what a program with custom Functions is meant to be."""
    if not analysis.recorded.applied:
        return None
    found = declared_derivative(analysis, registry, variables, deadline)
    if found is not None:
        return found
    hidden = hidden_in(analysis, variables, deadline)
    if hidden is None:
        return None
    return _not_described(Decision(Verdict.UNDECIDED, "", analysis=analysis), hidden)


def _wrong(found: Decision, others: Sequence[Finding]) -> Decision:
    named = tuple(f.culprit for f in others)
    meant = "If it is meant, say so with clarke.register_function(..., surrogate=True)."
    if found.verdict is Verdict.NOT_CLARKE:
        return replace(
            found,
            reason=f"{found.reason} {named[0]}.",
            culprits=named,
            notes=(*found.notes, meant),
        )
    return replace(
        found,
        verdict=Verdict.UNDECIDED,
        reason=f"{named[0]}. What this makes of the gradient could not be proved: {found.reason}",
        culprits=named,
        notes=(*found.notes, meant),
    )


def _not_described(found: Decision, finding: Finding) -> Decision:
    return Decision(
        Verdict.UNDECIDED,
        f"{finding.culprit}. Compute it with PyTorch's operations, or declare its pieces with "
        "clarke.register_function.",
        culprits=(finding.culprit,),
        analysis=found.analysis,
        relevance=found.relevance,
    )


def may_hide(trace: Trace, number: int, applied: Applied) -> bool:
    """Whether a forward uses more than its arguments: numbers read from them, or other tensors."""
    if applied.reads:
        return True
    own = {_memory(a) for a in applied.args if isinstance(a, torch.Tensor)}
    for op in trace.ops:
        if op.within != number:
            continue
        read = (trace.externals[s] for s in input_slots(op) if s in trace.externals)
        for e in read:
            if (
                e.origin is Origin.CONSTANT
                and e.tensor.numel() > 1
                and _memory(e.tensor) not in own
            ):
                return True
    return False


def _memory(tensor: torch.Tensor) -> int:
    return int(tensor.untyped_storage()._cdata) if tensor.layout == torch.strided else 0


def hidden_in(analysis: Analysis, variables: Sequence[int], deadline: Deadline) -> Finding | None:
    """A Function that computes beside the point what its record does not, if there is one."""
    program = _program(analysis, variables, deadline)
    generator = torch.Generator().manual_seed(1)
    for _ in range(_SIDES):
        moved = [
            p
            + APPLIED_ASIDE * size_of(p) * torch.randn(p.shape, dtype=p.dtype, generator=generator)
            for p in program.point
        ]
        try:
            values = program.run(moved, pieces=Pieces.NATURAL, grad=False).tensors
        except OutOfTimeError:
            raise
        except (ReplayError, RuntimeError, ValueError) as error:
            why = f"the recorded operations cannot be run beside the point ({error})"
            return Finding(analysis.recorded.applied[0], Answer.UNKNOWN, why)
        for applied in analysis.recorded.applied:
            deadline.ask("running custom Functions beside the point")
            alone = Alone(applied, values)
            if alone.trouble:
                return Finding(applied, Answer.UNKNOWN, alone.trouble)
    return None


# ------------------------------------------------------------------ values


def _program(analysis: Analysis, variables: Sequence[int], deadline: Deadline) -> Program:
    return Program(analysis, variables, deadline=deadline)


def _values(analysis: Analysis, variables: Sequence[int], deadline: Deadline) -> Tensors:
    run = _program(analysis, variables, deadline).run(pieces=Pieces.NATURAL, grad=False)
    return {s: t.detach() for s, t in run.tensors.items()}
