"""The verdict on a sum of gradients, from what is kept of its parts.

That each part is an element of its own subdifferential proves nothing about the sum, since the
subdifferential of a sum is smaller than the sum of subdifferentials. What is proved here:

- If all parts but one are smooth, the sum rule is an equality (Clarke 1983, Prop. 2.3.3,
  Corollary 1), so the verdict of the one part is that of the sum.
- If several parts are Bouligand gradients and ONE direction satisfies the rows of all of them
  together, the sum is a Bouligand gradient (the witness theorem on the summed program).
- Else the programs of the parts are put together as one, and that is judged as any other. Smooth
  parts, which move gradient and subdifferential alike, are left out of it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from clarke.constraints import build_rows
from clarke.decide import Decision
from clarke.errors import ClarkeError, OutOfTimeError, UnsupportedError
from clarke.feasibility import Outcome, find_witness
from clarke.numerics import WITNESS_MARGIN
from clarke.proof import judge_within, mean_of, pack_step, unpack_stored
from clarke.steering import Program
from clarke.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from clarke.audit.judge import Case
    from clarke.deadline import Deadline
    from clarke.decide import Settings

# Bytes of rows, and of a program, that are kept of a part for later ones: always up to the first
# size, up to the second once it is known that gradients add up.
ALWAYS = 2_000_000
ACCUMULATING = 64_000_000


@dataclass(frozen=True, eq=False)
class Rows:
    """The rows of one part: (m, n) over its variables, which are numbered, with their sizes."""

    matrix: NDArray[np.float64]
    leaves: tuple[int, ...]
    sizes: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Kept:
    """The program of one part, and the numbers of its variables."""

    step: bytes
    leaves: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Part:
    """One backward call of a group that is not smooth, and what is kept of it.

    Attributes:
        number: Of the call.
        verdict: On its own gradient.
        rows: Of its relevant kinks; None where these are not at hand.
        kept: Its program, or why that is not at hand.
        gradient: What it has added.
        given: That need not be what autograd returns for the program.
    """

    number: int
    verdict: Verdict
    rows: Rows | None
    kept: Kept | str
    gradient: tuple[torch.Tensor, ...] = ()
    given: bool = False


@dataclass(frozen=True, eq=False)
class Sum:
    """What is known of a sum.

    Attributes:
        verdict: On it.
        why: In words, where it is not that of its only part.
        decision: Where the programs of its parts were judged together.
        gradient: What was judged then: of the calls that are not smooth.
        order: The numbers of its variables.
    """

    verdict: Verdict
    why: str = ""
    decision: Decision | None = None
    gradient: tuple[torch.Tensor, ...] = ()
    order: tuple[int, ...] = ()

    @property
    def late(self) -> bool:
        """Whether time ran out, which larger sums would need more of."""
        return self.decision is not None and self.decision.out_of_time

    @property
    def shifts(self) -> Mapping[int, torch.Tensor] | None:
        """What makes a correct sum of a wrong one, by the number of the variable, in float64."""
        if self.decision is None or self.decision.element is None:
            return None
        places = zip(self.order, self.gradient, self.decision.element, strict=True)
        return {n: right.to(torch.float64) - g.to(torch.float64) for n, g, right in places}


def unjudged(why: str) -> str:
    """What is said of a sum that cannot be judged."""
    return f"The sum in .grad cannot be judged: {why}."


def rows_of(
    case: Case, decision: Decision, leaves: tuple[int, ...], limit: float, deadline: Deadline
) -> Rows | None:
    """The rows of a part; None where it was not proved by one direction, or they are too many."""
    relevance, analysis = decision.relevance, decision.analysis
    certificate = decision.certificate
    if decision.verdict is not Verdict.BOULIGAND or certificate is None:
        return None
    if decision.theorem not in ("witness", "bias shift") or relevance is None or analysis is None:
        return None
    sizes = tuple(x.numel() for x in case.leaves)
    witness = certificate.witnesses[0]
    if len(witness.kinks) * sum(sizes) * np.dtype(np.float64).itemsize > limit:
        return None
    program = Program(analysis, case.slots, deadline=deadline)
    try:
        matrix = build_rows(program, witness.choices, relevance.relevant).dense()
    except OutOfTimeError:
        return None
    return Rows(matrix, leaves, sizes)


def kept_of(case: Case, leaves: tuple[int, ...], limit: float) -> Kept | str:
    """The program of a part, or why it cannot be kept."""
    try:
        if case.opened is not None:
            raise UnsupportedError("it detaches values that are computed from parameters")
        trace = case.trace()
        if trace.applied:
            own = trace.applied[0]
            raise UnsupportedError(
                f"the derivative of {own.name} at {own.location} is its author's code"
            )
        size = sum(e.tensor.numel() * e.tensor.element_size() for e in trace.externals.values())
        if size > limit:
            raise UnsupportedError(f"what it reads takes {size} bytes, too many to keep")
        return Kept(pack_step(trace, case.slots, ()), leaves)
    except ClarkeError as error:
        return str(error).rstrip(".")


def part_of(
    number: int,
    case: Case,
    decision: Decision,
    leaves: tuple[int, ...],
    gradient: tuple[torch.Tensor, ...],
    kept: Kept | str,
    *,
    limit: float,
    given: bool,
    repaired: bool,
    apart: bool,
    deadline: Deadline,
) -> Part:
    """What is to be known of call `number`, which is not smooth, by later ones.

    A repaired one counts as what its new gradient is at least, a Clarke gradient.

    Args:
        number: Of the call.
        case: What ran.
        decision: On its gradient.
        leaves: The numbers of its variables.
        gradient: What autograd, or a compiled program, returned.
        kept: Its program, or why it is not there.
        limit: Bytes of rows that are kept.
        given: The gradient need not be what autograd returns for the program.
        repaired: A correct one was put in its place.
        apart: The decision is on another program than that of the case: on that of all processes,
            whose rows say nothing about the variables of this one.
        deadline: When to give up.
    """
    if repaired and decision.element is not None:
        gradient = tuple(decision.element)
    # It may be the memory of .grad, to which later calls add.
    gradient = tuple(g.clone() for g in gradient) if isinstance(kept, Kept) else ()
    if repaired:
        return Part(number, Verdict.CLARKE, None, kept, gradient, given=True)
    rows = None if apart else rows_of(case, decision, leaves, limit, deadline)
    return Part(number, decision.verdict, rows, kept, gradient, given)


def judge_sum(
    parts: Sequence[Part],
    shifts: Mapping[int, torch.Tensor],
    size: int,
    settings: Settings,
    deadline: Deadline,
    *,
    judge: bool,
) -> Sum:
    """The verdict on the sum of the gradients of some calls.

    Args:
        parts: Those that are not smooth.
        shifts: What has been added to the sum, by the number of the variable.
        size: How many calls there are.
        settings: Limits of the search.
        deadline: When to give up.
        judge: Put the programs of the parts together where nothing less decides.
    """
    if not parts:
        return Sum(Verdict.SMOOTH)
    if len(parts) == 1:
        return Sum(parts[0].verdict)
    rows = [p.rows for p in parts if p.rows is not None]
    if len(rows) == len(parts) and not shifts:
        found = find_witness(_stack(rows), margin=WITNESS_MARGIN, deadline=deadline)
        if found.outcome is Outcome.WITNESS:
            why = f"One direction satisfies the rows of all {len(parts)} kinked parts together."
            return Sum(Verdict.BOULIGAND, why)
    several = f"{len(parts)} of {size} accumulated gradients stand at kinks"
    lost = next(((p.number, p.kept) for p in parts if isinstance(p.kept, str)), None)
    if lost is not None:
        why = f"{several}, and of call {lost[0]} the program was not kept: {lost[1]}."
        return Sum(Verdict.UNDECIDED, why)
    if not judge:
        why = f"{several}; time ran out when fewer of them were judged together."
        return Sum(Verdict.UNDECIDED, why)
    return _judged_together(parts, shifts, several, settings, deadline)


def _judged_together(
    parts: Sequence[Part],
    shifts: Mapping[int, torch.Tensor],
    several: str,
    settings: Settings,
    deadline: Deadline,
) -> Sum:
    """The verdict on the sum of the programs of some calls."""
    try:
        deadline.ask("judging {} programs together", len(parts))
        steps = [
            (f"call {p.number}", unpack_stored(p.kept.step, "a part of a sum"), p.kept.leaves)
            for p in parts
            if isinstance(p.kept, Kept)
        ]
        total = dict(shifts)
        for p in parts:
            kept = p.kept.leaves if isinstance(p.kept, Kept) else ()
            for n, g in zip(kept, p.gradient, strict=True):
                wide = g.detach().to("cpu", torch.float64)
                total[n] = total[n] + wide if n in total else wide
        step, order = mean_of(steps, of=1, gradient=total)
        if shifts or any(p.given for p in parts):
            step = replace(step, replayed=False)
        decision = judge_within(deadline, step, settings)
    except ClarkeError as error:
        late = isinstance(error, OutOfTimeError)
        decision = Decision(Verdict.UNDECIDED, str(error), out_of_time=late)
        return Sum(decision.verdict, f"{several}, judged together: {error}", decision)
    why = f"{several}, judged together: {decision.reason}"
    return Sum(decision.verdict, why, decision, step.gradient, order)


def _stack(rows: Sequence[Rows]) -> NDArray[np.float64]:
    """All rows over the union of their variables; columns without an entry are left out."""
    start: dict[int, int] = {}
    width = 0
    for part in rows:
        for leaf, size in zip(part.leaves, part.sizes, strict=True):
            if leaf not in start:
                start[leaf] = width
                width += size
    used = np.zeros(width, dtype=bool)
    spread = []
    for part in rows:
        columns = np.concatenate(
            [
                np.arange(start[n], start[n] + s)
                for n, s in zip(part.leaves, part.sizes, strict=True)
            ]
        )
        spread.append(columns)
        used[columns[np.any(part.matrix != 0, axis=0)]] = True
    place = np.cumsum(used) - 1
    whole = np.zeros((sum(p.matrix.shape[0] for p in rows), max(int(used.sum()), 1)))
    at = 0
    for part, columns in zip(rows, spread, strict=True):
        m = part.matrix.shape[0]
        keep = used[columns]
        whole[at : at + m, place[columns[keep]]] = part.matrix[:, keep]
        at += m
    return whole
