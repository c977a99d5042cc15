"""Whether values that the program detaches make AD's gradient that of another function.

``x + (round(x) - x).detach()`` has the value of ``round(x)`` and the gradient of ``x``. Verdicts
hold detached values constant; where the function's own values contradict its gradient, the program
declares a surrogate derivative and is told so.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

import torch

from clarke.constraints import flatten, random_tangents
from clarke.decide.model import Culprit, Decision
from clarke.errors import ReplayError
from clarke.steering import Program, select_along, selected_gradient
from clarke.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from clarke.capture import Trace

_APART = 0.05  # relative; far above rounding and curvature at the steps used
_STEPS = MappingProxyType({torch.float64: (1e-4, 1e-5), torch.float32: (1e-2, 3e-3)})
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


def judge_detached(
    decision: Decision,
    variables: Sequence[int],
    value: Callable[[Sequence[torch.Tensor]], float],
) -> Decision:
    """SURROGATE in place of a positive verdict that the function's values contradict.

    Args:
        decision: A positive verdict.
        variables: Slots of the variables.
        value: The function itself, detached parts included, at another point.
    """
    analysis = decision.analysis
    if analysis is None or not decision.verdict.correct:
        return decision
    places = held_constant(analysis.trace)
    if not places:
        return decision
    program = Program(analysis, variables)
    dtypes = {analysis.trace.externals[s].tensor.dtype for s in variables}
    steps = _STEPS[torch.float64 if dtypes == {torch.float64} else torch.float32]
    generator = torch.Generator().manual_seed(2)
    here = value(program.point)
    apart = []
    rays = [random_tangents(program, generator) for _ in range(_RAYS)]
    for direction in (d for r in rays for d in (r, tuple(-x for x in r))):
        try:
            choices, _ = select_along(program, direction)
        except ReplayError:
            return decision
        expected = float(flatten(selected_gradient(program, choices)) @ flatten(direction))
        gaps = []
        for step in steps:
            moved = [p + step * d for p, d in zip(program.point, direction, strict=True)]
            slope = (value(moved) - here) / step
            noise = 1e3 * torch.finfo(torch.float32).eps * abs(here) / step
            noise = 0.0 if dtypes == {torch.float64} else noise
            gaps.append(abs(slope - expected) > _APART * max(abs(slope), abs(expected)) + noise)
        apart.append(all(gaps))
    if not all(apart):
        # On one side only: a branch, which the recorded run does not show.
        read = read_into_python(analysis.trace)
        if not any(apart) or not read:
            return decision
        return Decision(
            Verdict.UNDECIDED,
            f"{read[0]}; beside the point the program takes another branch, or counts otherwise. "
            "clarke cannot follow the other side.",
            culprits=read,
            analysis=analysis,
        )
    return Decision(
        Verdict.SURROGATE,
        f"{places[0]}; the function changes at another rate than the gradient says. Autograd "
        "differentiates the program with that value held constant, which declares a derivative "
        "of its own. To judge just that function, compute the value outside of it.",
        culprits=places,
        analysis=analysis,
        relevance=decision.relevance,
    )
