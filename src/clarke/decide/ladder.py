"""From a trace and a gradient to a verdict, cheapest argument first."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import torch

from clarke.capture import all_finite
from clarke.constraints import find_relevant, resolve
from clarke.constraints.reads import held_sides
from clarke.deadline import UNLIMITED, Deadline, within_memory
from clarke.decide.applied import declared_derivative, hold_functions
from clarke.decide.finite_cures import finite_cures
from clarke.decide.hazards import (
    LIPSCHITZ,
    edge_of_domain,
    judge_hazards,
    obstacle,
    writes_shown,
)
from clarke.decide.meeting import only_branches
from clarke.decide.model import Confirm, Decision, Settings
from clarke.decide.nonfinite import judge_nonfinite
from clarke.decide.origins import judge_beside_roundings, told_by_origin
from clarke.decide.rungs import Rungs
from clarke.decide.surroundings import only_guards
from clarke.decide.vectors import used_vectors
from clarke.errors import OutOfMemoryError, OutOfTimeError, ReplayError
from clarke.kinks import Hazard
from clarke.kinks.embeddings import held_rows
from clarke.numerics import CURE_SHARE, POSITIVE
from clarke.steering import Program, analyse
from clarke.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from clarke.capture import Trace
    from clarke.decide.confirm import Gradient
    from clarke.kinks import Registry
    from clarke.steering import Analysis


def decide(
    trace: Trace,
    registry: Registry,
    variables: Sequence[int],
    gradient: Sequence[torch.Tensor],
    settings: Settings,
    run_gradient: Gradient | None = None,
    *,
    sees_values: bool = False,
    given: bool = False,
    deadline: Deadline = UNLIMITED,
) -> Decision:
    """Judge a gradient.

    Args:
        trace: What ran.
        registry: The rules.
        variables: External slots of the variables, in the order of `gradient`.
        gradient: What AD returned, one tensor per variable.
        settings: Limits.
        run_gradient: AD's gradient of the program itself at another point; by default the
            recorded operations are run again in float64.
        sees_values: The verdict will be held against values of the program itself
            (`judge_detached`).
        given: The gradient is somebody else's, and need not be that of any selection.
        deadline: When to give up with UNDECIDED, saying what was tried.
    """
    try:
        analysis = resolve(analyse(trace, registry, deadline), registry, variables, deadline)
    except OutOfTimeError as error:
        return Decision(Verdict.UNDECIDED, str(error), out_of_time=True)
    except OutOfMemoryError as error:
        return Decision(Verdict.UNDECIDED, str(error))
    judge = partial(
        _unless_blocked,
        analysis,
        registry,
        variables,
        tuple(gradient),
        settings,
        run_gradient,
        deadline,
        sees_values=sees_values,
    )
    if analysis.trace.applied and not given:
        return _with_functions(judge, analysis, registry, variables, gradient, deadline)
    return judge(given=given)


def _with_functions(
    judge: Callable[..., Decision],
    analysis: Analysis,
    registry: Registry,
    variables: Sequence[int],
    gradient: Sequence[torch.Tensor],
    deadline: Deadline,
) -> Decision:
    """Custom Functions: AD's gradient is their authors' as well, so that it may be anything."""
    try:
        found = declared_derivative(analysis, registry, variables, deadline)
        if found is not None:
            return found
        return hold_functions(judge(given=True), variables, gradient, deadline)
    except (ReplayError, OutOfTimeError, OutOfMemoryError) as error:
        late = isinstance(error, OutOfTimeError)
        return Decision(Verdict.UNDECIDED, str(error), analysis=analysis, out_of_time=late)


def _unless_blocked(
    analysis: Analysis,
    registry: Registry,
    variables: Sequence[int],
    gradient: tuple[torch.Tensor, ...],
    settings: Settings,
    run_gradient: Gradient | None,
    deadline: Deadline,
    *,
    sees_values: bool,
    given: bool,
) -> Decision:
    blocked = obstacle(analysis, sees_values=sees_values, held=True)
    if blocked is not None:
        shown = writes_shown(analysis.recorded, registry, deadline)
        rest = (registry, variables, gradient, settings, run_gradient)
        if shown is None:
            return blocked
        found = decide(shown, *rest, sees_values=sees_values, given=True, deadline=deadline)
        if found.verdict is Verdict.NOT_CLARKE:
            why = (
                "whose gradient this is not. Write out of place where the derivative should follow."
            )
            return replace(
                blocked, verdict=Verdict.SURROGATE, reason=f"{blocked.reason[:-1]}, {why}"
            )
        return found if found.verdict in POSITIVE else blocked
    if len(variables) != len(gradient):
        return Decision(
            Verdict.UNDECIDED,
            "Autograd's graph holds a leaf that no recorded operation read, so that clarke did not "
            "see how the result depends on it. Compute the result inside the function given to "
            "clarke.check, without functions that hide what they read.",
            analysis=analysis,
        )
    try:
        found = _decide(
            analysis, variables, gradient, settings, run_gradient, deadline, given=given
        )
    except (ReplayError, OutOfTimeError, OutOfMemoryError) as error:
        late = isinstance(error, OutOfTimeError)
        return Decision(Verdict.UNDECIDED, str(error), analysis=analysis, out_of_time=late)
    if not all_finite(gradient) or found.verdict is Verdict.NONFINITE:
        settings = replace(settings, confirm=Confirm.NEVER)

        def judge(other: Trace, own: Sequence[torch.Tensor], part: Deadline) -> Decision:
            return decide(other, registry, variables, own, settings, deadline=part)

        part = deadline.part(float(CURE_SHARE))
        cures = finite_cures(found, registry, variables, gradient, part, judge)
        found = replace(found, cures=cures)
    declared = tuple(
        f"Row {row} of {op.shown} at {op.location} is a constant: padding_idx leaves out its "
        "gradient."
        for row, op in held_rows(analysis.recorded.ops).values()
    )
    return replace(found, notes=(*found.notes, *declared)) if declared else found


@within_memory
def _decide(
    analysis: Analysis,
    variables: Sequence[int],
    gradient: tuple[torch.Tensor, ...],
    settings: Settings,
    run_gradient: Gradient | None,
    deadline: Deadline,
    *,
    given: bool,
) -> Decision:
    generator = torch.Generator().manual_seed(settings.seed)
    program = Program(analysis, variables, deadline=deadline)
    if not all_finite(gradient):
        part = deadline.part(1 - CURE_SHARE)  # what is left is for what to write instead
        return judge_nonfinite(program.within(part), gradient, generator)
    relevance = find_relevant(program, generator)
    context = Rungs(program, gradient, relevance, settings, generator, run_gradient)
    context.given = given
    try:
        kinks = bool(relevance.relevant.any()) or bool(relevance.hazards)
        ours = not given and not analysis.recorded.applied  # who else may have made the gradient?
        if ours and not kinks and context.lost is not None:
            return replace(context.lost.decision(), analysis=analysis, relevance=relevance)
        found = _climb(context)
        if found.verdict is Verdict.NOT_CLARKE and not given:
            found = _unless_rounded(context, found)
        found = told_by_origin(context, found)
        open_ = POSITIVE if not ours or found.out_of_time else (Verdict.UNDECIDED, *POSITIVE)
        if found.verdict in open_ and context.lost is not None:
            return replace(context.lost.decision(), analysis=analysis, relevance=relevance)
    except OutOfTimeError as error:
        return replace(context.undecided(str(error)), out_of_time=True)
    return found


def _unless_rounded(context: Rungs, found: Decision) -> Decision:
    """UNDECIDED where only what AD's own pieces lost in a narrow type lies outside of the set.

    Bounds of roundings are those of the formulas that clarke knows. A gradient that differs from
    its own pieces' in float64 by more may be a formula that loses more, which proves nothing
    about the choice of the pieces: wrong is what the pieces give in float64, too.
    """
    trace = context.program.analysis.trace
    narrow = {d for d in trace.slot_dtypes.values() if d.is_floating_point} - {torch.float64}
    if not narrow or trace.applied or not context.differs:
        return found
    if not (context.lost or context.rounding.slight(context.gradient)):
        return found  # no rounding is a good part of all that is added up
    settings = replace(context.settings, confirm=Confirm.NEVER)
    again = _climb(
        Rungs(context.program, context.own, context.relevance, settings, context.generator, None)
    )
    if again.verdict is Verdict.NOT_CLARKE:
        return found
    kinds = ", ".join(sorted(str(d).removeprefix("torch.") for d in narrow))
    return context.undecided(
        "The gradient lies outside of the set, but that of its own pieces in float64 does not: "
        f"rounding in {kinds} may have made the difference, or a formula or a hook. Run the "
        "program in float64 to tell.",
        culprits=found.culprits,
    )


def _climb(context: Rungs) -> Decision:
    program, relevance = context.program, context.relevance
    if bool(held_sides(program.analysis).any()):
        return context.on_branch()
    hazard = judge_hazards(program, relevance, context.generator)
    if hazard is not None:
        # What AD returns at an improper kink is judged against the set, not by its weights.
        kinds = set(relevance.hazards)
        if kinds == {Hazard.IMPROPER}:
            return context.exact(hazard)
        vectors = used_vectors(program.analysis) is not None
        if relevance.lost_masks or vectors:
            return hazard
        if kinds <= LIPSCHITZ:
            try:
                found = context.limits()
            except ReplayError:
                found = edge_of_domain(program, relevance, context.generator)
                if found is None:
                    raise
            return found or (context.norms(hazard) if kinds == {Hazard.CONE} else hazard)
        if hazard.verdict is not Verdict.UNDECIDED:
            return hazard
        found = context.guarded(hazard) if only_guards(program, relevance) else hazard
        branches = found.verdict is Verdict.UNDECIDED and only_branches(program, relevance)
        return context.exact(found) if branches else found
    if not bool(relevance.relevant.any()):
        return context.smooth()
    if not bool((relevance.relevant & relevance.mixed).any()):
        found = context.bouligand()
        if found is None:
            found = context.exact(context.unwitnessed())
        if found.verdict is Verdict.UNDECIDED:
            return judge_beside_roundings(context) or found
        return found
    return context.mixture()
