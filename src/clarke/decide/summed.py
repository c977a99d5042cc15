"""Whether a sum in a narrow type has lost its terms: what is left of a gradient then, and where.

The function may be smooth, and PyTorch's formulas right: a kernel that adds up one by one in half
precision leaves a sixteenth of some entries. That is no gradient of the function's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from clarke.capture import input_slots
from clarke.decide.model import Culprit, Decision
from clarke.decide.rounding import Rounding, spacings
from clarke.decide.verification import ad_weights, own_gradient
from clarke.numerics import LOST_TERMS
from clarke.steering.adding import at_hand, heavy, suspects
from clarke.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from clarke.capture import Trace
    from clarke.steering import Program
    from clarke.steering.adding import OneByOne

_SIGNS = 8  # gradients with random signs, whose largest entries measure their terms


@dataclass(frozen=True, eq=False)
class Lost:
    """Terms that a gradient has lost.

    Attributes:
        sums: What adds up one by one before the variable whose gradient is off the most.
        variable: Its number.
        entry: Where.
        found: What is there.
        right: What its own pieces give in float64.
    """

    sums: tuple[OneByOne, ...]
    variable: int
    entry: tuple[int, ...]
    found: float
    right: float

    @property
    def culprits(self) -> tuple[Culprit, ...]:
        """Where terms may have been lost."""
        return tuple(Culprit(s.op.shown, s.op.location, str(s)) for s in self.sums)

    @property
    def reason(self) -> str:
        """What is lost, and what helps."""
        more = f" (and {len(self.sums) - 1} more such sums)" if len(self.sums) > 1 else ""
        place = list(self.entry) if self.entry else ""
        return (
            f"{self.sums[0]}{more}, where small terms are lost beside their sum "
            f"(PyTorch on the processor): entry {place or 'of a number'} of variable "
            f"{self.variable} is {self.found:.4g}, and {self.right:.4g} when its own pieces are "
            "added up in float64. Keep such layers in float32, as autocast does."
        )

    def decision(self) -> Decision:
        """UNDECIDED, for that reason."""
        return Decision(Verdict.UNDECIDED, self.reason, culprits=self.culprits)


def narrow_sums(program: Program) -> tuple[OneByOne, ...]:
    """Sums of many terms that a program adds up one by one in a narrow type."""
    trace = program.analysis.recorded
    among = suspects(trace)
    if not among:
        return ()
    given = at_hand(trace)
    if not heavy(trace, among, given):
        return ()
    # Unknown sizes count as large ones in half precision: there they are worth a replay.
    tensors = program.tensors

    def value(slot: int) -> torch.Tensor | None:
        found = given(slot)
        return tensors.get(slot) if found is None else found

    return heavy(trace, among, value)


def lost_terms(
    program: Program, gradient: Sequence[torch.Tensor], sums: Sequence[OneByOne]
) -> Lost | None:
    """What a gradient has lost in some sums; None where it agrees with that of its own pieces.

    A good part of the terms of an entry may be off, as their roundings may be, and no more.
    """
    trace = program.analysis.recorded
    behind = {s: _behind(trace, s.slots) for s in sums}
    places = [
        i for i, slot in enumerate(program.variables) if any(slot in b for b in behind.values())
    ]
    if not places:
        return None
    with torch.enable_grad():
        own = own_gradient(program)
        least = spacings(gradient, [g.dtype for g in gradient])
        gaps = {i: (gradient[i].detach().to(torch.float64) - own[i]).abs() for i in places}
        gaps = {i: torch.where(a > least[i], a, 0.0) for i, a in gaps.items()}
        if not any(bool(a.any()) for a in gaps.values()):
            return None
        most: dict[int, torch.Tensor] = {}
        for terms in Rounding(program, own, weights=ad_weights(program)).terms(_SIGNS):
            most = {i: a - LOST_TERMS * terms[i] for i, a in gaps.items()}
            if not any(bool((m > 0).any()) for m in most.values()):
                return None
    worst = max(most, key=lambda i: float(most[i].max()) if most[i].numel() else -torch.inf)
    flat = int(most[worst].argmax())
    entry = tuple(int(k) for k in torch.unravel_index(torch.tensor(flat), most[worst].shape))
    return Lost(
        tuple(s for s in sums if program.variables[worst] in behind[s]),
        worst,
        entry,
        float(gradient[worst].detach().reshape(-1)[flat]),
        float(own[worst].reshape(-1)[flat]),
    )


def _behind(trace: Trace, slots: Iterable[int]) -> frozenset[int]:
    """Everything that some values may be computed from, themselves included."""
    if any(op.func._schema.is_mutable for op in trace.ops):
        return frozenset(trace.externals)
    makers = {out: op for op in trace.ops for out in op.outputs if out is not None}
    found, todo = set(slots), list(slots)
    while todo:
        op = makers.get(todo.pop())
        if op is not None:
            new = set(input_slots(op)) - found
            found |= new
            todo += new
    return frozenset(found)
