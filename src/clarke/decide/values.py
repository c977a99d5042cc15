"""The function's own values against a positive verdict.

Rules, replays and confirmation all trust that PyTorch's derivatives are those of its values, near
the point if not at it. Where a formula is wrong everywhere, or the program did something out of
sight, only difference quotients show it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from clarke.deadline import UNLIMITED, Deadline
from clarke.decide.guards import OneLimit
from clarke.decide.held import free_tangents
from clarke.decide.model import Decision
from clarke.decide.tolerance import coarsest_epsilon
from clarke.errors import OutOfTimeError
from clarke.numerics import RATE_APART, RATE_STEPS, RECORD_NOISE
from clarke.steering import Pieces, Program
from clarke.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from clarke.decide.confirm import Gradient
    from clarke.steering import Run

    Value = Callable[[Sequence[torch.Tensor]], float]

_RAYS = 3
_SPAN = 0.5  # of the distance from the point, between the ends of a quotient
_ROUNDINGS = 64


def judge_values(
    decision: Decision,
    variables: Sequence[int],
    value: Value,
    gradient: Gradient,
    deadline: Deadline = UNLIMITED,
) -> Decision:
    """UNDECIDED in place of a positive verdict that the function's values contradict.

    Only for programs that are in float64 throughout: elsewhere rounding drowns the differences.

    Args:
        decision: A positive verdict.
        variables: Slots of the variables.
        value: The function itself at another point.
        gradient: AD's gradient of it at another point.
        deadline: When to give up.

    Raises:
        OutOfTimeError: The values could not be looked at in time.
    """
    analysis = decision.analysis
    if analysis is None or not decision.verdict.correct:
        return decision
    if coarsest_epsilon(analysis.trace) > torch.finfo(torch.float64).eps:
        return decision
    program = Program(analysis, variables, deadline=deadline)
    run = program.run(pieces=Pieces.NATURAL, grad=False)
    noise = _noise(run)
    here = value(program.point)
    proof = decision.certificate and decision.certificate.argument
    if abs(here - float(run.output)) > RECORD_NOISE * noise:
        why = (
            f"The recorded operations give {float(run.output):.6g}, but the function's value is "
            f"{here:.6g}: it changed a tensor out of clarke's sight (by assigning to `.data`, "
            "say), or does not repeat."
        )
    elif not isinstance(proof, OneLimit) and _contradicted(
        # Limits beside the point have been held against values, each with a bound of its error.
        program,
        value,
        gradient,
        noise,
    ):
        why = (
            "The function's values beside the point change at another rate than PyTorch's "
            "derivatives say there: some operation's own derivative is not that of its values, "
            "or the function changed a tensor out of clarke's sight."
        )
    else:
        return decision
    return Decision(
        Verdict.UNDECIDED,
        f"{decision.verdict.so_far}, but the function's values do not confirm it. {why}",
        analysis=analysis,
        relevance=decision.relevance,
    )


def _noise(run: Run) -> float:
    """How far roundings of the values may be off."""
    sizes = [
        float(torch.nan_to_num(t.detach().abs(), 0.0, 0.0, 0.0).max())
        for t in run.tensors.values()
        if t.is_floating_point() and t.numel() and t.layout is torch.strided
    ]
    return _ROUNDINGS * torch.finfo(torch.float64).eps * max(sizes, default=1.0)


def _contradicted(program: Program, value: Value, gradient: Gradient, noise: float) -> bool:
    """Whether difference quotients beside the point contradict AD, on all of several rays."""
    generator = torch.Generator().manual_seed(3)
    for _ in range(_RAYS):
        direction = free_tangents(program, generator)
        for sign in (1.0, -1.0):
            ray = tuple(sign * d for d in direction)
            if not _contradicted_along(program, value, gradient, ray, noise):
                return False
    return True


def _contradicted_along(
    program: Program,
    value: Value,
    gradient: Gradient,
    ray: Sequence[torch.Tensor],
    noise: float,
) -> bool:
    """Whether quotients between two points of a ray are wrong wherever rounding lets them tell."""
    told = False
    for step in RATE_STEPS:
        near, middle, far = (
            [p + t * step * d for p, d in zip(program.point, ray, strict=True)]
            for t in (1, 1 + _SPAN / 2, 1 + _SPAN)
        )
        try:
            quotient = (value(far) - value(near)) / (_SPAN * step)
            # At a point of zeros no value shows how large those are that cancel beside it.
            noise = max(noise, _noise(program.run(tuple(far), pieces=Pieces.NATURAL, grad=False)))
            slopes = [
                sum(float((g * d).sum()) for g, d in zip(gradient(at), ray, strict=True))
                for at in (near, middle, far)
            ]
        except OutOfTimeError:
            raise
        except (RuntimeError, ValueError):  # the program is not defined there
            continue
        # Simpson's rule, between points so near that terms of higher order alone, which is all
        # that x**6 or a determinant has at 0, do not show.
        gap = abs(quotient - (slopes[0] + 4 * slopes[1] + slopes[2]) / 6)
        size = RATE_APART * max(abs(quotient), *(abs(s) for s in slopes))
        if not size > 10 * noise / (_SPAN * step):
            continue
        told = True
        if not gap > size:
            return False
    return told


def _slope(program: Program, gradient: Gradient, ray: Sequence[torch.Tensor], step: float) -> float:
    """AD's derivative along a ray, at a distance."""
    moved = [p + step * d for p, d in zip(program.point, ray, strict=True)]
    return sum(float((g * d).sum()) for g, d in zip(gradient(moved), ray, strict=True))
