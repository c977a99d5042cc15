"""The rung of the outer estimate: what it tells, as a decision."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from clarke.constraints import flatten, unflatten
from clarke.deadline import UNLIMITED
from clarke.decide.apart import RegularProof, limit_beside, refute_outside, regular_in_parts
from clarke.decide.limits import Limits
from clarke.decide.live import find_live
from clarke.decide.model import Decision
from clarke.decide.normal import outer_estimate
from clarke.decide.refute import kinks_of, refute_part
from clarke.decide.responsible import culprits_of, hints
from clarke.decide.rounding import rounding_noise
from clarke.decide.tolerance import coarsest_epsilon, peak, relative_difference
from clarke.errors import BudgetError
from clarke.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from clarke.constraints import Relevance
    from clarke.deadline import Deadline
    from clarke.decide.outer import Outer
    from clarke.steering import Program

    Tensors = tuple[torch.Tensor, ...]

_SPACINGS = 4.0  # of a type's numbers: as much as rounding a right gradient may move it

_PARTS = 64  # small parts that are enumerated
_SMALL = Limits(nodes=2_000, cells=500, kinks=32)
_LARGE = 16  # candidates besides AD's from which the outer estimate comes before enumeration


def is_large(program: Program) -> bool:
    """Whether enumeration is the dearer way to an answer."""
    touches = [s.touch for s in program.analysis.ordered()]
    return sum(t.members.numel() - t.count for t in touches) > _LARGE


def judge_by_estimate(
    program: Program,
    gradient: Tensors,
    judged: tuple[Tensors, float],
    tolerance: float,
    generator: torch.Generator,
    *,
    confirm: bool,
    relevance: Relevance,
    deadline: Deadline = UNLIMITED,
) -> Decision | None:
    """A decision from the outer estimate, or None where it tells nothing.

    Args:
        program: The program.
        gradient: What AD returned.
        judged: What is held against the set in its place, and to which tolerance.
        tolerance: Relative difference between these two that counts as rounding.
        generator: Private randomness.
        confirm: Whether to run the program beside the point.
        relevance: For the report.
        deadline: When to give up.
    """
    try:
        outer = outer_estimate(program, generator, deadline)
    except BudgetError:
        return None
    found = None
    if judged[0] is not gradient:  # AD's pieces, mixed as AD mixes them
        found = _regular(outer, program, gradient, judged, tolerance, confirm=confirm)
    found = found or _outside(
        outer, program, gradient, judged, generator, confirm=confirm, deadline=deadline
    )
    found = found or _wrong_part(
        outer, program, gradient, judged, generator, confirm=confirm, deadline=deadline
    )
    return None if found is None else replace(found, relevance=relevance)


def _regular(
    outer: Outer,
    program: Program,
    gradient: Tensors,
    judged: tuple[Tensors, float],
    tolerance: float,
    *,
    confirm: bool,
) -> Decision | None:
    """AD's gradient as a mean of candidates, where every such mean is a Clarke gradient."""
    shares = outer.atoms.shares
    if shares is None or not regular_in_parts(outer):
        return None
    mean = unflatten(outer.mean(shares), program.point)
    if relative_difference(mean, judged[0]) > judged[1]:
        return None
    kept = tuple(g.detach().to(torch.float64).clone() for g in gradient)
    proof = RegularProof(program, program.point, kept, shares, tolerance, ())
    if proof.wrong(outer, run=False):
        proof = replace(proof, noise=rounding_noise(program, mean))
    if proof.wrong(outer, run=confirm):
        return None
    return Decision(
        Verdict.CLARKE,
        Verdict.CLARKE.value,
        proof.sealed(),
        "pieces that bend one way",
        analysis=program.analysis,
    )


def _outside(
    outer: Outer,
    program: Program,
    gradient: Tensors,
    judged: tuple[Tensors, float],
    generator: torch.Generator,
    *,
    confirm: bool,
    deadline: Deadline,
) -> Decision | None:
    """A refutation by the estimate."""
    own = flatten(judged[0])
    proof = refute_outside(outer, program, own, judged[1], deadline)
    if proof is None or is_rounding(program, proof.distance, judged[0], gradient):
        return None
    # A part may be small beside the others, so that what is rounding there shows in it.
    touched = unflatten(proof.direction, program.point)
    noise = rounding_noise(program, judged[0])
    far = max(n for n, d in zip(noise, touched, strict=True) if bool((d != 0).any()))
    if proof.distance <= far or proof.own_defects(run=confirm):
        return None
    culprits = culprits_of(program, proof.kinks or tuple(range(program.analysis.count)))
    return Decision(
        Verdict.NOT_CLARKE,
        f"{Verdict.NOT_CLARKE.value} It is {proof.distance:.3g} away from everything that any "
        "choice of pieces gives.",
        certificate=proof.sealed(),
        theorem="outer estimate",
        culprits=culprits,
        analysis=program.analysis,
        notes=hints(program, culprits),
        element=limit_beside(program, own, generator),
    )


def _wrong_part(
    outer: Outer,
    program: Program,
    gradient: Tensors,
    judged: tuple[Tensors, float],
    generator: torch.Generator,
    *,
    confirm: bool,
    deadline: Deadline,
) -> Decision | None:
    """A refutation of one small part, enumerated without all others."""
    own = flatten(judged[0])
    parts = outer.parts()
    if len(parts) < 2:
        return None  # the whole is enumerated anyway
    try:
        left, live = _PARTS, find_live(program, generator)
    except BudgetError:
        return None
    for at, (atoms, entries) in enumerate(parts):
        deadline.ask("looking for a wrong part: {} of {}", at, len(parts))
        kinks = kinks_of(outer, atoms)
        if not kinks or len(kinks) > _LARGE or outer.regular(atoms) or left == 0:
            continue
        left -= 1
        try:
            proof = refute_part(program, live, kinks, entries, own, judged[1], generator, _SMALL)
        except BudgetError:
            continue
        if proof is None or is_rounding(program, proof.distance, judged[0], gradient):
            continue
        if proof.own_defects(run=confirm):
            continue
        culprits = culprits_of(program, kinks)
        return Decision(
            Verdict.NOT_CLARKE,
            f"{Verdict.NOT_CLARKE.value} The part of it that depends on {len(kinks)} of the kinks "
            f"is {proof.distance:.3g} away from all that it can be.",
            certificate=proof.sealed(),
            theorem="exact enumeration",
            culprits=culprits,
            analysis=program.analysis,
            notes=hints(program, culprits),
            element=limit_beside(program, own, generator),
        )
    return None


def is_rounding(
    program: Program,
    distance: float,
    judged: Sequence[torch.Tensor],
    gradient: Sequence[torch.Tensor],
) -> bool:
    """Whether a distance is no more than what the program's type can tell apart."""
    spacing = coarsest_epsilon(program.analysis.trace)
    return distance <= _SPACINGS * spacing * max(peak(judged), peak(gradient))
