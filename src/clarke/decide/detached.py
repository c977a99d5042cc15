"""Whether values that the program detaches make AD's gradient that of another function.

``x + (round(x) - x).detach()`` has the value of ``round(x)`` and the gradient of ``x``. Verdicts
hold detached values constant; where the function's own values contradict its gradient, the program
declares a surrogate derivative and is told so.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch

from clarke.constraints import flatten
from clarke.constraints.reads import held_sides
from clarke.deadline import UNLIMITED, Deadline
from clarke.decide.branches import judge_on_branch
from clarke.decide.held import free_tangents
from clarke.decide.model import Culprit, Decision
from clarke.decide.rates import Again, Held, UntoldError, apart_along
from clarke.errors import ReplayError
from clarke.numerics import DETACHED_APART, SAME_RATE
from clarke.steering import Analysis, Pieces, Program, natural_gradient
from clarke.steering.memory import behind_detached
from clarke.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from clarke.capture import OpRecord, Trace

    Value = Callable[[Sequence[torch.Tensor]], float]


_RAYS = 3


def held_constant(trace: Trace) -> tuple[Culprit, ...]:
    """Where differentiated values were detached or read into Python on the way to the result."""
    found = [
        Culprit("detach", e.location, "a differentiated value is held constant from here on")
        for e in trace.externals.values()
        if e.stopped
    ]
    return tuple(dict.fromkeys((*found, *read_into_python(trace))))


def read_into_python(trace: Trace) -> tuple[Culprit, ...]:
    """Where differentiated values, or shapes that they decide, may have decided a branch."""
    found = [
        Culprit("index", r.location, "the shape of what a mask picks may have been read")
        if r.shape
        else Culprit("item", r.location, "a differentiated value was read into Python")
        for r in trace.scalar_reads
    ]
    return tuple(dict.fromkeys(found))


def numbers_read(trace: Trace) -> tuple[Culprit, ...]:
    """Where differentiated numbers were read into Python, which may compare them with anything."""
    kinds = trace.slot_dtypes
    return tuple(
        dict.fromkeys(
            Culprit("item", r.location, "a differentiated value was read into Python")
            for r in trace.scalar_reads
            if not r.shape and (r.slot not in kinds or kinds[r.slot].is_floating_point)
        )
    )


def opened_value(
    opened: Trace, trace: Trace, variables: Sequence[int], deadline: Deadline = UNLIMITED
) -> Again:
    """The value at another point of a recorded program whose detached parts were recorded too.

    Its kinks do not matter, and of what was detached they could not be found.

    Args:
        opened: The program with its detached parts.
        trace: The same without.
        variables: Slots of the variables.
        deadline: When to give up.
    """
    analysis = Analysis(opened, {}, (), 0, opened)
    program = Program(analysis, variables, deadline=deadline)

    def value(point: Sequence[torch.Tensor]) -> float:
        return float(program.run(tuple(point), pieces=Pieces.NATURAL, grad=False).output)

    def gradient() -> tuple[torch.Tensor, ...]:
        attached = replace(opened, ops=tuple(map(_attached, opened.ops)))
        whole = Analysis(attached, {}, (), 0, attached)
        return natural_gradient(Program(whole, variables, deadline=deadline))

    moving = behind_detached(opened, trace, variables) or None
    return Again(value, exact=True, gradient=gradient, moving=moving)


def _attached(op: OpRecord) -> OpRecord:
    """An operation that lets derivatives through."""
    return replace(op, func=torch.ops.aten.alias.default) if op.short_name == "detach" else op


def declared_rate(
    analysis: Analysis | None,
    variables: Sequence[int],
    values: Sequence[Again],
    deadline: Deadline = UNLIMITED,
) -> Decision | None:
    """SURROGATE where the function changes at another rate than with detached values constant.

    Args:
        analysis: The trace and its kinks.
        variables: Slots of the variables.
        values: The function itself, detached parts included, at another point: of several ways
            to compute it one is asked after another, until one is fine enough to tell.
        deadline: When to give up.
    """
    if analysis is None or not any(e.stopped for e in analysis.trace.externals.values()):
        return None
    program = Program(analysis, variables, deadline=deadline)
    if not _all_apart(program, values):
        return None
    return _surrogate(analysis, held_constant(analysis.trace))


def judge_detached(
    decision: Decision,
    variables: Sequence[int],
    values: Sequence[Again],
    deadline: Deadline = UNLIMITED,
) -> Decision:
    """SURROGATE in place of a verdict, right or wrong, that the function's values contradict.

    A number that was read into Python may have decided a branch in a way that nothing shows. Then
    what was run again along rays is all that is known: BOULIGAND in place of SMOOTH, and UNDECIDED
    in place of NOT_CLARKE, which speaks of all points nearby.

    Args:
        decision: The verdict on the recorded run.
        variables: Slots of the variables.
        values: As for `declared_rate`.
        deadline: When to give up.

    Raises:
        OutOfTimeError: The values could not be looked at in time.
    """
    analysis = decision.analysis
    if analysis is None:
        return decision
    if decision.verdict is Verdict.UNDECIDED:
        # Of the operations that ran alone: at other points Python may take another branch.
        exact = [again for again in values if again.exact]
        found = declared_rate(analysis, variables, exact, deadline)
        if found is None:
            return decision
        program = Program(analysis, variables, deadline=deadline)
        rays = _rays(program, exact)
        pairs = [(again, rays[n::_RAYS]) for again in exact for n in range(_RAYS)]
        return found if any(_apart_both_ways(program, *pair) for pair in pairs) else decision
    numbers = numbers_read(analysis.trace)
    if numbers and decision.verdict is Verdict.NOT_CLARKE:
        return Decision(
            Verdict.UNDECIDED,
            f"No selection of the recorded run's pieces gives the gradient, but {numbers[0]}: "
            "beside the point it may decide a branch. Read it outside of the function.",
            culprits=(*decision.culprits, *numbers),
            analysis=analysis,
            relevance=decision.relevance,
        )
    if decision.verdict is Verdict.NOT_CLARKE:
        return declared_rate(analysis, variables, values, deadline) or decision
    if not decision.verdict.correct:
        return decision
    program = Program(analysis, variables, deadline=deadline)
    if bool(held_sides(analysis).any()):
        return judge_on_branch(decision, program, values)
    places = held_constant(analysis.trace)
    if not places:
        return decision
    apart = _apart_around(program, values)
    if apart is None:
        return decision
    if not apart and held_constant(analysis.trace):
        return _along_rays(
            replace(
                decision,
                reason=f"{decision.reason} {places[0]}; the values are too coarse to tell whether "
                "they change as the gradient says.",
            ),
            numbers,
        )
    if not _is_apart(apart):
        # On one side only: a branch, which the recorded run does not show.
        read = read_into_python(analysis.trace)
        if not any(apart) or not read:
            return _along_rays(decision, numbers)
        return _another_branch(analysis, read)
    return _surrogate(analysis, places)


def _surrogate(analysis: Analysis, places: tuple[Culprit, ...]) -> Decision:
    return Decision(
        Verdict.SURROGATE,
        f"{places[0]}; the function changes at another rate than the gradient says. Autograd "
        "differentiates the program with that value held constant, which declares a derivative "
        "of its own. To judge just that function, compute the value outside of it.",
        culprits=places,
        analysis=analysis,
    )


def unseen_branch(
    analysis: Analysis,
    program: Program,
    direction: Sequence[torch.Tensor],
    value: Callable[[Sequence[torch.Tensor]], float],
) -> Decision | None:
    """UNDECIDED where a program that reads numbers into Python is another one along a direction.

    None if it changes there at the rate of the recorded run's pieces, as far as roundings let
    that be seen, or reads no numbers (comparisons that are read leave ties of their own).

    Args:
        analysis: The trace and its kinks.
        program: Its program.
        direction: One tensor per variable.
        value: The function itself at another point.
    """
    read = numbers_read(analysis.trace)
    if not read:
        return None
    try:
        if not any(apart_along(Held(program, (direction,)), Again(value))):
            return None
    except UntoldError:
        pass
    return _another_branch(analysis, read)


def _along_rays(decision: Decision, numbers: tuple[Culprit, ...]) -> Decision:
    """A positive verdict, as far as rays go: all around the point a number may decide otherwise."""
    if not numbers or decision.verdict is not Verdict.SMOOTH:
        return decision
    return replace(
        decision,
        verdict=Verdict.BOULIGAND,
        reason=f"{Verdict.BOULIGAND.value} {numbers[0]}, and what that decides beside the point "
        "cannot be seen.",
        theorem="rays",
    )


def _another_branch(analysis: Analysis, read: tuple[Culprit, ...]) -> Decision:
    return Decision(
        Verdict.UNDECIDED,
        f"{read[0]}; beside the point the program takes another branch, or counts otherwise. "
        "clarke cannot follow the other side.",
        culprits=read,
        analysis=analysis,
    )


def _apart_around(program: Program, values: Sequence[Again]) -> list[bool] | None:
    """`apart_along` of random directions and their opposites; None if pieces cannot be told.

    Of several ways to the value the next is asked where one does not tell, or tells of some
    directions only: in a narrow type the only step that roundings leave may be one that bridges
    the steps of a rounding.
    """
    held = Held(program, _rays(program, values))
    apart: list[bool] = []
    try:
        held.all()
    except UntoldError:
        return None
    for value in values:
        found = list(apart_along(held, value))
        if found and _is_apart(found):
            return found
        apart = found or apart
    return apart or [a for a in map(partial(_differs, program), values) if a is not None]


def _all_apart(program: Program, values: Sequence[Again]) -> bool:
    """Whether some value tells of directions, and that the rates differ along all of them.

    What `_apart_around` would answer, at the cost of two directions where nothing is declared.
    """
    rays = _rays(program, values)
    differ = _differs_by_itself(program, values)
    if differ is False:
        return False
    held = Held(program, rays)
    told = False
    try:
        if differ and _apart_both_ways(program, values[0], rays[::_RAYS]):  # to confirm it
            return True
        for value in values:
            found: list[bool] = []
            for apart in apart_along(held, value):
                found.append(apart)
                if found.count(False) > 1:
                    break
            if found and _is_apart(found):
                held.all()
                return True
            told = told or bool(found)
    except UntoldError:
        return False
    every = () if told else map(partial(_differs, program), values)
    known = [a for a in every if a is not None]
    return bool(known) and all(known)


def _apart_both_ways(
    program: Program, value: Again, pair: Sequence[Sequence[torch.Tensor]]
) -> bool:
    """Whether rates differ along a direction and its opposite, which a branch does not do.

    Where a ReLU is decided by a detached sign, on one side nothing changes, nor has to.
    """
    return list(apart_along(Held(program, pair), value)) == [True, True]


def _differs_by_itself(program: Program, values: Sequence[Again]) -> bool | None:
    """Whether the gradient is another one with nothing held constant, clearly; None in doubt.

    On kinks, a gradient is that of some side only, unless the sides meet with one slope.
    """
    touches = [s.touch.count > 0 and s.rule.bends(s.touch.op) for s in program.analysis.ordered()]
    if any(touches) or not values:
        return None
    if values[0].gradient is None or values[0].moving is None:
        return None
    try:
        pairs = zip(values[0].gradient(), natural_gradient(program), strict=True)
    except (ReplayError, RuntimeError):  # of linspace, for one, torch has no derivative
        return None
    gaps, sizes = [], []
    for number, (whole, held) in enumerate(pairs):
        if number in values[0].moving and whole.numel():
            gaps.append(float((whole - held).abs().max()))
            sizes.append(max(float(whole.abs().max()), float(held.abs().max())))
    most, size = max(gaps, default=0.0), max(sizes, default=0.0)
    if not (np.isfinite(most) and np.isfinite(size)):
        return None
    if most <= SAME_RATE * size:
        return False
    return True if most > max(DETACHED_APART) * size else None


def _is_apart(found: Sequence[bool]) -> bool:
    """Whether rates differ along all directions, but for one that a jump may have misled.

    Of rays in opposite pairs a branch on one side leaves one of each.
    """
    return all(found) or (len(found) > _RAYS and found.count(False) == 1)


def _rays(program: Program, values: Sequence[Again]) -> list[Sequence[torch.Tensor]]:
    """Random directions and their opposites, of the variables that move detached values.

    What others do would drown it: of an autoencoder whose code is rounded, the decoder's share.
    """
    generator = torch.Generator().manual_seed(2)
    rays: list[Sequence[torch.Tensor]] = [free_tangents(program, generator) for _ in range(_RAYS)]
    moving = next((v.moving for v in values if v.moving is not None), None)
    if moving is not None:
        rays = [
            tuple(x if n in moving else torch.zeros_like(x) for n, x in enumerate(ray))
            for ray in rays
        ]
    return [*rays, *(tuple(-x for x in r) for r in rays)]


def _differs(program: Program, again: Again) -> bool | None:
    """Whether the gradient is another one with nothing held constant; None if not known.

    For types so coarse that no step shows a rate: both gradients are those of float64, on the
    pieces that hold there, so that ties of the narrow type part alike in both.
    """
    if again.gradient is None:
        return None
    try:
        whole, held = flatten(again.gradient()), flatten(natural_gradient(program))
    except ReplayError:
        return None
    if not (np.isfinite(whole).all() and np.isfinite(held).all()):
        return None
    return float(np.abs(whole - held).max(initial=0.0)) > min(DETACHED_APART) * float(
        max(np.abs(whole).max(initial=0.0), np.abs(held).max(initial=0.0))
    )
