"""Gradients with NaN or infinity: where they arose, and a finite element where one exists."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch

from clarke.constraints import random_tangents
from clarke.decide.confirm import confirm
from clarke.decide.disagree import name_nonfinite
from clarke.decide.model import Decision, culprit_of
from clarke.decide.tolerance import peak, relative_difference
from clarke.kinks import Hazard
from clarke.steering import Pieces, Program
from clarke.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from clarke.decide.confirm import Gradient

_STEPS = (1e-4, 1e-6, 1e-8)
_RAYS = 4
_NOISE = 1e-13  # relative size of value differences that may be rounding
_TOLERANCE = 1e-6
_GROWTH = 1e-3  # additions to difference quotients, relative to them, that may be rounding


def is_steep(program: Program, generator: torch.Generator) -> bool:
    """Whether difference quotients grow without bound towards the point, on some ray."""
    here = _value(program, program.point)
    noise = _NOISE * max(abs(here), _largest(program))
    for _ in range(_RAYS):
        direction = random_tangents(program, generator)
        for sign in (1.0, -1.0):
            gaps = []
            for step in _STEPS:
                moved = [p + sign * step * d for p, d in zip(program.point, direction, strict=True)]
                gaps.append(abs(_value(program, moved) - here))
            quotients = [g / step for g, step in zip(gaps, _STEPS, strict=True)]
            # A bounded slope keeps them equal; a square root multiplies them by 10 each time.
            growing = all(b > 5 * a for a, b in pairwise(quotients))
            # A logarithm adds the same each time; where slopes are bounded, additions shrink.
            first, second = quotients[1] - quotients[0], quotients[2] - quotients[1]
            # Where all values vanish at the point, rounding is relative to those beside it.
            certain = max(1e3 * noise / _STEPS[-1], _GROWTH * max(quotients))
            logarithmic = first > certain and second > max(0.5 * first, certain)
            if (growing or logarithmic) and min(gaps) > 1e3 * noise:
                return True
    return False


def _largest(program: Program) -> float:
    """The largest finite value in the program: sums round in proportion to it."""
    run = program.run(pieces=Pieces.NATURAL, grad=False)
    sizes = [
        float(torch.nan_to_num(t.detach().abs(), 0.0, 0.0, 0.0).max())
        for t in run.tensors.values()
        if t.is_floating_point() and t.numel()
    ]
    return max(sizes, default=1.0)


def _value(program: Program, point: Sequence[torch.Tensor]) -> float:
    return float(program.run(point, pieces=Pieces.NATURAL, grad=False).output.sum())


def judge_nonfinite(
    program: Program, gradient: Sequence[torch.Tensor], generator: torch.Generator
) -> Decision:
    """NONFINITE or NOT_LIPSCHITZ for a gradient with NaN or infinity."""
    touched = [
        culprit_of(site.touch, hazard.value)
        for site in program.analysis.ordered()
        for hazard in site.touch.hazards
        if hazard in (Hazard.INFINITE_SLOPE, Hazard.STEP, Hazard.CONE)
    ]
    culprits = name_nonfinite(program)
    if touched and is_steep(program, generator):
        first = next((c for c in touched if culprits and c.location == culprits[0].location), None)
        named = first or touched[0]
        return Decision(
            Verdict.NOT_LIPSCHITZ,
            f"{named}. Difference quotients grow without bound towards the point, "
            "so there is no Clarke subdifferential here.",
            culprits=(named, *(c for c in touched if c is not named)),
            analysis=program.analysis,
        )
    dtypes = {g.dtype for g in gradient if g.is_floating_point()} - {program.dtype}
    for dtype in dtypes if not culprits else ():
        # Finite in float64: a narrower type overflowed, or lost what it divides by.
        culprits = name_nonfinite(Program(program.analysis, program.variables, dtype))
    culprits = culprits or tuple(touched)
    where = str(culprits[0]) if culprits else "the values themselves are not finite"
    finite = _wider(program, generator) if dtypes else None
    if finite is None:
        finite = finite_limit(program, generator)
    more = (
        "Gradients at nearby points have a finite limit, so a valid gradient exists."
        if finite is not None
        else "No finite limit of nearby gradients was found."
    )
    return Decision(
        Verdict.NONFINITE,
        f"{where}. {more}",
        culprits=culprits,
        analysis=program.analysis,
        element=finite,
    )


def sober_gradient(
    program: Program, point: Sequence[torch.Tensor] | None = None
) -> tuple[torch.Tensor, ...]:
    """The gradient at `point`, where an adjoint that is exactly zero stays zero.

    A branch of `where` that is not taken has the adjoint 0; its operations multiply it by their
    slopes, and ``0 * inf`` and ``0 * nan`` are NaN, although the result does not depend on them.
    """
    run = program.run(point, pieces=Pieces.NATURAL)
    if not run.output.requires_grad:
        return tuple(torch.zeros_like(p) for p in program.point)
    handles = [
        t.grad_fn.register_hook(_keep_zeros)
        for t in {id(t.grad_fn): t for t in run.tensors.values()}.values()
        if t.grad_fn is not None
    ]
    grads = torch.autograd.grad(run.output.sum(), run.leaves, materialize_grads=True)
    for handle in handles:
        handle.remove()
    return tuple(g.detach() for g in grads)


def _keep_zeros(inner: Any, outer: Any) -> Any:
    if len(outer) != 1 or outer[0] is None:
        return None
    zero = outer[0] == 0

    def repaired(value: torch.Tensor | None) -> torch.Tensor | None:
        if value is None or bool(torch.isfinite(value).all()):
            return value
        if value.shape == zero.shape:
            return torch.where(zero & ~torch.isfinite(value), torch.zeros_like(value), value)
        if bool(zero.all()):
            return torch.nan_to_num(value, 0.0, 0.0, 0.0)
        return value

    return tuple(repaired(v) for v in inner)


def _wider(program: Program, generator: torch.Generator) -> tuple[torch.Tensor, ...] | None:
    """The gradient in float64 at the point, if it is that of its neighbours as well.

    What overflowed or vanished in a narrower type is ordinary here. Neighbours are taken relative
    to each coordinate: the point may be as small as what vanished.
    """
    here = sober_gradient(program)
    noise = random_tangents(program, generator)
    near = sober_gradient(
        program, [p * (1 + 1e-6 * r) for p, r in zip(program.point, noise, strict=True)]
    )
    finite = all(bool(torch.isfinite(g).all()) for g in (*here, *near))
    return here if finite and relative_difference(here, near) < 1e-4 else None


def finite_limit(program: Program, generator: torch.Generator) -> tuple[torch.Tensor, ...] | None:
    """The limit of gradients along some ray, an element of the Bouligand subdifferential."""

    def gradient(point: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        return sober_gradient(program, point)

    for _ in range(_RAYS):
        direction = random_tangents(program, generator)
        found = limit_along(gradient, program.point, direction)
        if found is not None:
            return found
    return None


def limit_along(
    gradient: Gradient | Callable[[Sequence[torch.Tensor]], tuple[torch.Tensor, ...]],
    point: Sequence[torch.Tensor],
    direction: Sequence[torch.Tensor],
    tolerance: float = _TOLERANCE,
) -> tuple[torch.Tensor, ...] | None:
    """The limit of ``gradient(point + t direction)`` for t to 0, or None if it does not settle."""
    size = max((float(d.abs().max()) for d in direction if d.numel()), default=0.0)
    scale = max((float(p.abs().max()) for p in point if p.numel()), default=0.0)
    if size == 0:
        return None
    factor = max(scale, 1.0) / size

    def at(step: float) -> list[torch.Tensor]:
        moved = [p + step * factor * d for p, d in zip(point, direction, strict=True)]
        return [g.to(torch.float64) for g in gradient(moved)]

    wide, near = at(1e-5), at(1e-6)
    if not all(bool(torch.isfinite(g).all()) for g in (*wide, *near)):
        return None
    limit = tuple((10 * n - w) / 9 for n, w in zip(near, wide, strict=True))
    small = 1e-7 * max(peak(limit), peak(wide))
    limit = tuple(torch.where(g.abs() <= small, torch.zeros_like(g), g) for g in limit)
    return limit if confirm(gradient, point, direction, limit, tolerance).confirmed else None
