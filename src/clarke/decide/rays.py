"""Limits of gradients along rays, where kinks of several variables are touched.

The generalized gradients of a norm at zero, or of singular values that meet, form a set with a
curved boundary. A limit of gradients along a ray is one of its elements, and so is every convex
combination of such limits, as long as the function is Lipschitz continuous around the point.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from clarke.capture import all_finite
from clarke.constraints import flatten, random_tangents
from clarke.deadline import rung
from clarke.decide.aligned import aligned_direction
from clarke.decide.model import Witness, ray_witness, weighted_sum
from clarke.decide.nonfinite import limit_along
from clarke.decide.tolerance import larger, of_tensors, peak, relative_difference
from clarke.feasibility import convex_weights
from clarke.numerics import (
    RAY_BESIDE,
    RAY_LIMIT,
    RAY_SMOOTH,
    RAY_STEP,
)
from clarke.steering import Pieces, natural_gradient

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from clarke.constraints import Relevance
    from clarke.steering import Program

    Tensors = tuple[torch.Tensor, ...]
    Found = tuple[tuple[Witness, ...], tuple[float, ...], str]

_PAIRS = 3  # random rays, each with its opposite
_OWN = 8  # rays along gradients of the values that meet


@rung("looking for limits along rays")
def mean_of_limits(
    program: Program,
    gradient: Tensors,
    relevance: Relevance,
    generator: torch.Generator,
    bounds: Tensors,
) -> Found | None:
    """Witnesses whose gradients have AD's as a convex combination, with weights and a name.

    First along a direction in which repeated eigenvalues part as AD's vectors would have it, where
    there are any. Then along random rays: every first-order selection turns round with the
    direction, so that AD's symmetric choices (0 at a norm) are the mean of both limits. Then along
    AD's own gradient and those of the values that meet (singular values): there lie the choices
    that are not symmetric.
    """
    limits: list[Witness] = []
    aligned = aligned_direction(program, generator)
    first = () if aligned is None else (aligned,)
    for number in range(len(first) + _PAIRS):
        special = number < len(first)
        direction = first[number] if special else random_tangents(program, generator)
        pair = direction, tuple(-x for x in direction)
        own = list(limits_along(program, pair, generator, bounds))
        limits += own
        for w in own:
            if _equal(w.gradient, gradient, bounds):
                return (w,), (1.0,), "limit along a ray"
        if len(own) == 2:
            mean = weighted_sum([w.gradient for w in own], (0.5, 0.5))
            if _equal(mean, gradient, bounds, own):
                return tuple(own), (0.5, 0.5), "limits along a ray and its opposite"
    for direction in _own_directions(program, gradient, relevance):
        if not is_smooth_along(program, direction, generator):
            continue
        limit = _limit(program, direction, bounds)
        if limit is None:
            continue
        if _equal(limit.gradient, gradient, bounds):
            return (limit,), (1.0,), "limit along a ray"
        limits.append(limit)
    return _combined(limits, gradient, bounds)


def mean_toward(
    program: Program,
    gradient: Tensors,
    directions: Sequence[Tensors],
    generator: torch.Generator,
    bounds: Tensors,
) -> Found | None:
    """As `mean_of_limits`, along rays that somebody else found."""
    limits: list[Witness] = []
    for limit in limits_along(program, directions, generator, bounds):
        if _equal(limit.gradient, gradient, bounds):
            return (limit,), (1.0,), "limit along a ray"
        limits.append(limit)
    return _combined(limits, gradient, bounds)


def limits_along(
    program: Program,
    directions: Sequence[Tensors],
    generator: torch.Generator,
    bounds: Tensors = (),
) -> Iterator[Witness]:
    """The limits of gradients along rays, of those on which the function is smooth."""
    room = bounds or tuple(torch.zeros_like(p) for p in program.point)
    for direction in directions:
        program.deadline.ask("looking for limits along {} rays", len(directions))
        if is_smooth_along(program, direction, generator):
            limit = _limit(program, direction, room)
            if limit is not None:
                yield limit


def _equal(left: Tensors, right: Tensors, bounds: Tensors, of: Sequence[Witness] = ()) -> bool:
    """Whether two gradients agree as limits along rays can, or sums of these."""
    sizes: Tensors = tuple(b.abs() for b in right)
    for w in of:
        sizes = larger(sizes, tuple(g.abs() for g in w.gradient))
    return relative_difference(left, right, sizes, bounds) <= RAY_LIMIT


def _limit(program: Program, direction: Tensors, bounds: Tensors) -> Witness | None:
    own = limit_along(
        lambda point: natural_gradient(program, point, Pieces.TRUE),
        program.point,
        direction,
        RAY_LIMIT,
        bounds,
    )
    return None if own is None else ray_witness(direction, own)


def _combined(limits: list[Witness], gradient: Tensors, bounds: Tensors) -> Found | None:
    if not limits:
        return None
    points = np.stack([flatten(w.gradient) for w in limits])
    allowed = flatten(bounds) + RAY_LIMIT * np.abs(points).max(axis=0)
    weights = convex_weights(points, flatten(gradient), allowed=allowed)
    if weights is None:
        return None
    used = [i for i, w in enumerate(weights) if w > 0]
    return (
        tuple(limits[i] for i in used),
        tuple(float(weights[i]) for i in used),
        "mixture of limits along rays",
    )


def _own_directions(program: Program, gradient: Tensors, relevance: Relevance) -> Iterator[Tensors]:
    """AD's gradient, and the gradients of the values at which the relevant kinks stand."""
    if any(bool((g != 0).any()) for g in gradient):
        yield tuple(g.to(program.dtype) for g in gradient)
        yield tuple(-g.to(program.dtype) for g in gradient)
    kinks = torch.cat(list(relevance.hazards.values())).unique().tolist()
    slots = {program.analysis.site_of(k).touch.op.outputs for k in kinks}
    run = program.run()
    for slot in (s for outputs in slots for s in outputs):
        value = None if slot is None else run.tensors.get(slot)
        if value is None or not value.requires_grad or not value.is_floating_point():
            continue
        each: list[Tensors] = []
        for number in range(min(value.numel(), _OWN)):
            grads = torch.autograd.grad(
                value.reshape(-1)[number], run.leaves, retain_graph=True, materialize_grads=True
            )
            sound = all_finite(grads)
            if sound and any(bool((g != 0).any()) for g in grads):
                found = tuple(g.detach() for g in grads)
                each.append(found)
                yield found
                yield tuple(-g for g in found)
        # The values in their order, and turned round: all of them apart.
        for weights in (range(1, len(each) + 1), range(len(each), 0, -1)) if len(each) > 1 else ():
            yield weighted_sum(each, tuple(float(w) for w in weights))


def is_smooth_along(program: Program, direction: Tensors, generator: torch.Generator) -> bool:
    """Whether the function is differentiable on the ray: gradients on it and around it agree.

    A random ray avoids all kinks; one along special directions need not. It may also stay where a
    guard's comparison is tied, on a branch that holds on the ray and nowhere around it.
    """
    size = peak(direction)
    scale = peak(program.point)
    step = RAY_STEP * max(scale, 1.0) / size

    def at(noise: Tensors, sign: float) -> tuple[torch.Tensor, ...]:
        moved = [
            p + step * (d + sign * RAY_BESIDE * size * r)
            for p, d, r in zip(program.point, direction, noise, strict=True)
        ]
        return natural_gradient(program, moved, Pieces.TRUE)

    on = at(random_tangents(program, generator), 0.0)
    for _ in range(2):
        noise = random_tangents(program, generator)
        around = [on, at(noise, 1.0), at(noise, -1.0)]
        if not all(map(all_finite, around)):
            return False
        if any(
            relative_difference(a, around[1], of_tensors(around[1])) > RAY_SMOOTH for a in around
        ):
            return False
    return True
