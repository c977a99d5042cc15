"""Detached values that do not depend on the variables after all are constants like any other.

A critic is trained on ``fake.detach()``: a function of the generator's parameters, not of its own.
"""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING

from clarke.capture import Origin
from clarke.steering.memory import behind_detached

if TYPE_CHECKING:
    from collections.abc import Sequence

    from clarke.capture import Trace
    from clarke.steering.memory import Level


def is_moved(opened: Trace, trace: Trace, variables: Sequence[int], level: Level) -> bool:
    """Whether something that a program detached was computed from the variables; True in doubt.

    Args:
        opened: The trace with all that detached values were computed from.
        trace: The trace itself.
        variables: External slots of the variables.
        level: Says of an operator and the type of a result that this keeps its value beside the
            point: an index, say, which an argmax of the variables gave.
    """
    if any(op.hidden_write for op in opened.ops):
        return True
    if any(slot not in opened.externals for slot in variables):
        return True
    return bool(behind_detached(opened, trace, variables, level))


def is_known(opened: Trace) -> bool:
    """Whether it is known where all that a program detached was computed from."""
    known = (Origin.LEAF, Origin.CONSTANT)
    return not any(e.stopped or e.origin not in known for e in opened.externals.values())


def owned(trace: Trace, variables: Sequence[int]) -> Trace:
    """The trace with variables that hold what they hold, whatever that was computed from.

    ``x = image.detach().requires_grad_()`` starts anew: its gradient is that at its own value.
    """
    computed = [v for v in variables if v in trace.externals and trace.externals[v].stopped]
    if not computed:
        return trace
    externals = dict(trace.externals)
    for slot in computed:
        externals[slot] = replace(externals[slot], stopped=False, cut_by="")
    trace = replace(trace, externals=MappingProxyType(externals))
    return trace if any(e.stopped for e in externals.values()) else attached(trace)


def attached(trace: Trace, but: frozenset[int] = frozenset()) -> Trace:
    """The trace with its detached values, but for some, as plain constants.

    Where some are left, so are the ties of what reads them.
    """
    externals = {
        slot: replace(e, stopped=False, cut_by="") if e.stopped and slot not in but else e
        for slot, e in trace.externals.items()
    }
    if but:
        return replace(trace, externals=MappingProxyType(externals))
    ops = tuple(replace(op, reads_stopped=False) if op.reads_stopped else op for op in trace.ops)
    return replace(trace, ops=ops, externals=MappingProxyType(externals))
