"""Custom Functions whose backward an author wrote: looked at in full rarely, compared every time.

The whole ladder says once of a Function at its place whether its backward is meant to be another
derivative, and whether the record of its forward is what it computes. From then on a gradient that
came through it is held against that of the recorded operations, entry by entry: one replay, and
where that does not suffice a few more that measure each entry's terms. What agrees to roundings of
these is the gradient, whoever computed it. All else the ladder judges, and everything in types so
narrow that some roundings are a quarter of a value.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import torch

from clarke.decide.applied import hidden_in, may_hide, steps_in
from clarke.decide.rounding import Rounding
from clarke.decide.tolerance import within
from clarke.decide.verification import ad_weights
from clarke.fast.declared import is_rare
from clarke.numerics import COARSEST_VOUCHED, OF_THE_TERMS, POSITIVE
from clarke.steering import Program, coarsest_unit, selected_gradient

if TYPE_CHECKING:
    from collections.abc import Sequence

    from clarke.capture import Trace
    from clarke.decide import Decision
    from clarke.kinks import Registry
    from clarke.steering import Analysis

_KEPT: Final = 64  # programs
_SIGNS: Final = 4  # gradients with random signs, whose largest entries measure their terms


@dataclass(eq=False)
class _Seen:
    met: int = 1
    hides: bool = False  # a forward uses more than its arguments, and nobody has looked at that


class Vouched:
    """The programs with custom Functions of one audit that the whole ladder has found right."""

    def __init__(self) -> None:
        self._seen: dict[Any, _Seen] = {}

    def admits(self, trace: Trace, registry: Registry) -> bool:
        """Whether a comparison is enough, this time.

        The first time it is where no Function rounds or compares.
        """
        if coarsest_unit(trace) > COARSEST_VOUCHED:
            return False
        key = _key(trace)
        seen = self._seen.get(key)
        if seen is not None:
            seen.met += 1
            return not is_rare(seen.met)
        if any(map(partial(_may_declare, trace, registry), range(len(trace.applied)))):
            return False
        self._add(key)
        self._seen[key].hides = any(may_hide(trace, i, a) for i, a in enumerate(trace.applied))
        return True

    def _add(self, key: Any) -> None:
        self._seen.setdefault(key, _Seen())
        while len(self._seen) > _KEPT:
            del self._seen[next(iter(self._seen))]

    def learn(self, trace: Trace, found: Decision) -> None:
        """Take in what the whole ladder said."""
        if not trace.applied:
            return
        key = _key(trace)
        if found.verdict in POSITIVE:
            self._add(key)
        elif not found.out_of_time:
            self._seen.pop(key, None)

    def agrees(
        self, analysis: Analysis, program: Program, gradient: Sequence[torch.Tensor]
    ) -> bool:
        """Whether a gradient is that of the recorded operations, up to roundings of its terms."""
        key = _key(analysis.recorded)
        self._add(key)
        seen = self._seen[key]
        if seen.hides and hidden_in(analysis, program.variables, program.deadline) is not None:
            return False
        seen.hides = False
        own = selected_gradient(program, weights=ad_weights(program))
        unit = OF_THE_TERMS * coarsest_unit(analysis.trace)
        held = tuple(g.abs() for g in own)
        if within(own, gradient, [unit * t for t in held]):
            return True
        # Terms of this step only: an entry whose own have become small may not live on former ones.
        for terms in Rounding(program, own, weights=ad_weights(program)).terms(_SIGNS):
            held = tuple(map(torch.maximum, held, terms))
            if within(own, gradient, [unit * t for t in held]):
                return True
        return False


def _may_declare(trace: Trace, registry: Registry, number: int) -> bool:
    """Whether a Function may be meant to have another derivative than its forward."""
    function = trace.applied[number].function
    return registry.is_surrogate(function) or steps_in(trace, number, registry)


def _key(trace: Trace) -> tuple[Any, ...]:
    functions = tuple([(a.function, a.location) for a in trace.applied])
    return functions, tuple([(op.func, op.location) for op in trace.ops])
