"""A trace with its touched kinks found: which operations have rules, which nobody knows."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING

import torch

from clarke.capture import OpRecord, Trace, input_slots, refuse_missing
from clarke.deadline import UNLIMITED, Deadline, within_memory
from clarke.kinks import KinkRule, OpKind, Registry, Touch
from clarke.kinks.lows import Lows
from clarke.steering.adapt import can_replay_random
from clarke.steering.still import Still

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, eq=False)
class Site:
    """An operation with a rule: its touched kinks are numbered ``first .. first + touch.count``."""

    position: int
    rule: KinkRule
    touch: Touch
    first: int


@dataclass(frozen=True, eq=False)
class Analysis:
    """A trace with its kinks found.

    Attributes:
        trace: What ran, fused operations written as their parts.
        sites: Operations with rules on the differentiable path, in evaluation order.
        unknown: Operations that nobody knows and that the result depends on.
        count: Number of touched kinks in all sites.
        recorded: What ran, as it was recorded.
    """

    trace: Trace
    sites: Mapping[int, Site]
    unknown: tuple[OpRecord, ...]
    count: int
    recorded: Trace

    @cached_property
    def shared(self) -> frozenset[int]:
        """Slots whose memory may show in another slot as well."""
        found = {s for s, e in self.trace.externals.items() if e.snapshot is not None}
        for op in self.trace.ops:
            given = [a.alias_info for a in op.func._schema.arguments]
            if any(a is not None and not a.is_write for a in given):  # a view
                found.update(input_slots(op))
                found.update(o for o in op.outputs if o is not None)
        return frozenset(found)

    def ordered(self) -> tuple[Site, ...]:
        """The sites in evaluation order."""
        return tuple(self.sites[p] for p in sorted(self.sites))

    @cached_property
    def doubtful(self) -> Mapping[int, Site]:
        """Operations whose own derivative formula is in doubt, by number of their record."""
        found = {s.touch.op.index: s for s in self.sites.values() if s.rule.doubtful}
        return MappingProxyType(found)

    def site_of(self, kink: int) -> Site:
        """The site to which a kink number belongs."""
        for site in self.sites.values():
            if site.first <= kink < site.first + site.touch.count:
                return site
        raise IndexError(kink)


@within_memory
def analyse(trace: Trace, registry: Registry, deadline: Deadline = UNLIMITED) -> Analysis:
    """Find the touched kinks of every operation of a trace.

    Raises:
        ModifiedSinceError: Memory of what the trace holds is gone.
    """
    refuse_missing(trace)
    recorded, trace = trace, registry.lowered(trace)
    sites: dict[int, Site] = {}
    unknown: list[OpRecord] = []
    count = 0
    still, lows = Still(trace), Lows(trace)
    for position, op in enumerate(trace.ops):
        deadline.ask("finding touched kinks: operation {} of {}", position, len(trace.ops))
        if op.hidden_write:
            continue
        lows.follow(op)
        if not (op.differentiated or op.reads_stopped):
            still.follow(op)
            continue  # computed from masks, integers and constants: locally constant
        known = registry.judge(op, trace)
        unmoved = still.follow(op)
        if known.kind is OpKind.RULED and known.rule is not None:
            if not any(v.is_floating_point() or v.is_complex() for v in op.kept.values()):
                continue  # integers and masks: locally constant
            touch = known.rule.find(op)
            if unmoved or (touch.count and lows.is_tame_power(op)):
                touch = touch.only(torch.zeros(touch.count, dtype=torch.bool))
            if touch.count == 0:
                still.settle(op, all_results=known.rule.is_level())
            sites[position] = Site(position, known.rule, touch, count)
            count += touch.count
        elif not unmoved and (
            known.kind is OpKind.UNKNOWN
            or (known.kind is OpKind.RANDOM and op.differentiated and not can_replay_random(op))
        ):
            unknown.append(op)
    return Analysis(trace, sites, tuple(unknown), count, recorded)
