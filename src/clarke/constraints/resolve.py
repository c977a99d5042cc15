"""What touched kinks come down to: some can never change, and jumps are followed on both sides."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING

import torch

from clarke.capture import input_slots
from clarke.constraints.forks import forked
from clarke.constraints.nearby import nearby_point
from clarke.constraints.reads import changing_reads
from clarke.constraints.relevance import Mixing, random_mixtures
from clarke.constraints.writing import CannotFollowError
from clarke.deadline import UNLIMITED, Deadline, within_memory
from clarke.errors import ReplayError
from clarke.kinks import Hazard
from clarke.kinks.choices import ArgRule
from clarke.steering import Analysis, Program, Run, Site, analyse

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from clarke.kinks import Registry

_ROUNDS = 4  # jumps of what jumps of what jumps
# Which of equal elements their index names depends on nothing but where these are.
_BY_ORDER = frozenset({"max", "min", "argmax", "argmin", "cummax", "cummin"})


@within_memory
def resolve(
    analysis: Analysis,
    registry: Registry,
    variables: Sequence[int],
    deadline: Deadline = UNLIMITED,
) -> Analysis:
    """The same program, with its jumps written as choices, without kinks that never change.

    Args:
        analysis: A trace and its kinks.
        registry: The rules.
        variables: External slots of the variables.
        deadline: When to give up.

    Raises:
        OutOfTimeError: No answer in time.
    """
    try:
        for _ in range(_ROUNDS):
            if not any(_may_jump(s) for s in analysis.sites.values()):
                break
            program = Program(analysis, variables, deadline=deadline)
            generator = torch.Generator().manual_seed(3)
            weights, _ = random_mixtures(program, generator, Mixing.ALL)
            here = program.run(grad=False)
            near = [_read_at_jumps(program, weights, generator) for _ in range(2)]
            analysis = _without_settled(analysis, program, generator)
            if analysis.trace.scalar_reads:
                reads = changing_reads(analysis, here.tensors)
                analysis = replace(analysis, trace=replace(analysis.trace, scalar_reads=reads))
            changed = _followed(analysis, registry, here, near, deadline)
            if changed is None:
                break
            analysis = changed
    except ReplayError:  # said where it matters
        return analysis
    return analysis


def _may_jump(site: Site) -> bool:
    touch = site.touch
    if touch.count == 0:
        return False
    return site.rule.by_value or Hazard.STEP in touch.hazards or _is_indexed(site)


def _is_indexed(site: Site) -> bool:
    """Whether an operation returns which of the tied candidates it took."""
    outputs = site.touch.op.outputs
    return isinstance(site.rule, ArgRule) or (len(outputs) > 1 and outputs[1] is not None)


def _read_at_jumps(
    program: Program, weights: Mapping[int, torch.Tensor], generator: torch.Generator
) -> Mapping[int, torch.Tensor]:
    """What operations that may jump read at a random point nearby, by slot."""
    run = program.run(nearby_point(program, generator), weights=weights, grad=False)
    sites = program.analysis.sites.values()
    slots = {s for site in sites if _may_jump(site) for s in input_slots(site.touch.op)}
    return {s: run.tensors[s] for s in slots if s in run.tensors}


def _followed(
    analysis: Analysis,
    registry: Registry,
    here: Run,
    near: Sequence[Mapping[int, torch.Tensor]],
    deadline: Deadline,
) -> Analysis | None:
    lost = {int(k) for use in here.mask_uses if use.difference is None for k in use.kink}
    positions = frozenset(
        p
        for p, s in analysis.sites.items()
        if lost.intersection(range(s.first, s.first + s.touch.count))
    )
    for elementwise in (True, False):
        try:
            trace = forked(
                analysis,
                here.tensors,
                near,
                positions,
                elementwise=elementwise,
            )
        except CannotFollowError:
            continue
        if trace is not None:
            return replace(analyse(trace, registry, deadline), recorded=analysis.recorded)
    return None


def _without_settled(analysis: Analysis, program: Program, generator: torch.Generator) -> Analysis:
    """Without comparisons, signs and indices that stay what they are around the point.

    Sides that are equal near the point in every bit are computed alike: overlaps of boxes that lie
    apart are zero, and which of them is the largest is decided by their order.
    """
    weights, _ = random_mixtures(program, generator, Mixing.ALL)
    stay = torch.ones(analysis.count, dtype=torch.bool)
    moving = torch.zeros(analysis.count, dtype=torch.bool)
    for _ in range(2):
        there = nearby_point(program, generator)
        run = program.run(there, weights=weights, probe=True, grad=False)
        for position, probe in run.probes.items():
            site = analysis.sites[position]
            own = slice(site.first, site.first + site.touch.count)
            # A replay holds detached values constant; the program does not.
            if site.rule.by_value and not site.touch.op.reads_stopped:
                moving[own] |= probe.switching.detach().reshape(-1) != 0
            elif site.touch.op.short_name in _BY_ORDER and not site.touch.op.reads_stopped:
                ahead, kink = site.rule.rows(probe.call, site.touch, site.touch.chosen())
                moving[site.first + kink[ahead.detach() != 0]] = True
            else:
                moving[own] = True
    stay &= moving
    if bool(stay.all()):
        return analysis
    sites, count = {}, 0
    for site in analysis.ordered():
        touch = site.touch.only(stay[site.first : site.first + site.touch.count])
        sites[site.position] = replace(site, touch=touch, first=count)
        count += touch.count
    return replace(analysis, sites=MappingProxyType(sites), count=count)
