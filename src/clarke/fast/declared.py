"""Programs that declare a derivative of their own: measured rarely, and known in between.

A surrogate is written into a program: a Function at its place, or a value that is detached there.
Whether the function changes at another rate than its gradient says takes many replays to measure.
So it is measured the first, 8th, 64th ... time that the program runs, and taken for declared in
between. It vouches for no gradient: SURROGATE is what is said of it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from clarke.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Iterator

    from clarke.capture import Trace
    from clarke.decide import Decision

_KEPT: Final = 64  # programs and Functions
EARLIER: Final = " (measured at an earlier call)"


def is_rare(count: int) -> bool:
    """Whether something that has been met so often is to be measured again: at powers of 8."""
    return count & (count - 1) == 0 and count.bit_length() % 3 == 1


@dataclass(eq=False)
class _Told:
    decision: Decision
    met: int = 1


class Declared:
    """The surrogates of one audit."""

    def __init__(self) -> None:
        self._told: dict[Any, _Told] = {}

    def recall(self, trace: Trace, *, moving: bool) -> Decision | None:
        """What was measured of a program, or None where that is to be done, perhaps again.

        Args:
            trace: The program.
            moving: Something that it detached was computed from the variables.
        """
        for key in _keys(trace, moving=moving):
            told = self._told.get(key)
            if told is not None:
                told.met += 1
                return None if is_rare(told.met) else told.decision
        return None

    def learn(self, trace: Trace, found: Decision, *, moving: bool) -> Decision:
        """Take in what was measured; where time ran out, what was known stands."""
        keys = list(_keys(trace, moving=moving))
        known = [k for k in keys if k in self._told]
        if found.out_of_time and known:
            return self._told[known[0]].decision
        if found.verdict is Verdict.SURROGATE:
            named = {(c.operation, c.location) for c in found.culprits}
            for key in keys:
                if key[0] == "program" or (key[1].__name__, key[2]) in named:
                    met = self._told[key].met if key in self._told else 1
                    self._told[key] = _Told(_of_earlier(found), met)
            while len(self._told) > _KEPT:
                del self._told[next(iter(self._told))]
        elif found.verdict.correct is not None:
            for key in known:
                del self._told[key]
        return found


def _keys(trace: Trace, *, moving: bool) -> Iterator[tuple[Any, ...]]:
    """Names of what may declare a derivative: Functions at their places, or the whole program."""
    for applied in trace.applied:
        yield ("function", applied.function, applied.location)
    if moving:
        cut = tuple([s for s, e in trace.externals.items() if e.stopped])
        first = min(cut, default=0)
        ops = tuple([(op.func, op.location) for op in trace.ops])
        yield ("program", ops, tuple([s - first for s in cut]))


def _of_earlier(found: Decision) -> Decision:
    reason = found.reason.removesuffix(EARLIER) + EARLIER
    return replace(found, reason=reason, analysis=None, relevance=None)
