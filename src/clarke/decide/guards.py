"""Guards: comparisons that put another value in the place of one point, or of a small part.

``where(x == 0, 1, sin(s) / s)`` with ``s = where(x == 0, 1, x)`` has at 0 the value 1, and nowhere
else the branch that it takes there. No selection of pieces at the point tells what the function is
beside it, since the branch that holds there is not defined at the point. But the function beside it
is what matters: gradients along rays tend to a limit, and where all rays agree and values come
back to the point's own, that limit is the only one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from clarke.capture import Ref
from clarke.constraints import find_relevant, flatten, random_tangents, unflatten
from clarke.deadline import UNLIMITED
from clarke.decide.beside import RAY_PAIRS, Beside
from clarke.decide.model import Decision, Witness, ray_witness
from clarke.decide.nonfinite import values_follow
from clarke.decide.onsurface import jumps_on_surfaces
from clarke.decide.settle import Limit, settled, steepness
from clarke.decide.verification import Defect, Recomputed, ad_weights, fresh_generator, is_replayed
from clarke.errors import ReplayError
from clarke.kinks import Hazard
from clarke.kinks.singular import SingularRule
from clarke.kinks.steps import ComparisonRule
from clarke.numerics import BESIDE_AGREES, BESIDE_APART, LIMIT_ERRORS
from clarke.steering import select_along, selected_gradient
from clarke.verdict import Verdict

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
class LimitProof(Recomputed):
    """Gradients along rays on all sides tend to one limit: what AD returned, or something else.

    The proof is by samples: `verify` computes every limit again, and those on other rays.

    Attributes:
        program: What ran.
        point: The point.
        gradient: AD's gradient.
        replayed: The recorded operations give this gradient, in float64; else it was handed over.
        limit: (n,) where gradients tend to on every ray.
        error: (n,) what rounding leaves open of it.
        equal: Whether the proof is that they are the same; else that they are apart.
        witnesses: The rays.
        weights: Equal weights of the witnesses.
        seal: Binds all of this.
    """

    program: Program
    point: Tensors
    gradient: Tensors
    replayed: bool
    limit: Array
    error: Array
    equal: bool
    witnesses: tuple[Witness, ...]
    weights: tuple[float, ...]
    seal: str = ""

    def recompute(self, program: Program, *, run: bool) -> None:
        """Look at the surroundings anew, on other rays, and at the limits along those named."""
        generator = fresh_generator()
        own = selected_gradient(program, weights=ad_weights(program))
        shapes = [p.shape for p in program.point]
        each = [self.gradient, *(p for w in self.witnesses for p in (w.direction, w.gradient))]
        if any([t.shape for t in parts] != shapes for parts in each):
            raise Defect("a gradient or a ray has another shape than the variables")
        if self.replayed != is_replayed(program, flatten(self.gradient)):
            raise Defect("AD's gradient of the program is another one")
        relevance = find_relevant(program, generator)
        found = surroundings(program, own, relevance, generator, program.deadline)
        if isinstance(found, str):
            raise Defect(found)
        if not found.alike or not (self.equal or found.whole):
            raise Defect("not all gradients beside the point tend to one limit")
        limit = np.mean([r.gradient for r in found.limits], axis=0)
        if self.limit.shape != limit.shape or self.error.shape != limit.shape:
            raise Defect("the limit has another shape than the variables")
        if not agrees(self.limit, limit, found.error):
            raise Defect("the limit is another one")
        if not bool((self.error <= LIMIT_ERRORS * found.error.max(initial=0.0)).all()):
            raise Defect("more counts as rounding than the limits leave open")
        wrong = replace(self, error=found.error).own_defects()
        if wrong:
            raise Defect(wrong[0])
        if self.weights != tuple(1 / len(self.witnesses) for _ in self.witnesses):
            raise Defect("the rays do not count alike")
        for i, w in enumerate(self.witnesses if run else ()):
            beside = Beside(program, torch.Generator().manual_seed(0))
            samples = beside.along(w.direction)
            along = settled(samples, w.direction)
            if along is None or not agrees(along.gradient, limit, found.error):
                raise Defect(f"gradients along witness {i} do not tend to the limit")
            if steepness(beside.here, samples) is not None:
                raise Defect(f"values along witness {i} do not come back to the point's own")

    def own_defects(self) -> tuple[str, ...]:
        """What the judge asks of its own proof: that the gradient is to the limit as it says."""
        if self.equal != agrees(flatten(self.gradient), self.limit, self.error):
            return ("the gradient is not to the limit as the proof says",)
        if not self.equal and not apart(flatten(self.gradient), self.limit, self.error):
            return ("the gradient is too near to the limit to be told from it",)
        if not self.witnesses:
            return ("there are no rays",)
        for i, w in enumerate(self.witnesses):
            plain = not (len(w.rows) or len(w.kinks) or w.choices)
            if not plain or not agrees(flatten(w.gradient), self.limit, self.error):
                return (f"witness {i} has another limit",)
        return ()


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

    def proof(self, program: Program, gradient: Tensors, *, equal: bool) -> LimitProof:
        """That a gradient is the limit of all, or is not."""
        rays = tuple(
            ray_witness(r.direction, unflatten(r.gradient, program.point)) for r in self.limits
        )
        share = tuple(1 / len(rays) for _ in rays)
        mean = np.mean([r.gradient for r in self.limits], axis=0)
        replayed = is_replayed(program, flatten(gradient))
        return LimitProof(
            program, program.point, gradient, replayed, mean, self.error, equal, rays, share
        )


def agrees(one: Array, two: Array, error: Array) -> bool:
    """Whether two gradients are equal as far as limits can be told."""
    size = np.maximum(np.abs(one), np.abs(two))
    return bool((np.abs(one - two) <= error + BESIDE_AGREES * size).all())


def apart(one: Array, two: Array, error: Array) -> bool:
    """Whether two gradients differ by far more than the error of limits."""
    size = np.maximum(np.abs(one), np.abs(two))
    return bool((np.abs(one - two) > BESIDE_APART * np.maximum(size, error / BESIDE_AGREES)).any())


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


def lipschitz_around_guards(program: Program, relevance: Relevance) -> bool:
    """Whether guards alone jump, and not the function around them, as far as samples tell."""
    if not only_guards(program, relevance):
        return False
    own = selected_gradient(program, weights=ad_weights(program))
    found = surroundings(program, own, relevance, fresh_generator(), program.deadline)
    return not isinstance(found, str)


def judge_guard(
    program: Program,
    gradient: Tensors,
    relevance: Relevance,
    generator: torch.Generator,
    otherwise: Decision,
    deadline: Deadline = UNLIMITED,
) -> Decision | None:
    """A verdict where gradients around a guard tell it; None where limits of rays differ.

    Args:
        program: The program.
        gradient: What AD returned.
        relevance: Its relevant kinks.
        generator: Private randomness.
        otherwise: The undecided verdict, which names the guard.
        deadline: When to stop looking.
    """
    found = surroundings(program, gradient, relevance, generator, deadline)
    name = otherwise.culprits[0]
    if isinstance(found, str):
        return replace(otherwise, reason=f"{name}. {found}")
    if not found.alike:
        return None
    equal = agrees(flatten(gradient), found.limits[0].gradient, found.error)
    proof = found.proof(program, gradient, equal=equal)
    # The limits have just been computed along all rays: they need no second run.
    if not (equal or found.whole) or proof.own_defects():
        return otherwise
    place = f"{name.operation} at {name.location}"
    if equal:
        verdict = Verdict.SMOOTH if found.whole else Verdict.BOULIGAND
        reason = f"Around {place} gradients tend to one limit on every ray, and AD's is that one."
    else:
        verdict = Verdict.NOT_CLARKE
        gap = float(np.linalg.norm(flatten(gradient) - proof.limit))
        reason = (
            f"{verdict.value} It is {gap:.3g} away from the only limiting gradient: {place} takes "
            "at the point a branch that holds nowhere around it."
        )
    return Decision(
        verdict,
        reason,
        proof.sealed(),
        "limits around a guard",
        culprits=() if equal else otherwise.culprits,
        analysis=program.analysis,
        relevance=relevance,
        element=None if equal else unflatten(proof.limit, program.point),
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
    for direction in _directions(beside, program, gradient):
        samples = beside.along(direction)
        limit = settled(samples, direction)
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
    beside: Beside, program: Program, gradient: Sequence[torch.Tensor]
) -> Iterator[Tensors]:
    """Rays on all sides: random ones, those along coordinates, and along AD's gradient."""
    yield from beside.rays(RAY_PAIRS)
    count = sum(p.numel() for p in program.point)
    if 1 < count <= _AXES:
        for i in range(count):
            unit = np.zeros(count)
            unit[i] = 1.0
            yield unflatten(unit, program.point)
            yield unflatten(-unit, program.point)
    if count > 1 and any(bool((g != 0).any()) for g in gradient):
        own = tuple(g.detach().to(program.dtype) for g in gradient)
        yield own
        yield tuple(-g for g in own)


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
