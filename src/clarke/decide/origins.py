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

import numpy as np
import torch

from clarke.constraints import build_rows, find_relevant
from clarke.deadline import rung
from clarke.decide.context import Context
from clarke.decide.freed import with_roundings
from clarke.decide.model import Decision, Witness
from clarke.decide.search import witness_selection
from clarke.decide.verification import own_gradient
from clarke.decide.witnessed import Witnessed
from clarke.errors import OutOfTimeError, ReplayError
from clarke.feasibility import find_witness
from clarke.kinks import default_registry
from clarke.numerics import SEARCH_SHARE, WITNESS_MARGIN
from clarke.steering import Program, natural_gradient, selected_gradient
from clarke.verdict import Verdict


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
    freed = with_roundings(program, default_registry(), tied)
    if freed is None:
        return None
    every = find_relevant(freed, context.generator)
    if every.hazards or bool((every.relevant & every.mixed).any()):
        return None
    behind = own_gradient(freed)[len(program.variables) :]
    gradient = (*context.gradient, *behind)
    other = Context(freed, gradient, every, context.settings, context.generator, None)
    witness = _by_roundings_alone(freed, every.relevant, len(program.variables))
    if witness is None:
        witness, _ = witness_selection(
            other.within(SEARCH_SHARE), {}, every.relevant, context.settings, context.generator
        )
    if witness is None or other.differs:
        return None
    context.freed = other
    found = other.accept(Verdict.BOULIGAND, (witness,), (1.0,), "witness beside roundings")
    certificate = found.certificate
    if found.verdict is not Verdict.BOULIGAND or certificate is None:
        return None
    if not isinstance(certificate.argument, Witnessed):
        return None
    # Whoever runs the program along the direction sees what it rounds between the ties.
    proof = replace(certificate.argument, replay_bounds=other.rounding.bounds)
    reason = (
        "Correct beside its roundings: the gradient is a limit of gradients of programs that round "
        "otherwise by as little as one likes."
    )
    return replace(
        found,
        reason=reason,
        certificate=replace(certificate, argument=proof).sealed(),
        analysis=program.analysis,
        relevance=relevance,
    )


@rung("parting ties of rounding")
def _by_roundings_alone(program: Program, relevant: torch.Tensor, first: int) -> Witness | None:
    """A witness along roundings, where each operation's own part its ties.

    Args:
        program: The program with roundings as variables.
        relevant: (count,) bool, the kinks whose rows must hold.
        first: How many variables are the user's.
    """
    rows = build_rows(program, {}, relevant)
    still = tuple(torch.zeros_like(p) for p in program.point[:first])
    taken = [torch.zeros(p.shape, dtype=torch.bool) for p in program.point[first:]]
    directions, columns = [], []
    for site in program.analysis.ordered():
        own = (rows.kinks >= site.first) & (rows.kinks < site.first + site.touch.count)
        if not bool(own.any()):
            continue
        # What moves earlier kinks has been seen there; what is left moves these, and later ones.
        pull = rows.transposed_times(own.to(program.dtype))[first:]
        signs = [torch.sign(p) * ~t for p, t in zip(pull, taken, strict=True)]
        taken = [t | (p != 0) for p, t in zip(pull, taken, strict=True)]
        directions.append((*still, *signs))
        columns.append(rows.times(directions[-1]).to(torch.float64).numpy())
    found = find_witness(np.stack(columns, 1), margin=WITNESS_MARGIN, deadline=program.deadline)
    if found.direction is None:
        return None
    parts = zip(*directions, strict=True)
    scales = found.direction.tolist()
    return Witness(
        direction=tuple(sum(c * p for c, p in zip(scales, ps, strict=True)) for ps in parts),
        choices={},
        gradient=selected_gradient(program),
        rows=np.stack(columns, 1) @ found.direction,
        kinks=rows.kinks.numpy(),
    )
