"""Gradients with NaN or infinity: where they arose, and a finite element where one exists."""

from __future__ import annotations

import math
import re
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

import torch

from clarke.constraints import random_tangents
from clarke.decide.confirm import confirm
from clarke.decide.disagree import name_nonfinite
from clarke.decide.model import Decision, culprit_of
from clarke.decide.tolerance import of_tensors, peak, relative_difference
from clarke.decide.vectors import used_vectors
from clarke.kinks import Hazard
from clarke.numerics import NOISE_BESIDE, VANISHING_BESIDE
from clarke.steering import Pieces, Program
from clarke.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from clarke.decide.confirm import Gradient

_STEPS = (1e-4, 1e-6, 1e-8)
_SMALLER_STEPS = (1e-10, 1e-12, 1e-14)
_GROWS = 5.0
_RAYS = 4
_NOISE = 1e-13  # relative size of value differences that may be rounding
_TOLERANCE = 1e-6
_RATE = 1e-2  # relative; curvature moves difference quotients by the step
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
                ray = tuple(sign * d for d in direction)
                added = 0.5 * second if logarithmic and not growing else 0.0
                if _grows_on(program, ray, quotients[-1], added, 1e3 * noise):
                    return True
    return False


def _grows_on(
    program: Program, ray: Sequence[torch.Tensor], last: float, added: float, noise: float
) -> bool:
    """Whether quotients go on growing at smaller steps, until roundings hide the values.

    ``sqrt(x + 1e-8)`` is steep from afar, and bounded. Where `added` is not zero, each step has to
    add as much; else to multiply.
    """
    here = _value(program, program.point)
    for step in _SMALLER_STEPS:
        moved = [p + step * d for p, d in zip(program.point, ray, strict=True)]
        gap = abs(_value(program, moved) - here)
        if gap <= noise:
            break
        if gap / step <= (last + added if added else _GROWS * last):
            return False
        last = gap / step
    return True


def jumps(program: Program, generator: torch.Generator) -> bool:
    """Whether values beside the point keep their distance from its own, however near they are."""
    here = _value(program, program.point)
    noise = _NOISE * max(abs(here), _largest(program))
    for _ in range(2):  # opposite sides of a surface through the point are seen by each
        direction = random_tangents(program, generator)
        for sign in (1.0, -1.0):
            gaps = []
            for step in (1e-6, 1e-8, 1e-10, 1e-12):
                moved = [p + sign * step * d for p, d in zip(program.point, direction, strict=True)]
                gaps.append(abs(_value(program, moved) - here))
            if min(gaps) > 1e3 * noise and min(gaps) > 0.9 * max(gaps):
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
    steep = {Hazard.INFINITE_SLOPE, Hazard.STEP, Hazard.CONE}
    if used_vectors(program.analysis) is not None:
        steep.add(Hazard.SEVERAL)  # vectors jump where their values meet
    touched = [
        culprit_of(site.touch, hazard.value)
        for site in program.analysis.ordered()
        for hazard in site.touch.hazards
        if hazard in steep
    ]
    culprits = name_nonfinite(program)
    dtypes = {g.dtype for g in gradient if g.is_floating_point()} - {program.dtype}
    # Ordinary in float64: then nothing is steep, a narrower type only overflowed or vanished.
    ordinary, finite = _wider(program, generator) if dtypes else (False, None)
    if touched and not ordinary and is_steep(program, generator):
        first = next((c for c in touched if culprits and c.location == culprits[0].location), None)
        named = first or touched[0]
        return Decision(
            Verdict.NOT_LIPSCHITZ,
            f"{named}. Difference quotients grow without bound towards the point, "
            "so there is no Clarke subdifferential here.",
            culprits=(named, *(c for c in touched if c is not named)),
            analysis=program.analysis,
        )
    for dtype in dtypes if not culprits else ():
        # Finite in float64: a narrower type overflowed, or lost what it divides by.
        culprits = name_nonfinite(Program(program.analysis, program.variables, dtype))
    culprits = culprits or tuple(touched)
    where = str(culprits[0]) if culprits else "the values themselves are not finite"
    valued = math.isfinite(_value(program, program.point))
    if any(Hazard.BEYOND in site.touch.hazards for site in program.analysis.ordered()):
        finite = None
    elif finite is None and valued:
        finite = finite_limit(program, generator)
    if not valued:
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
    )


def sober_gradient(
    program: Program,
    point: Sequence[torch.Tensor] | None = None,
    beside: Sequence[Sequence[torch.Tensor]] = (),
) -> tuple[torch.Tensor, ...]:
    """The gradient at `point`, where an adjoint that is exactly zero stays zero.

    A branch of `where` that is not taken has the adjoint 0; its operations multiply it by their
    slopes, and ``0 * inf`` and ``0 * nan`` are NaN, although the result does not depend on them.
    Nor does it depend to any order on values that are constant near `point`, such as a point's
    distance to itself: with points `beside` it, at which these have the same values, their
    adjoints count as zero where they are not finite.
    """
    run = program.run(point, pieces=Pieces.TRUE)
    if not run.output.requires_grad:
        return tuple(torch.zeros_like(p) for p in program.point)
    handles = [
        t.grad_fn.register_hook(_keep_all_zeros if _mixes(t.grad_fn) else _keep_zeros)
        for t in {id(t.grad_fn): t for t in run.tensors.values()}.values()
        if t.grad_fn is not None
    ]
    if beside:
        others = [program.run(q, pieces=Pieces.TRUE, grad=False).tensors for q in beside]
        for slot, t in run.tensors.items():
            if t.grad_fn is not None and t.is_floating_point():
                handles.append(t.register_hook(_keep_constant(t, [o[slot] for o in others])))
    grads = torch.autograd.grad(run.output.sum(), run.leaves, materialize_grads=True)
    for handle in handles:
        handle.remove()
    return tuple(g.detach() for g in grads)


# Backward nodes in which an entry of the input depends on many of the output, of the same shape.
_MIXING: Final = re.compile(
    r"Linalg|Chol|House|Ormqr|Triang|Solve|Mm|mm|Mv|Softmax|Cum|Norm|Cdist|Matrix"
)


def _mixes(node: Any) -> bool:
    return _MIXING.search(node.name()) is not None


def _keep_all_zeros(inner: Any, outer: Any) -> Any:
    if any(o is not None and bool((o != 0).any()) for o in outer):
        return None
    return tuple(None if v is None else torch.nan_to_num(v, 0.0, 0.0, 0.0) for v in inner)


def _keep_constant(
    value: torch.Tensor, others: Sequence[torch.Tensor]
) -> Callable[[torch.Tensor], torch.Tensor]:
    here = value.detach()
    constant = torch.ones_like(here, dtype=torch.bool)
    for other in others:
        constant &= (other == here) if other.shape == here.shape else torch.tensor(False)

    def repaired(grad: torch.Tensor) -> torch.Tensor:
        return torch.where(constant & ~torch.isfinite(grad), torch.zeros_like(grad), grad)

    return repaired


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


def _wider(
    program: Program, generator: torch.Generator
) -> tuple[bool, tuple[torch.Tensor, ...] | None]:
    """Whether the point is an ordinary one in float64, and its gradient if its neighbours share it.

    What overflowed or vanished in a narrower type is ordinary here. Neighbours are taken relative
    to each coordinate: the point may be as small as what vanished.
    """
    here = sober_gradient(program)
    noise = random_tangents(program, generator)
    sizes = torch.cat([p.abs().reshape(-1) for p in program.point])
    least = float(sizes[sizes > 0].min()) if bool((sizes > 0).any()) else 1.0
    near = sober_gradient(
        program,
        [
            torch.where(p == 0, 1e-6 * least * r, p * (1 + 1e-6 * r))
            for p, r in zip(program.point, noise, strict=True)
        ],
    )
    finite = all(bool(torch.isfinite(g).all()) for g in (*here, *near))
    return finite, here if finite and relative_difference(
        here, near, of_tensors(near)
    ) < 1e-4 else None


def finite_limit(program: Program, generator: torch.Generator) -> tuple[torch.Tensor, ...] | None:
    """The limit of gradients along some ray, an element of the Bouligand subdifferential.

    The values along the ray have to change as this limit says: at a step they do not.
    """

    def gradient(point: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        found = sober_gradient(program, point)
        if all(bool(torch.isfinite(g).all()) for g in found):
            return found
        return sober_gradient(program, point, _beside(program, point, generator))

    for _ in range(_RAYS):
        direction = random_tangents(program, generator)
        found = limit_along(gradient, program.point, direction)
        if found is not None and _values_agree(program, direction, found):
            return found
    return None


def _beside(
    program: Program, point: Sequence[torch.Tensor], generator: torch.Generator
) -> list[list[torch.Tensor]]:
    """Points so close to `point` that they are on the same side of every kink, almost surely."""
    away = max(
        float((q - p).abs().max()) if p.numel() else 0.0
        for q, p in zip(point, program.point, strict=True)
    )
    return [
        [
            q + 1e-3 * away * r
            for q, r in zip(point, random_tangents(program, generator), strict=True)
        ]
        for _ in range(2)
    ]


def _values_agree(
    program: Program, direction: Sequence[torch.Tensor], limit: Sequence[torch.Tensor]
) -> bool:
    """Whether the values along a ray change at the rate that a limit of gradients says."""
    here = _value(program, program.point)
    noise = _NOISE * max(abs(here), _largest(program))
    slope = sum(float((g * d).sum()) for g, d in zip(limit, direction, strict=True))
    size = sum(float((g * d).abs().sum()) for g, d in zip(limit, direction, strict=True))
    rates = []
    for step in _STEPS:
        moved = [p + step * d for p, d in zip(program.point, direction, strict=True)]
        gap = abs(_value(program, moved) - here - step * slope)
        if gap <= _RATE * step * size + 1e3 * noise:
            return True
        rates.append(gap / step)
    return all(b <= 0.2 * a for a, b in pairwise(rates))  # a slope of zero, and curvature


def limit_along(
    gradient: Gradient | Callable[[Sequence[torch.Tensor]], tuple[torch.Tensor, ...]],
    point: Sequence[torch.Tensor],
    direction: Sequence[torch.Tensor],
    tolerance: float = _TOLERANCE,
    bounds: Sequence[torch.Tensor] = (),
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
