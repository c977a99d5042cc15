"""Leaves that are no variables are constants, and so is what was computed of these alone.

Autograd differentiates by every leaf, and the record says so. A verdict is about some of them: a
kink that moves with the others only is none of theirs.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from clarke.capture import OpRecord, Origin, Ref, Trace, input_slots
from clarke.kinks.smooth import OpClass, classify
from clarke.steering.memory import shared_memory

if TYPE_CHECKING:
    from collections.abc import Callable, Collection


def narrowed(trace: Trace, variables: Collection[int]) -> Trace:
    """The trace, in which only what depends on the variables is differentiated.

    Args:
        trace: What ran.
        variables: External slots of the variables.
    """
    if all(e.slot in variables for e in trace.leaves()):
        return trace
    shared = shared_memory(trace)

    def name(slot: int) -> int:
        return shared.get(slot, slot)

    def is_fixed(slot: int) -> bool:
        e = trace.externals[slot]
        plain = not (e.stopped or e.cut_by or e.rewritten)
        return plain and e.origin in (Origin.CONSTANT, Origin.LEAF)

    moving = {name(s) for s in trace.externals if s in variables or not is_fixed(s)}
    ops: list[OpRecord] = []
    for op in trace.ops:
        read = {name(s) for s in input_slots(op)}
        known = not (op.hidden_write or op.reads_stopped or op.within is not None or op.drawn)
        fixed = known and moving.isdisjoint(read) and classify(op.name) is not OpClass.RANDOM
        if fixed:
            ops.append(replace(op, differentiated=False, varied=frozenset()))
            continue
        positions = (i for i in op.varied if known and not _reads(op.args[i], moving, name))
        ops.append(replace(op, varied=op.varied.difference(positions)) if known else op)
        moving.update(name(o) for o in op.outputs if o is not None)
        if op.func._schema.is_mutable:
            moving |= read
    return replace(trace, ops=tuple(ops))


def _reads(argument: object, moving: Collection[int], name: Callable[[int], int]) -> bool:
    """Whether an argument holds something that depends on the variables."""
    items = argument if isinstance(argument, (list, tuple)) else (argument,)
    return any(isinstance(i, Ref) and name(i.slot) in moving for i in items)
