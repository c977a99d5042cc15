"""The rung of the outer estimate: what it tells, as a decision."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from clarke.constraints import flatten, unflatten
from clarke.decide.apart import (
    OneWay,
    is_the_set,
    limit_beside,
    refute_outside,
    regular_in_parts,
    roundings_of,
)
from clarke.decide.certificate import Certificate, exactly
from clarke.decide.cures import hints
from clarke.decide.exact import kinks_of
from clarke.decide.limits import Limits
from clarke.decide.live import find_live
from clarke.decide.model import Decision
from clarke.decide.project import ROUNDS
from clarke.decide.refute import refute_part
from clarke.decide.responsible import culprits_of
from clarke.decide.tolerance import added, within
from clarke.errors import BudgetError
from clarke.verdict import Verdict

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from clarke.deadline import Deadline
    from clarke.decide.apart import OuterSeparation
    from clarke.decide.cures import Valid
    from clarke.decide.norms import NormSeparation
    from clarke.decide.outer import Outer
    from clarke.decide.refute import Separation
    from clarke.decide.rounding import Rounding
    from clarke.steering import Program

    Array = NDArray[np.float64]
    Tensors = tuple[torch.Tensor, ...]

_PARTS = 64  # small parts that are enumerated
_SMALL = Limits(nodes=2_000, cells=500, kinks=32)
_LARGE = 16  # candidates besides AD's from which the outer estimate comes before enumeration


def is_large(program: Program) -> bool:
    """Whether enumeration is the dearer way to an answer."""
    touches = [s.touch for s in program.analysis.ordered()]
    return sum(t.members.numel() - t.count for t in touches) > _LARGE


def judge_by_estimate(
    outer: Outer,
    program: Program,
    gradient: Tensors,
    judged: tuple[Tensors, Tensors],
    rounding: Rounding,
    generator: torch.Generator,
    *,
    confirm: bool,
) -> Decision | None:
    """A decision from the outer estimate of the whole, or None where it tells nothing.

    Args:
        outer: The estimate.
        program: The program.
        gradient: What AD returned.
        judged: What is held against the set in its place, and how far each entry may be off.
        rounding: What rounding can have done to what AD returned.
        generator: Private randomness.
        confirm: Whether to run the program beside the point.
    """
    found = None
    if judged[0] is not gradient:  # AD's pieces, mixed as AD mixes them
        found = _regular(outer, program, gradient, judged, rounding, confirm=confirm)
    return found or _outside(outer, program, judged, rounding, generator, confirm=confirm)


def _regular(
    outer: Outer,
    program: Program,
    gradient: Tensors,
    judged: tuple[Tensors, Tensors],
    rounding: Rounding,
    *,
    confirm: bool,
) -> Decision | None:
    """AD's gradient as a mean of candidates, where every such mean is a Clarke gradient."""
    shares = outer.atoms.shares
    if shares is None or not is_the_set(outer):
        return None
    mean = unflatten(outer.mean(shares), program.point)
    if not within(mean, judged[0], added(judged[1], roundings_of(outer, program))):
        return None
    kept = exactly(gradient)
    proof = OneWay(shares, judged[1])
    if proof.wrong(outer, program, kept, run=False):
        if rounding.vague(gradient):
            return None
        proof = replace(proof, bounds=added(judged[1], rounding.bounds))
    if proof.wrong(outer, program, kept, run=confirm):
        return None
    return Decision(
        Verdict.CLARKE,
        Verdict.CLARKE.value,
        Certificate(program, kept, proof).sealed(),
        "pieces that bend one way" if regular_in_parts(outer) else "pieces that move freely",
        analysis=program.analysis,
    )


def _outside(
    outer: Outer,
    program: Program,
    judged: tuple[Tensors, Tensors],
    rounding: Rounding,
    generator: torch.Generator,
    *,
    confirm: bool,
) -> Decision | None:
    """A refutation by the estimate."""
    own, deadline = flatten(judged[0]), program.deadline
    proof = refute_outside(outer, own, flatten(judged[1]), deadline)
    if proof is None or is_rounding(proof, rounding):
        return None
    if proof.own_defects(program, judged[0], run=confirm):
        return None
    kinks = proof.kinks or tuple(range(program.analysis.count))
    says = f"It is {proof.distance:.3g} away from everything that any choice of pieces gives."
    valid = _valid(outer, program, flatten(judged[1]), deadline)
    return _refuted(program, proof, "outer estimate", says, kinks, own, generator, valid)


def _valid(outer: Outer, program: Program, allowed: Array, deadline: Deadline) -> Valid:
    """Tells whether a gradient is in the set, where the estimate is the set itself."""
    exact = is_the_set(outer)
    room = allowed + flatten(roundings_of(outer, program))

    def valid(gradient: Array) -> bool | None:
        if not exact:
            return None
        near = outer.project(gradient, ROUNDS, deadline).point
        return bool((np.abs(near - gradient) <= room).all())

    return valid


def _refuted(
    program: Program,
    proof: OuterSeparation | Separation,
    theorem: str,
    says: str,
    kinks: tuple[int, ...],
    own: Array,
    generator: torch.Generator,
    valid: Valid,
) -> Decision:
    """Wrong, by a proof that holds: with the kinks to blame and a right value.

    Args:
        program: What ran.
        proof: The proof.
        theorem: The argument.
        says: How far away the gradient is, and of what.
        kinks: Those that the proof speaks of.
        own: (n,) the gradient.
        generator: Draws the directions in which a right value is looked for.
        valid: Tells whether another gradient is right.
    """
    culprits = culprits_of(program, kinks)
    return Decision(
        Verdict.NOT_CLARKE,
        f"{Verdict.NOT_CLARKE.value} {says}",
        certificate=Certificate(program, unflatten(own, program.point), proof).sealed(),
        theorem=theorem,
        culprits=culprits,
        analysis=program.analysis,
        cures=hints(program, culprits, valid),
        element=limit_beside(program, own, generator),
    )


def wrong_part(
    outer: Outer,
    program: Program,
    judged: tuple[Tensors, Tensors],
    rounding: Rounding,
    generator: torch.Generator,
    *,
    confirm: bool,
) -> Decision | None:
    """A refutation of one small part, enumerated without all others.

    The arguments are those of `judge_by_estimate`.
    """
    own, deadline = flatten(judged[0]), program.deadline
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
            proof = refute_part(
                program, live, kinks, entries, own, flatten(judged[1]), generator, _SMALL
            )
        except BudgetError:
            continue
        if proof is None or is_rounding(proof, rounding):
            continue
        if proof.own_defects(program, judged[0], run=confirm):
            continue
        says = (
            f"The part of it that depends on {len(kinks)} of the kinks is {proof.distance:.3g} "
            "away from all that it can be."
        )
        valid = _valid(outer, program, flatten(judged[1]), deadline)
        return _refuted(program, proof, "exact enumeration", says, kinks, own, generator, valid)
    return None


def is_rounding(proof: Separation | OuterSeparation | NormSeparation, rounding: Rounding) -> bool:
    """Whether a gradient misses the set by no more than rounding in its own types may do."""
    return proof.gap <= float(np.abs(proof.direction) @ flatten(rounding.bounds))
