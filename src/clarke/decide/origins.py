"""Ties by origin: those that a function has, and those that exist by rounding alone.

In a narrow type many values are equal that are not in the numbers they stand for. A direction in
the variables that parts all of them need not exist, and says little where it does: the next
rounding falls otherwise. So what an operation has rounded away is given back to the program as a
variable of its own, zero here, and the gradient is judged in all variables together. It is then,
for the user's variables, a limit of gradients of programs whose roundings differ from these by as
little as one likes. What an operation has not rounded stays as it is: a tie of exact values is the
function's.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from clarke.constraints import build_rows, find_relevant
from clarke.deadline import rung
from clarke.decide.context import Context
from clarke.decide.freed import with_roundings
from clarke.decide.mixture import turn_of_selections
from clarke.decide.model import Decision, Witness
from clarke.decide.search import witness_selection
from clarke.decide.verification import own_gradient
from clarke.decide.witnessed import Witnessed
from clarke.errors import OutOfTimeError, ReplayError
from clarke.feasibility import find_witness
from clarke.kinks import default_registry
from clarke.numerics import SEARCH_SHARE, WITNESS_MARGIN
from clarke.steering import natural_gradient, selected_gradient
from clarke.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping

    from clarke.steering import Program

_LONGEST = 64  # selections of which a gradient may be the mean


def told_by_origin(context: Context, found: Decision) -> Decision:
    """A decision with its ties told apart, and for which program it holds: rounded, or exact."""
    relevance = context.relevance
    if not context.is_narrow or not bool(relevance.relevant.any()):
        return found
    try:
        rounded = context.rounded & relevance.relevant
        notes = found.notes
        if bool(rounded.any()):
            notes = (*notes, _for_which(context, int(rounded.sum())))
    except (OutOfTimeError, ReplayError):
        return found
    return replace(found, rounded=rounded, notes=notes)


def _for_which(context: Context, many: int) -> str:
    """What the program does in float64, where ties of rounding are none."""
    exact = natural_gradient(context.program)
    bounds = (context.freed or context).rounding.bounds  # of all variables, the user's first
    worst = max(
        (
            float(((e - o).abs() - b).max()) / max(float(o.abs().max()), float(e.abs().max()))
            for e, o, b in zip(exact, context.own, bounds, strict=False)
            if e.numel() and bool((e - o).any())
        ),
        default=0.0,
    )
    of = int(context.relevance.relevant.sum())
    ties = f"{many} of the {of} ties that matter exist by rounding alone: in float64 they are none"
    if worst <= 0:
        return (
            f"{ties}, and autograd returns the same gradient there, within rounding: it is that of "
            "the exact program, too."
        )
    return (
        f"{ties}, and autograd returns another gradient there (an entry is {worst:.2g} of the "
        "largest one away, beyond rounding). The verdict is on the program as it rounds, not on "
        "the exact one."
    )


def judge_beside_roundings(context: Context) -> Decision | None:
    """BOULIGAND among programs that round otherwise by as little as one likes; None if not proved.

    Where AD shares slopes among ties, CLARKE: a mean of such gradients.

    Raises:
        OutOfTimeError: There is not time enough.
    """
    program, relevance = context.program, context.relevance
    if context.given or context.looked_beside or not context.is_narrow:
        return None
    context.looked_beside = True
    tied = context.rounded & relevance.relevant
    if not bool(tied.any()):
        return None
    if context.lost is not None:
        return context.lost.decision()
    freed = with_roundings(program, default_registry(), tied)
    if freed is None:
        return None
    every = find_relevant(freed, context.generator)
    if every.hazards:
        return None
    behind = own_gradient(freed)[len(program.variables) :]
    gradient = (*context.gradient, *behind)
    other = Context(freed, gradient, every, context.settings, context.generator, None)
    witnesses, shares = [], []
    for choices, share in turn_of_selections(freed, every, context.generator)[:_LONGEST]:
        witness = _parted(context, other, choices, tied)
        if witness is None:
            return None
        witnesses.append(witness)
        shares.append(share)
    if sum(shares) < 1 or other.differs:
        return None
    context.freed = other
    alone = len(witnesses) == 1
    verdict = Verdict.BOULIGAND if alone else Verdict.CLARKE
    theorem = "witness beside roundings" if alone else "mixture beside roundings"
    found = other.accept(verdict, tuple(witnesses), tuple(shares), theorem)
    certificate = found.certificate
    if found.verdict is not verdict or certificate is None:
        return None
    if not isinstance(certificate.argument, Witnessed):
        return None
    # Whoever runs the program along the direction sees what it rounds between the ties.
    proof = replace(certificate.argument, replay_bounds=other.rounding.bounds)
    what = "a limit" if alone else "a mean of limits"
    return replace(
        found,
        reason=f"Correct beside its roundings: the gradient is {what} of gradients of programs "
        "that round otherwise by as little as one likes.",
        certificate=replace(certificate, argument=proof).sealed(),
        analysis=program.analysis,
        relevance=relevance,
    )


def _parted(
    context: Context, other: Context, choices: Mapping[int, torch.Tensor], tied: torch.Tensor
) -> Witness | None:
    """A witness of a selection in a program with roundings as variables.

    Args:
        context: Of the program.
        other: Of that with roundings.
        choices: The selection, by site position; AD's where silent.
        tied: (count,) bool, kinks that roundings alone tie.
    """
    program, own = context.program, other.relevance.relevant & ~tied
    settings, generator = context.settings, context.generator
    base = None
    if bool(own.any()):  # no rounding parts what is equal in exact numbers
        base, _ = witness_selection(context.within(SEARCH_SHARE), choices, own, settings, generator)
        if base is None:
            return None
    relevant = other.relevance.relevant
    witness = _by_roundings(other.program, relevant, choices, len(program.variables), base)
    if witness is None:
        witness, _ = witness_selection(
            other.within(SEARCH_SHARE), choices, relevant, settings, generator
        )
    return witness


@rung("parting ties of rounding")
def _by_roundings(
    program: Program,
    relevant: torch.Tensor,
    choices: Mapping[int, torch.Tensor],
    first: int,
    base: Witness | None,
) -> Witness | None:
    """A witness along roundings, where each operation's own part its ties.

    Args:
        program: The program with roundings as variables.
        relevant: (count,) bool, the kinks whose rows must hold.
        choices: The selection.
        first: How many variables are the user's.
        base: What parts, along these, the ties that no rounding does.
    """
    rows = build_rows(program, choices, relevant)
    still = tuple(torch.zeros_like(p) for p in program.point[:first])
    taken = [torch.zeros(p.shape, dtype=torch.bool) for p in program.point[first:]]
    directions = []
    if base is not None:
        rest = (torch.zeros_like(p) for p in program.point[first:])
        directions.append((*base.direction, *rest))
    for site in program.analysis.ordered():
        own = (rows.kinks >= site.first) & (rows.kinks < site.first + site.touch.count)
        if not bool(own.any()):
            continue
        # What moves earlier kinks has been seen there; what is left moves these, and later ones.
        pull = rows.transposed_times(own.to(program.dtype))[first:]
        signs = [torch.sign(p) * ~t for p, t in zip(pull, taken, strict=True)]
        taken = [t | (p != 0) for p, t in zip(pull, taken, strict=True)]
        directions.append((*still, *signs))
    columns = np.stack([rows.times(d).to(torch.float64).numpy() for d in directions], 1)
    found = find_witness(columns, margin=WITNESS_MARGIN, deadline=program.deadline)
    if found.direction is None:
        return None
    parts = zip(*directions, strict=True)
    scales = found.direction.tolist()
    return Witness(
        direction=tuple(sum(c * p for c, p in zip(scales, ps, strict=True)) for ps in parts),
        choices=dict(choices),
        gradient=selected_gradient(program, choices),
        rows=columns @ found.direction,
        kinks=rows.kinks.numpy(),
    )
