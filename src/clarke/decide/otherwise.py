"""The program that runs beside a point at which a branch of Python goes another way.

``if torch.equal(a, b)`` takes a branch that holds where a and b are equal, and nowhere around it;
``losses[losses > 0]`` picks nothing where all losses are zero, and all of them beside. What was
recorded at such a point is not the function around it. So the function is recorded again beside
the point, along several rays, and each of the programs found there is judged *at* the point. What
was read into Python there (truth values, what a mask picks) stays as it was on its ray.

A witness of such a program proves the same as of any: along its ray the function's own gradients
tend to what it claims, which is looked at by running the function. That a gradient is wrong is
told only where one program runs on all rays, and the branches were comparisons for equality, whose
other side has no room.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING

import torch

from clarke.capture import External, Origin, input_slots, refilled, without_values
from clarke.constraints.reads import behind_reads, is_float
from clarke.kinks.steps import ComparisonRule

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from clarke.capture import OpRecord, Trace
    from clarke.deadline import Deadline
    from clarke.kinks import Registry
    from clarke.steering import Analysis, Site


@dataclass(frozen=True, eq=False)
class Sample:
    """What ran at one point beside.

    Attributes:
        trace: The recorded program.
        values: Its tensors there, by slot.
    """

    trace: Trace
    values: Mapping[int, torch.Tensor]

    def holds(self) -> dict[int, torch.Tensor]:
        """What stays as it is along the ray: whole numbers that were read, and indices."""
        trace = self.trace
        read = {r.slot for r in trace.scalar_reads}
        found: dict[int, torch.Tensor] = {}
        for op in trace.ops:
            for slot in op.outputs:
                value = None if slot is None else self.values.get(slot)
                if slot is None or value is None or value.is_floating_point():
                    continue
                index = value.dtype != torch.bool and not value.is_complex()
                if slot in read or index:
                    found[slot] = value
        return found

    def same_as(self, other: Sample) -> bool:
        """Whether the same operations ran, on the same numbers, with the same outcomes."""
        mine, its = self.trace, other.trace
        if len(mine.ops) != len(its.ops) or mine.output != its.output:
            return False
        if not all(map(_same_op, mine.ops, its.ops)):
            return False
        if sorted(mine.externals) != sorted(its.externals):
            return False
        held, its_held = self.holds(), other.holds()
        return (
            all(_same_external(e, its.externals[s]) for s, e in mine.externals.items())
            and sorted(held) == sorted(its_held)
            and all(torch.equal(v, its_held[s]) for s, v in held.items())
        )

    def at(self, registry: Registry, deadline: Deadline) -> Trace:
        """The program, at the point of the variables as they are now.

        Raises:
            ReplayError: It cannot be run there.
        """
        held = self.holds()
        first = 1 + max((e.storage for e in self.trace.externals.values()), default=0)
        externals = dict(self.trace.externals)
        ops: list[OpRecord] = []
        for op in self.trace.ops:
            outputs = tuple(None if s in held else s for s in op.outputs)
            for slot in (s for s in op.outputs if s in held):
                externals[slot] = External(
                    slot=slot,
                    tensor=held[slot],
                    origin=Origin.CONSTANT,
                    version=held[slot]._version,
                    snapshot=None,
                    storage=first + len(externals),
                    name="",
                    location=op.location,
                    stopped=False,
                )
            if any(s is not None for s in outputs):
                ops.append(replace(op, outputs=outputs))
        shown = replace(
            self.trace, ops=tuple(ops), externals=MappingProxyType(externals), scalar_reads=()
        )
        return refilled(without_values(shown, registry.repeatable), registry.keeps, deadline)


def can_be_told(trace: Trace) -> bool:
    """Whether branches are what makes a program another one beside a point.

    What is detached, or computed in a custom Function, may be another number at every point.
    """
    if not trace.scalar_reads or trace.applied:
        return False
    return not any(e.stopped or e.cut_by for e in trace.externals.values())


def grouped(samples: Sequence[Sample]) -> list[Sample]:
    """One of each program, the most frequent first."""
    found: list[list[Sample]] = []
    for sample in samples:
        group = next((g for g in found if g[0].same_as(sample)), None)
        if group is None:
            found.append([sample])
        else:
            group.append(sample)
    return [g[0] for g in sorted(found, key=len, reverse=True)]


def has_no_other_side(analysis: Analysis) -> bool:
    """Whether all that was read at a tie was compared for being equal, and is so on no region.

    What is compared is analytic where no kink is touched on the way: it is zero everywhere around
    the point, or almost nowhere. ``relu(x) == 0`` holds on one side.

    Args:
        analysis: The trace of the point itself, and its kinks.
    """
    trace = analysis.trace
    if any(r.shape or _is_number(analysis, r.slot) for r in trace.scalar_reads):
        return False
    read = behind_reads(analysis, shapes=True)
    sites = {p: s for p, s in analysis.sites.items() if s.touch.count}
    compared = [p for p in sites if p in read]
    return bool(compared) and all(
        _is_equality(sites[p]) and not (_behind(trace, p) - {p}) & sites.keys() for p in compared
    )


def _is_equality(site: Site) -> bool:
    rule = site.rule
    equal = isinstance(rule, ComparisonRule) and rule.isolated
    return equal and site.touch.op.differentiated


def _behind(trace: Trace, position: int) -> set[int]:
    """Positions of the operations from which one was computed."""
    made = {o: p for p, op in enumerate(trace.ops) for o in op.outputs if o is not None}
    found, todo = {position}, [position]
    while todo:
        reached = {made[s] for s in input_slots(trace.ops[todo.pop()]) if s in made} - found
        found |= reached
        todo += reached
    return found


def _is_number(analysis: Analysis, slot: int) -> bool:
    """Whether a number was read, which Python may compare with anything."""
    made = any(slot in op.outputs for op in analysis.trace.ops)
    return not made or is_float(analysis, slot)


def _same_op(one: OpRecord, two: OpRecord) -> bool:
    return (
        one.func is two.func
        and one.outputs == two.outputs
        and input_slots(one) == input_slots(two)
        and repr(one.args) == repr(two.args)
        and repr(dict(one.kwargs)) == repr(dict(two.kwargs))
    )


def _same_external(one: External, two: External) -> bool:
    if one.origin is not two.origin or one.stopped or two.stopped:
        return False
    if one.tensor is two.tensor:
        return True
    if one.origin is not Origin.CONSTANT or one.tensor.dtype != two.tensor.dtype:
        return False
    if one.snapshot is None or two.snapshot is None:
        return one.snapshot is two.snapshot and torch.equal(one.tensor, two.tensor)
    places = [(e.tensor.shape, e.tensor.stride(), e.tensor.storage_offset()) for e in (one, two)]
    return places[0] == places[1] and torch.equal(one.snapshot, two.snapshot)
