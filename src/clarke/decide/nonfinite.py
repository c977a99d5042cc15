"""Gradients with NaN or infinity: where they arose, and a finite element where one exists."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from clarke.capture import all_finite
from clarke.constraints import flatten, unflatten
from clarke.deadline import rung
from clarke.decide.beside import RAY_PAIRS, Beside, Sample
from clarke.decide.confirm import confirm
from clarke.decide.disagree import name_nonfinite
from clarke.decide.model import Decision, culprit_of
from clarke.decide.settle import Steep, settled, steepness
from clarke.decide.sober import sober_gradient
from clarke.decide.tolerance import peak
from clarke.decide.vectors import used_vectors
from clarke.errors import OutOfTimeError
from clarke.kinks import Hazard
from clarke.numerics import (
    BESIDE_AGREES,
    BESIDE_FAR,
    BESIDE_RATE,
    BESIDE_ROUNDINGS,
    BESIDE_SMALL,
    LIMIT_STEPS,
    LIMIT_TOLERANCE,
    NOISE_BESIDE,
    VANISHING_BESIDE,
)
from clarke.steering import Pieces, Program, natural_gradient
from clarke.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from clarke.decide.confirm import Gradient
    from clarke.decide.model import Culprit

_SHARPEST = 5  # samples at which values are held against a limit of gradients
_NEAREST = 3  # samples at which a slope has settled, where it is none of rounding


@rung("tracing values that are not finite")
def judge_nonfinite(
    program: Program, gradient: Sequence[torch.Tensor], generator: torch.Generator
) -> Decision:
    """NONFINITE or NOT_LIPSCHITZ for a gradient with NaN or infinity."""
    if not all_finite(program.point):
        return Decision(
            Verdict.NONFINITE,
            "A variable is NaN or infinity before anything is computed. What made it so came "
            "earlier: look at the first step that is not finite.",
            analysis=program.analysis,
        )
    touched = _touched_hazards(program)
    culprits: tuple[Culprit, ...] = ()
    valued, steep, finite, late = True, None, None, ""
    try:
        culprits = name_nonfinite(program)
        valued = bool(torch.isfinite(program.run(pieces=Pieces.NATURAL, grad=False).output).all())
        steep, finite = _surroundings(program, generator) if valued else (None, None)
    except OutOfTimeError as error:  # that it is not finite is seen without
        late = f"Whether a valid gradient exists is open. {error}"
    if steep is not None:
        first = next((c for c in touched if culprits and c.location == culprits[0].location), None)
        named = first or (*touched, *culprits)[0] if touched or culprits else None
        others = tuple(c for c in touched or culprits if c is not named)
        return Decision(
            Verdict.NOT_LIPSCHITZ,
            f"{named or 'The gradient is not finite'}. {steep}, so there is no Clarke "
            "subdifferential here.",
            culprits=others if named is None else (named, *others),
            analysis=program.analysis,
        )
    dtypes = {g.dtype for g in gradient if g.is_floating_point()} - {program.dtype}
    for dtype in dtypes if not (culprits or late) else ():
        # Finite in float64: a narrower type overflowed, or lost what it divides by.
        other = Program(program.analysis, program.variables, dtype, program.deadline)
        culprits = name_nonfinite(other)
    culprits = culprits or touched
    where = str(culprits[0]) if culprits else "the values themselves are not finite"
    if any(Hazard.BEYOND in site.touch.hazards for site in program.analysis.ordered()):
        finite = None
    if late:
        more = late
    elif not valued:
        more = "The function's own value is not finite here, so no gradient is valid."
    elif finite is not None:
        more = "Gradients at nearby points have a finite limit, so a valid gradient exists."
    else:
        more = "No finite limit of nearby gradients was found."
    return Decision(
        Verdict.NONFINITE,
        f"{where}. {more}",
        culprits=culprits,
        analysis=program.analysis,
        element=finite,
        out_of_time=bool(late),
    )


def _touched_hazards(program: Program) -> tuple[Culprit, ...]:
    """Touched points at which an operation is steep or jumps."""
    steep = {Hazard.INFINITE_SLOPE, Hazard.STEP, Hazard.CONE}
    if used_vectors(program.analysis) is not None:
        steep.add(Hazard.SEVERAL)  # vectors jump where their values meet
    return tuple(
        culprit_of(site.touch, hazard.value)
        for site in program.analysis.ordered()
        for hazard in site.touch.hazards
        if hazard in steep
    )


def _surroundings(
    program: Program, generator: torch.Generator
) -> tuple[Steep | None, tuple[torch.Tensor, ...] | None]:
    """Whether values beside the point leave its own without bound; else a limit of gradients.

    A limit counts where values change along its ray as it says, and nowhere without bound.
    """
    own = natural_gradient(program, pieces=Pieces.TRUE)
    beside = Beside(program, generator)
    ordinary = not beside.guarded and all_finite(own)
    if ordinary:  # held where the narrower type had it, it would vanish in float64 too
        beside = Beside(program, generator, pieces=Pieces.NATURAL)
    found: NDArray[np.float64] | None = None
    for direction in beside.rays(RAY_PAIRS):
        samples = _without_specks(beside.along(direction))
        # Finite in float64, it only overflowed or vanished in a narrower type.
        steep = None if ordinary else steepness(beside.here, samples)
        if steep is not None:
            return steep, None
        limit = settled(samples, direction) if found is None else None
        if limit is not None and values_follow(beside.here, samples, limit.gradient):
            found = _sharper(program, limit.gradient, 8 * limit.error)
    return None, None if found is None else unflatten(found, program.point)


def _without_specks(samples: Sequence[Sample]) -> Sequence[Sample]:
    """Samples in which entries of the gradient that are rounding of the others count as zero.

    A logit that is masked afterwards has one: it is small beside the others, never settles, and is
    no slope. What is small and settles is one.
    """
    sizes = np.max([np.abs(s.gradient) for s in samples], axis=0, initial=0.0)
    least = _speck(float(sizes.max(initial=0.0)))
    if not 0 < least < math.inf or bool((sizes > least).all()):
        return samples
    moves = np.ptp([s.gradient for s in samples[-_NEAREST:]], axis=0)
    kept = np.where((sizes > least) | (moves <= BESIDE_AGREES * sizes), 1.0, 0.0)
    return [replace(s, gradient=s.gradient * kept, noise=s.noise * kept) for s in samples]


def _speck(size: float) -> float:
    """What rounding leaves in the place of a zero beside entries of a size."""
    return float(BESIDE_ROUNDINGS * np.finfo(np.float64).eps * size)


def limits_beside(program: Program, generator: torch.Generator) -> list[NDArray[np.float64]]:
    """Limits of gradients along random rays, each with the opposite one."""
    beside = Beside(program, generator)
    found = []
    for direction in beside.rays(RAY_PAIRS):
        samples = beside.along(direction)
        limit = settled(samples, direction)
        if limit is not None and values_follow(beside.here, samples, limit.gradient):
            found.append(limit.gradient)
    return found


def _sharper(
    program: Program, limit: NDArray[np.float64], error: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The gradient at the point itself where it is finite and the limit of those beside it."""
    own = flatten(sober_gradient(program))
    size = float(np.abs(limit).max(initial=0.0))
    near = np.abs(own - limit) <= error + BESIDE_AGREES * np.maximum(np.abs(limit), size)
    speck = (limit == 0) & (np.abs(own) <= _speck(size))
    return np.where(speck, 0.0, own) if bool(near.all()) else limit


def values_follow(here: Sample, samples: Sequence[Sample], limit: NDArray[np.float64]) -> bool:
    """Whether the values along a ray change at the rate that a limit of gradients says.

    Judged where rounding blurs the rate least; nearer than that they must not part from it again:
    beside large terms a jump shows only where these have become small.
    """
    near = [s for s in samples if s.distance <= BESIDE_FAR and math.isfinite(s.value)]
    rates = []
    for s in near:
        terms = limit * s.moved
        gap = abs(s.value - here.value - float(terms.sum()))
        rounding = 2 * (s.error + here.error)
        room = float(BESIDE_RATE) * float(np.abs(terms).sum()) + rounding
        rates.append((rounding / s.distance, gap <= room, max(gap - rounding, 0.0) / s.distance))
        if gap > room + float(BESIDE_SMALL) * rounding and any(fits for _, fits, _ in rates):
            return False  # samples come from far to near
    if not rates:
        return False
    if any(fits for _, fits, _ in sorted(rates)[:_SHARPEST]):
        return True
    # A slope of zero, and curvature.
    left = [rest for _, _, rest in rates]
    return len(left) > 2 and left[-1] <= float(BESIDE_RATE) * max(left)


def limit_along(
    gradient: Gradient | Callable[[Sequence[torch.Tensor]], tuple[torch.Tensor, ...]],
    point: Sequence[torch.Tensor],
    direction: Sequence[torch.Tensor],
    tolerance: float = LIMIT_TOLERANCE,
    bounds: Sequence[torch.Tensor] = (),
) -> tuple[torch.Tensor, ...] | None:
    """The limit of ``gradient(point + t direction)`` for t to 0, or None if it does not settle."""
    size = peak(direction)
    scale = peak(point)
    if size == 0:
        return None
    factor = max(scale, 1.0) / size

    def at(step: float) -> list[torch.Tensor]:
        moved = [p + step * factor * d for p, d in zip(point, direction, strict=True)]
        return [g.to(torch.float64) for g in gradient(moved)]

    wide, near = at(LIMIT_STEPS[0]), at(LIMIT_STEPS[1])
    if not all_finite((*wide, *near)):
        return None
    limit = tuple((10 * n - w) / 9 for n, w in zip(near, wide, strict=True))
    # What is left of an entry that falls with the step, or of one that is rounding alone.
    lost = NOISE_BESIDE * max(peak(limit), peak(wide))
    small = [VANISHING_BESIDE * n.abs() + lost for n in near]
    if bounds:
        small = [s + b for s, b in zip(small, bounds, strict=True)]
    limit = tuple(
        torch.where(g.abs() <= s, torch.zeros_like(g), g) for g, s in zip(limit, small, strict=True)
    )
    found = confirm(gradient, point, direction, limit, tolerance, bounds)
    return limit if found.confirmed else None
