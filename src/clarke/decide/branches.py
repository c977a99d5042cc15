"""Branches of Python that rest on a tie: ``x if x > y else y`` where x and y are equal.

On one side of the tie the program is the one that ran, and a witness on that side proves that its
gradient is a limit of gradients nearby. The other side is another program, which nobody recorded.
Whether the function is continuous across shows in its own values only, at points beside this one.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch

from clarke.constraints import build_rows, random_tangents
from clarke.constraints.reads import held_sides
from clarke.decide.beside import Sample
from clarke.decide.hazards import A_BRANCH, not_followed, not_lipschitz
from clarke.decide.rates import Again, Held, UntoldError, apart_along
from clarke.decide.settle import Steep, steepness
from clarke.decide.tolerance import REPLAY_SPACING, coarsest_epsilon, peak
from clarke.decide.witnessed import Witnessed
from clarke.numerics import BESIDE_RATIO, BESIDE_ULPS, BRANCH_ASIDE, BRANCH_RAYS, BRANCH_SCALES
from clarke.steering import Program

if TYPE_CHECKING:
    from collections.abc import Sequence

    from clarke.decide.model import Decision, Witness
    from clarke.steering import Analysis

    Tensors = Sequence[torch.Tensor]


def other_side(analysis: Analysis) -> Decision:
    """UNDECIDED for what rests on the other side of a branch of Python."""
    first = int(held_sides(analysis).nonzero()[0])
    return not_followed(analysis, analysis.site_of(first), A_BRANCH)


def judge_on_branch(decision: Decision, program: Program, values: Sequence[Again]) -> Decision:
    """A verdict for the side of a tie on which Python takes the branch that ran, held to values.

    Args:
        decision: BOULIGAND with one witness, on that side.
        program: The program of the decision.
        values: The function itself at another point, see `declared_rate`.

    Returns:
        NOT_LIPSCHITZ where values across the tie keep away from the point's own or grow faster than
        any multiple of the distance; UNDECIDED where those on the witness's own side change at
        another rate than the gradient says, or cannot be seen.
    """
    analysis = program.analysis
    proof = decision.certificate and decision.certificate.argument
    if not isinstance(proof, Witnessed):
        return other_side(analysis)
    witness = proof.witnesses[0]
    rays = [witness.direction, *_beside(program, witness)]
    try:
        if any(any(apart_along(Held(program, rays), value)) for value in values):
            return other_side(analysis)
    except UntoldError:
        return other_side(analysis)
    steep = steep_across(program, values[0], [tuple(-d for d in witness.direction)])
    if steep is None:
        return decision
    return not_lipschitz(program, None, other_side(analysis).culprits, steep)


def _beside(program: Program, witness: Witness) -> list[tuple[torch.Tensor, ...]]:
    """A random direction near a witness's, on the same side of all its kinks."""
    rows = build_rows(program, witness.choices, _named(program, witness), witness.direction)
    aside = random_tangents(program, torch.Generator().manual_seed(5))
    size = peak(witness.direction)
    for share in BRANCH_ASIDE:
        near = tuple(d + share * size * a for d, a in zip(witness.direction, aside, strict=True))
        if bool((rows.times(near) > 0).all()):
            return [near]
    return []


def _named(program: Program, witness: Witness) -> torch.Tensor:
    named = torch.zeros(program.analysis.count, dtype=torch.bool)
    named[torch.from_numpy(witness.kinks)] = True
    return named


def steep_across(program: Program, again: Again, first: Sequence[Tensors] = ()) -> Steep | None:
    """Whether the function's own values leave the point's on some ray, as `steep_beside` tells.

    Args:
        program: What was recorded.
        again: The function itself.
        first: Rays to look along before random ones.
    """
    spacing = REPLAY_SPACING if again.exact else coarsest_epsilon(program.analysis.trace)
    least = BESIDE_ULPS * spacing * max(peak(program.point), spacing)
    generator = torch.Generator().manual_seed(6)
    rays = list(first)
    for _ in range(int(BRANCH_RAYS)):
        ray: Tensors = random_tangents(program, generator)
        rays.extend((ray, tuple(-d for d in ray)))
    here = _sample(again, program.point, 0.0, spacing)
    for across in rays:
        size = peak(across)
        samples: list[Sample] = []
        step = float(BESIDE_RATIO) ** -2
        while step > least and len(samples) < BRANCH_SCALES:
            program.deadline.ask("looking across a branch of Python")
            moved = [p + step / size * d for p, d in zip(program.point, across, strict=True)]
            samples.append(_sample(again, moved, step, spacing))
            step /= float(BESIDE_RATIO)
        found = steepness(here, samples)
        if found is not None:
            return found
    return None


def _sample(again: Again, point: Tensors, step: float, spacing: float) -> Sample:
    try:
        value = again.value(point)
    except (RuntimeError, ValueError, ArithmeticError, AssertionError, LookupError):
        value = math.nan  # the function is not defined there
    nothing = np.zeros(0)
    error = spacing * (abs(value) + peak(point))
    return Sample(np.array([step]), value, error, nothing, nothing)
