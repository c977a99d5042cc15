"""What a function is beside a point at which guards are touched: where its gradients tend to."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from clarke.capture import Ref
from clarke.constraints import random_tangents, unflatten
from clarke.deadline import UNLIMITED
from clarke.decide.beside import RAY_PAIRS, Beside
from clarke.decide.nonfinite import values_follow
from clarke.decide.onsurface import jumps_on_surfaces
from clarke.decide.rays import is_smooth_along
from clarke.decide.settle import Limit, settled
from clarke.decide.tolerance import peak
from clarke.errors import ReplayError
from clarke.kinks import Hazard
from clarke.kinks.singular import SingularRule
from clarke.kinks.steps import ComparisonRule
from clarke.numerics import BESIDE_AGREES, SURFACE_ASIDE
from clarke.steering import select_along

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from clarke.constraints import Relevance
    from clarke.deadline import Deadline
    from clarke.steering import Program, Site

    Array = NDArray[np.float64]
    Tensors = tuple[torch.Tensor, ...]

_AXES = 4  # variables up to which rays along the coordinates are looked at too


@dataclass(frozen=True, eq=False)
class Surroundings:
    """What the function is beside a guard.

    Attributes:
        limits: Where gradients tend to, ray by ray.
        error: (n,) what rounding leaves open of the limits.
        alike: Whether all limits are equal.
        whole: Whether nothing but guards is touched, beside the point as well: then limits that
            are alike are all there are.
    """

    limits: tuple[Limit, ...]
    error: Array
    alike: bool
    whole: bool


def agrees(one: Array, two: Array, error: Array) -> bool:
    """Whether two gradients are equal as far as limits can be told."""
    size = np.maximum(np.abs(one), np.abs(two))
    return bool((np.abs(one - two) <= error + BESIDE_AGREES * size).all())


def only_guards(program: Program, relevance: Relevance) -> bool:
    """Whether limits of gradients beside the point tell what matters.

    Every step has to be a comparison, whose sides are other branches. An infinite slope that the
    function as a whole has not is in order on a line: elsewhere it may have it beside the point.
    """
    known = {Hazard.STEP, Hazard.CONE, Hazard.FORMULA}
    if sum(p.numel() for p in program.point) == 1:
        known.add(Hazard.INFINITE_SLOPE)
    steps = relevance.hazards.get(Hazard.STEP, torch.zeros(0, dtype=torch.int64))
    return set(relevance.hazards) <= known and all(
        isinstance(program.analysis.site_of(k).rule, ComparisonRule) for k in steps.tolist()
    )


def surroundings(
    program: Program,
    gradient: Sequence[torch.Tensor],
    relevance: Relevance,
    generator: torch.Generator,
    deadline: Deadline = UNLIMITED,
) -> Surroundings | str:
    """What the function is beside guards, or why that cannot be told.

    Args:
        program: The program.
        gradient: What AD returned.
        relevance: Its relevant kinks.
        generator: Private randomness.
        deadline: When to stop looking.
    """
    others = _other_kinks(program, relevance)
    if isinstance(others, str):
        return others
    beside = Beside(program, generator, deadline=deadline)
    limits: list[Limit] = []
    for direction, turned in _directions(beside, program, gradient, generator):
        samples = beside.along(direction)
        limit = settled(samples, direction)
        if limit is None and turned:
            continue  # it stays near a surface, where rounding is larger than on a random ray
        if limit is None:
            return "Gradients along rays beside the point do not settle before rounding hides them."
        if not values_follow(beside.here, samples, limit.gradient):
            return "Values beside the point change at another rate than gradients say."
        limits.append(limit)
    if not limits:
        return "The point has no neighbours in the numbers that the program computes with."
    torn = jumps_on_surfaces(program, generator)
    if torn:
        return torn
    error = 8 * np.max([r.error for r in limits], axis=0)
    alike = all(agrees(limits[0].gradient, r.gradient, error) for r in limits[1:])
    if not alike and len(beside.here.moved) > 1 and not _isolated(program):
        return "On either side of it gradients tend to others, and where the sides meet is unclear."
    return Surroundings(tuple(limits), error, alike, not others)


def _isolated(program: Program) -> bool:
    """Whether all tied comparisons hold, or fail, at equality only."""
    return all(
        s.rule.isolated
        for s in program.analysis.sites.values()
        if isinstance(s.rule, ComparisonRule) and s.touch.count
    )


def _directions(
    beside: Beside, program: Program, gradient: Sequence[torch.Tensor], generator: torch.Generator
) -> Iterator[tuple[Tensors, bool]]:
    """Rays on all sides: random ones, those along coordinates, and along AD's gradient.

    With each, whether it was turned away from where a guard holds all along it.
    """
    for random in beside.rays(RAY_PAIRS):
        yield random, False
    count = sum(p.numel() for p in program.point)
    special: list[Tensors] = []
    if 1 < count <= _AXES:
        special += [unflatten(unit, program.point) for unit in np.eye(count)]
    if count > 1 and any(bool((g != 0).any()) for g in gradient):
        special.append(tuple(g.detach().to(program.dtype) for g in gradient))
    for ray in special:
        for direction in (ray, tuple(-d for d in ray)):
            smooth = is_smooth_along(program, direction, generator)
            yield (direction if smooth else _aside(program, direction, generator)), not smooth


def _aside(program: Program, direction: Tensors, generator: torch.Generator) -> Tensors:
    """A ray beside one along which a guard holds, but nowhere around it."""
    size = peak(direction)
    noise = random_tangents(program, generator)
    return tuple(d + SURFACE_ASIDE * size * r for d, r in zip(direction, noise, strict=True))


def _other_kinks(program: Program, relevance: Relevance) -> bool | str:
    """Whether more than guards is touched; why nothing can be told, if so.

    Where a guard has put a safe value, the branch that holds beside the point is touched at other
    places than the recorded one. It is looked at with the guards as they are on some ray.
    """
    guards = torch.zeros(program.analysis.count, dtype=torch.bool)
    line = sum(p.numel() for p in program.point) == 1  # on which rays are all there is
    for site in program.analysis.sites.values():
        if isinstance(site.rule, ComparisonRule) or (line and isinstance(site.rule, SingularRule)):
            guards[site.first : site.first + site.touch.count] = True
    others = bool((relevance.relevant & ~guards).any())
    for direction in _two(program):
        try:
            choices, _ = select_along(program, direction)
            run = program.run(choices=choices, grad=False)
        except ReplayError:
            return "The branch beside the point cannot be run on its own."
        for site in program.analysis.ordered():
            found = _hidden(site, run.tensors)
            if isinstance(found, str):
                return found
            others = others or found
    return others


def _two(program: Program) -> tuple[Tensors, Tensors]:
    direction = random_tangents(program, torch.Generator().manual_seed(4))
    return direction, tuple(-d for d in direction)


def _hidden(site: Site, tensors: dict[int, torch.Tensor] | object) -> bool | str:
    """Whether an operation that was not touched is so with other values of its arguments."""
    op, rule = site.touch.op, site.rule
    if isinstance(rule, ComparisonRule) or site.touch.count:
        return False
    if op.func._schema.name.endswith("_"):
        return True
    now = {
        i: tensors[a.slot].detach()  # type: ignore[index]
        for i, a in enumerate(op.args)
        if isinstance(a, Ref) and i in op.kept and a.slot in tensors  # type: ignore[operator]
    }
    same = all(torch.equal(v, op.kept[i].to(v.dtype)) for i, v in now.items())
    if same and set(now) == set(op.kept):
        return False
    touch = rule.find(replace(op, kept={**op.kept, **now}, signs=None))
    if not isinstance(rule, SingularRule):
        # A value that is not defined may be on a kink.
        undefined = any(bool(v.isnan().any()) for v in now.values() if v.is_floating_point())
        return touch.count > 0 or undefined
    lines = any(h is Hazard.STEP for _, h in rule.more) and not rule.complex_too
    if touch.count and (Hazard.STEP in touch.hazards or lines):
        return (
            f"{op.shown} at {op.location} jumps beside the point, so that limits along rays do not "
            "tell everything."
        )
    return False
