"""Programs in narrow types whose kernels lose terms of the gradient: compared, and remembered.

A step whose kernels add up many terms one by one (`clarke.steering.adding`) is no step of which
its values tell the verdict: its gradient is held against that of its own pieces in float64, one
replay. What has lost terms is `UNDECIDED`, and known as that until the 8th, 64th ... time.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from clarke.decide import Decision
from clarke.decide.summed import lost_terms
from clarke.errors import OutOfTimeError
from clarke.fast.declared import EARLIER, is_rare
from clarke.steering import Program
from clarke.steering.adding import at_hand, heavy, suspects
from clarke.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from clarke.capture import Trace
    from clarke.deadline import Deadline
    from clarke.steering import Analysis
    from clarke.steering.adding import OneByOne, Suspect

_KEPT: Final = 64  # programs


@dataclass(eq=False)
class _Told:
    decision: Decision
    met: int = 1


def sums_of(trace: Trace, known: Sequence[Suspect] | None) -> tuple[OneByOne, ...]:
    """Sums of many terms, as far as the record tells; `known` if the program has been looked at."""
    among = suspects(trace) if known is None else known
    return heavy(trace, among, at_hand(trace)) if among else ()


class Lossy:
    """The programs of one audit that have lost terms of a gradient."""

    def __init__(self) -> None:
        self._told: dict[Any, _Told] = {}

    def recall(self, trace: Trace) -> Decision | None:
        """What was found of a program, or None where that is to be done, perhaps again."""
        told = self._told.get(_key(trace)) if self._told else None
        if told is None:
            return None
        told.met += 1
        return None if is_rare(told.met) else told.decision

    def compare(
        self,
        analysis: Analysis,
        variables: Sequence[int],
        gradient: Sequence[torch.Tensor],
        sums: Sequence[OneByOne],
        deadline: Deadline,
    ) -> Decision | None:
        """UNDECIDED of a gradient that has lost terms, or where time does not tell; else None."""
        key = _key(analysis.recorded)
        try:
            lost = lost_terms(Program(analysis, variables, deadline=deadline), gradient, sums)
            found = None if lost is None else lost.decision()
        except OutOfTimeError as error:
            if key in self._told:
                return self._told[key].decision
            reason = f"{sums[0]}, and whether that has lost terms is not known: {error}"
            found = Decision(Verdict.UNDECIDED, reason, out_of_time=True)
        if found is None:
            self._told.pop(key, None)
            return None
        met = self._told[key].met if key in self._told else 1
        earlier = replace(found, reason=found.reason + EARLIER, out_of_time=False)
        self._told[key] = _Told(earlier, met)
        while len(self._told) > _KEPT:
            del self._told[next(iter(self._told))]
        return found


def _key(trace: Trace) -> tuple[Any, ...]:
    return tuple([(op.func, op.location) for op in trace.ops])
