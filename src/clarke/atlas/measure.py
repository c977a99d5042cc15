"""Measure a point: both modes, limits of gradients, difference quotients, the verdict."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

import numpy as np
import torch

from clarke.atlas.forward import forward_gradient, forward_standing
from clarke.atlas.model import AtlasRow, Standing, close
from clarke.atlas.points import points
from clarke.check import check
from clarke.decide.nonfinite import limit_along
from clarke.errors import ClarkeError
from clarke.feasibility import convex_weights
from clarke.report import Report
from clarke.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from clarke.atlas.model import Vector
    from clarke.kinks.samples import Sample

_RAYS = 12
_STEP = 1e-6
_SLACK = 1e-4  # one-sided difference quotients with step 1e-6 are this exact

_STANDINGS = (
    (Verdict.SMOOTH, Standing.GRADIENT),
    (Verdict.BOULIGAND, Standing.LIMITING),
    (Verdict.CLARKE, Standing.CLARKE),
    (Verdict.NOT_CLARKE, Standing.WRONG),
    (Verdict.NONFINITE, Standing.NONFINITE),
    (Verdict.NOT_LIPSCHITZ, Standing.NOT_LIPSCHITZ),
)


def atlas(chosen: Iterable[Sample] | None = None) -> tuple[AtlasRow, ...]:
    """The atlas of the installed torch; by default of all points."""
    return tuple(measure_point(p) for p in (points() if chosen is None else chosen))


def objective(sample: Sample, inputs: Sequence[torch.Tensor]) -> torch.Tensor:
    """The call's results, added up with weights that keep different entries apart."""
    out = torch.as_tensor(sample.function(*inputs)).reshape(-1)
    number = torch.arange(out.numel(), dtype=out.dtype)
    weights = (1 - 0.1 * number) * (1 - 2 * (number % 2))
    weights[weights == 0] = 0.05
    return (out * weights).sum()


def measure_point(sample: Sample) -> AtlasRow:
    """Run one call at its point and around it."""

    def f(*inputs: torch.Tensor) -> torch.Tensor:
        return objective(sample, inputs)

    inputs = sample.tensors()
    value = float(f(*inputs).detach())
    try:
        report: Report | None = check(f, inputs, wrt=inputs, seconds=None)
        reverse = _flat(report.gradient) if report is not None else ()
        reason = report.reason if report is not None else ""
    except ClarkeError as error:
        report, reverse, reason = None, (), str(error)
    if not reverse:
        reverse = _reverse(f, inputs)
    limits = _limits(f, inputs)
    quotients = _quotients(f, inputs, limits, at_point=True)
    beside = _quotients(f, inputs, limits, at_point=False)
    verdict = Verdict.UNDECIDED if report is None else report.verdict
    element = None if report is None or report.element is None else _flat(report.element)
    standing = _standing(verdict, reverse, limits, (quotients, beside), element, value)
    forward = forward_gradient(f, inputs)
    return AtlasRow(
        call=sample.call,
        kink=sample.kink,
        operations=()
        if report is None
        else tuple(dict.fromkeys(k.operation for k in report.kinks if k.touched)),
        reverse=reverse,
        forward=forward,
        limits=limits,
        quotients=quotients,
        verdict=verdict,
        standing=standing,
        forward_standing=None
        if forward is None
        else forward_standing(f, inputs, forward, reverse, standing, limits),
        element=element,
        reason=_without_places(reason),
    )


def _standing(
    verdict: Verdict,
    reverse: Vector,
    limits: tuple[Vector, ...],
    quotients: tuple[tuple[float, float] | None, tuple[float, float] | None],
    element: Vector | None,
    value: float,
) -> Standing:
    if not math.isfinite(value):
        return Standing.INFINITE_VALUE
    if verdict in (Verdict.UNDECIDED, Verdict.SURROGATE):
        if not all(math.isfinite(x) for x in reverse):
            return Standing.UNDECIDED
        at_point, beside = (agrees(q, limits) for q in quotients)
        # Values beside the point contradict the gradients there, or all gradients there agree
        # with the values and among each other, but not with the one at the point.
        alone = at_point and len(limits) == 1 and not close(reverse, limits[0], 1e-5)
        return Standing.FORMULA if beside is False or alone else Standing.UNDECIDED
    if verdict is Verdict.NONFINITE and element is None:
        return Standing.UNDECIDED
    return next(standing for v, standing in _STANDINGS if v is verdict)


def agrees(quotients: tuple[float, float] | None, limits: Sequence[Vector]) -> bool | None:
    """Whether difference quotients stay in the range of the limits; None where unknown."""
    return None if quotients is None else max(quotients) <= _SLACK * max(1.0, _size(limits))


def _without_places(reason: str) -> str:
    """A reason without the files and lines of this installation."""
    return re.sub(r" at \S+:\d+", "", reason)


def in_hull(vector: Vector, limits: Sequence[Vector]) -> bool:
    """Whether a vector is a convex combination of sampled limits."""
    if not limits or not all(math.isfinite(x) for x in vector):
        return False
    if any(close(vector, v, 1e-5) for v in limits):
        return True
    found = convex_weights(np.asarray(limits), np.asarray(vector), tolerance=1e-5)
    return found is not None


def _flat(parts: Sequence[torch.Tensor]) -> Vector:
    return tuple(float(x) for p in parts for x in p.detach().reshape(-1))


def _gradient(
    f: Callable[..., torch.Tensor], point: Sequence[torch.Tensor]
) -> tuple[torch.Tensor, ...]:
    leaves = [p.detach().clone().requires_grad_() for p in point]
    value = f(*leaves)
    if not value.requires_grad:
        return tuple(torch.zeros_like(p) for p in point)
    return torch.autograd.grad(value, leaves, materialize_grads=True)


def _reverse(f: Callable[..., torch.Tensor], inputs: Sequence[torch.Tensor]) -> Vector:
    return _flat(_gradient(f, inputs))


def _rays(inputs: Sequence[torch.Tensor]) -> list[tuple[torch.Tensor, ...]]:
    count = sum(p.numel() for p in inputs)
    if count == 1:
        vectors = [torch.tensor([-1.0]), torch.tensor([1.0])]
    else:
        generator = torch.Generator().manual_seed(0)
        drawn = torch.randn(_RAYS, count, generator=generator)
        vectors = [v for row in drawn for v in (row, -row)]
    rays = []
    for vector in vectors:
        parts = vector.to(torch.float64).split([p.numel() for p in inputs])
        rays.append(tuple(v.reshape(p.shape) for v, p in zip(parts, inputs, strict=True)))
    return rays


def _limits(f: Callable[..., torch.Tensor], inputs: Sequence[torch.Tensor]) -> tuple[Vector, ...]:
    point = tuple(p.detach() for p in inputs)
    found: list[Vector] = []
    rays = _rays(inputs)
    for ray in rays:
        try:
            limit = limit_along(lambda at: _gradient(f, at), point, ray)
        except RuntimeError:  # outside of the call's domain
            return ()
        if limit is None:
            return ()
        vector = _flat(limit)
        keep_both = len(rays) == 2
        if keep_both or not any(close(vector, v) for v in found):
            found.append(vector)
    if len(found) == 2 and close(found[0], found[1]):
        found.pop()
    return tuple(found)


def _quotients(
    f: Callable[..., torch.Tensor],
    inputs: Sequence[torch.Tensor],
    limits: tuple[Vector, ...],
    *,
    at_point: bool,
) -> tuple[float, float] | None:
    """How far one-sided difference quotients leave the range of the limits, below and above.

    Taken from the point itself, or (which a jump at the point does not disturb) beside it.
    """
    if not limits:
        return None
    point = tuple(p.detach() for p in inputs)
    with torch.no_grad():
        below = above = 0.0
        for ray in _rays(inputs):
            size = max(float(d.norm()) for d in ray) or 1.0
            unit = tuple(d / size for d in ray)
            first = 0.0 if at_point else _STEP
            here, there = (
                float(f(*(p + step * d for p, d in zip(point, unit, strict=True))))
                for step in (first, first + _STEP)
            )
            quotient = (there - here) / _STEP
            slopes = np.asarray(limits) @ np.asarray(_flat(unit))
            below = max(below, float(slopes.min()) - quotient)
            above = max(above, quotient - float(slopes.max()))
    if math.isnan(below) or math.isnan(above):
        return None
    return below, above


def _size(limits: Sequence[Vector]) -> float:
    return max((abs(x) for v in limits for x in v), default=0.0)
