"""Which touched kinks can change the gradient, decided for the whole batch at once.

A kink is *null* when its candidates have equal gradients: one tangent pass along a random
direction shows that for all kinks together (a non-zero linear form vanishes at a random direction
with probability zero). Of the others, a kink is *idle* when neither the result nor the arguments
of a null or relevant kink depend on it to first order: one adjoint pass per round shows that.
The rest is relevant. docs/theory.md proves that changing null and idle kinks in any combination
changes neither the gradient nor the switching functions of the relevant ones.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import TYPE_CHECKING

import torch

from clarke.constraints.directions import random_tangents
from clarke.constraints.drowned import drowned, small_jumps, tangent
from clarke.constraints.entries import LOOKED_AT
from clarke.constraints.nearby import nearby_point
from clarke.constraints.reads import held_sides
from clarke.constraints.surfaces import jumps_beside
from clarke.deadline import rung
from clarke.kinks import Hazard
from clarke.kinks.steps import ComparisonRule
from clarke.numerics import (
    JUMP_USUAL,
    NULL_ALL,
    NULL_FAINT,
    NULL_OWN,
    TANGENTS_PARALLEL,
)
from clarke.tangents import forward_mode
from clarke.torch_private import unpack_dual

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from clarke.capture import OpRecord
    from clarke.steering import Probe, Program, Run, Site

_BEYOND_FIRST_ORDER = (Hazard.STEP, Hazard.INFINITE_SLOPE)


@dataclass(frozen=True, eq=False)
class Relevance:
    """What is left of the touched kinks.

    Attributes:
        relevant: (count,) bool: kinks whose piece can change the gradient.
        mixed: (count,) bool: kinks at which AD mixes several pieces.
        hazards: Relevant kinks out of reach of selections, by reason.
        lost_masks: Operations through which a tied comparison could not be followed.
    """

    relevant: torch.Tensor
    mixed: torch.Tensor
    hazards: Mapping[Hazard, torch.Tensor]
    lost_masks: tuple[OpRecord, ...]


class Mixing(Enum):
    """Which kinks a test runs with random convex weights of their pieces.

    All quantities are affine in the weights of each kink, so what vanishes at random weights
    vanishes for every selection (with probability one).
    """

    MIXED = "only those at which AD itself mixes pieces; AD's piece elsewhere"
    ALL = "all touched kinks"


def random_mixtures(
    program: Program, generator: torch.Generator, mixing: Mixing
) -> tuple[dict[int, torch.Tensor], torch.Tensor]:
    """Random weights by site position; and (count,) the kinks at which AD mixes."""
    mixed = torch.zeros(program.analysis.count, dtype=torch.bool)
    weights: dict[int, torch.Tensor] = {}
    for position, site in program.analysis.sites.items():
        touch = site.touch
        if touch.count == 0:
            continue
        own = touch.mixed()
        mixed[site.first : site.first + touch.count] = own
        if mixing is Mixing.ALL:
            own = torch.ones_like(own)
        if bool(own.any()):
            raw = torch.rand(touch.members.numel(), dtype=torch.float64, generator=generator) + 0.1
            total = torch.zeros(touch.count, dtype=torch.float64).index_add(0, touch.owner, raw)
            random = raw / total[touch.owner]
            weights[position] = torch.where(own[touch.owner], random, touch.weights)
    return weights, mixed


@rung("telling which kinks matter")
def find_relevant(
    program: Program,
    generator: torch.Generator,
    mixing: Mixing = Mixing.MIXED,
    choices: Mapping[int, torch.Tensor] = MappingProxyType({}),
) -> Relevance:
    """Classify the touched kinks of a program.

    Args:
        program: The program.
        generator: Private randomness.
        mixing: `MIXED` classifies under AD's selection, `ALL` under every selection at once.
        choices: With `MIXED`, another selection than AD's, by site position.
    """
    count = program.analysis.count
    weights, mixed = random_mixtures(program, generator, mixing)
    weights = {p: w for p, w in weights.items() if p not in choices}
    with forward_mode():
        direction = random_tangents(program, generator)
        moved = program.run(
            choices=choices, weights=weights, tangents=direction, probe=True, grad=False
        )
        followed = any(u.difference is not None for u in moved.mask_uses)
        sizes = _usual_sizes(program, generator) if followed else ()
        null, jumping, suspects = _null_kinks(program, moved, sizes)
        if followed:
            settled, jumping = _jumps_around(program, sizes, generator, jumping)
            null = (null | settled) & ~jumping
    if followed:
        small = small_jumps(program, choices, weights, moved.mask_uses, ~jumping)
        jumping, null = jumping | small, null & ~small
    if bool(null.any()):
        null &= ~drowned(program, choices, weights, null, suspects, generator)
    hazards = _hazards(program, jumping)
    dangerous = torch.zeros(count, dtype=torch.bool)
    for kinks in hazards.values():
        dangerous[kinks] = True
    lost = tuple({u.op.index: u.op for u in moved.mask_uses if u.difference is None}.values())
    held = held_sides(program.analysis)
    null = null & ~dangerous & ~held
    if bool((~null).any()):
        still = program.run(choices=choices, weights=weights, probe=True, nudge=True)
        relevant = _reachable(program, still, null, held, generator)
        # Steps and infinite slopes are no matter of first order: what multiplies them may vanish
        # at the point only.
        beyond = [hazards[h] for h in _BEYOND_FIRST_ORDER if h in hazards]
        if beyond:
            steps = torch.cat(beyond)
            # With mixtures at all kinks: what multiplies it may be the step itself (its square).
            every, _ = random_mixtures(program, generator, Mixing.ALL)
            beside = program.run(nearby_point(program, generator), weights=every, nudge=True)
            if beside.nudges is not None:
                reached = beside.nudges.adjoints(beside.output.sum(), count) > 0
                relevant[steps[reached[steps]]] = True
    else:
        relevant = torch.zeros(count, dtype=torch.bool)
    open_ = relevant & ~held  # of what is held, the side that ran is all there is
    left = {h: k[open_[k]] for h, k in hazards.items() if bool(open_[k].any())}
    return Relevance(relevant, mixed, left, lost)


def _jumps_around(
    program: Program,
    sizes: Sequence[float],
    generator: torch.Generator,
    jumping: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """(count,) comparisons whose sides stay equal around the point, and those that jump.

    A jump matters under any selection, not under AD's alone: ``relu(y) * (x > 0)``.
    """
    every, _ = random_mixtures(program, generator, Mixing.ALL)
    one, two = (
        program.run(
            weights=every,
            tangents=random_tangents(program, generator),
            probe=True,
            grad=False,
        )
        for _ in range(2)
    )
    settled = _settled_comparisons(program, generator)
    jumping = jumping | _null_kinks(program, one, sizes)[1]
    jumping = jumping | _torn_kinks(program, one, two)
    jumping = jumping & ~settled
    start = nearby_point(program, generator)
    jumping = jumping | jumps_beside(program, every, start, jumping | settled, sizes)
    return settled, jumping


def _usual_sizes(program: Program, generator: torch.Generator) -> tuple[float, ...]:
    """The size of what each mask picks from, near the point: at it all may vanish."""
    weights, _ = random_mixtures(program, generator, Mixing.ALL)
    there = nearby_point(program, generator)
    run = program.run(there, weights=weights, probe=True, grad=False)
    return tuple(u.scale if math.isfinite(u.scale) else 1.0 for u in run.mask_uses)


def _null_kinks(
    program: Program, run: Run, sizes: Sequence[float]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(count,) kinks whose candidates have equal tangents, and comparisons that jump.

    The third are those of the first whose tangents are equal but for what may be rounding, of the
    operation's arguments or of what cancelled in these.
    `sizes` are the usual ones of what masks pick from, use by use.
    """
    count = program.analysis.count
    null = torch.ones(count, dtype=torch.bool)
    jumping = torch.zeros(count, dtype=torch.bool)
    suspects = torch.zeros(count, dtype=torch.bool)
    faint = torch.zeros((), dtype=torch.float64)
    if sum(p.numel() for p in program.point) <= LOOKED_AT:  # of more, nobody tells these apart
        largest = [_largest_tangent(p.call.args) for p in run.probes.values()]
        faint = NULL_FAINT * torch.stack([faint, *largest]).max()
    for position, probe in run.probes.items():
        site = program.analysis.sites[position]
        touch = site.touch
        slopes = tangent(probe.candidates).to(torch.float64)
        top = torch.full((touch.count,), -torch.inf, dtype=torch.float64)
        low = torch.full((touch.count,), torch.inf, dtype=torch.float64)
        top.scatter_reduce_(0, touch.owner, slopes, "amax")
        low.scatter_reduce_(0, touch.owner, slopes, "amin")
        spread = top - low
        small = spread <= torch.maximum(negligible(site, probe), faint)
        null[site.first : site.first + touch.count] = small
        suspects[site.first : site.first + touch.count] = small & (spread > 0)
    for number, use in enumerate(run.mask_uses):
        kinks = use.kink
        if use.difference is None:
            null[kinks] = False
            continue
        slopes = tangent(use.difference)
        gap = unpack_dual(use.difference)[0].detach()
        null[kinks[slopes.abs() > 0]] = False
        jump = gap.abs() > NULL_OWN * max(use.scale, JUMP_USUAL * sizes[number])
        jumping[kinks[jump]] = True
        null[kinks[jump]] = False
    return null, jumping, suspects


def _settled_comparisons(program: Program, generator: torch.Generator) -> torch.Tensor:
    """(count,) comparisons whose sides stay equal around the point, under every selection."""
    settled = torch.zeros(program.analysis.count, dtype=torch.bool)
    weights, _ = random_mixtures(program, generator, Mixing.ALL)
    there = nearby_point(program, generator)
    run = program.run(there, weights=weights, probe=True, grad=False)
    for position, probe in run.probes.items():
        site = program.analysis.sites[position]
        if isinstance(site.rule, ComparisonRule):
            own = probe.switching.detach().reshape(-1) == 0
            settled[site.first : site.first + site.touch.count] = own
    return settled


def _torn_kinks(program: Program, first: Run, second: Run) -> torch.Tensor:
    """(count,) comparisons that choose between values which part on the surface of the tie.

    ``y * (x > 0)`` is continuous at the origin and jumps beside it. Both sides agree on the
    surface to first order if the gradient of their difference is a multiple of the gradient of
    the compared difference: then their tangents along two directions are proportional.
    """
    torn = torch.zeros(program.analysis.count, dtype=torch.bool)
    slopes = [_compared_slopes(program, run) for run in (first, second)]
    for one, two in zip(first.mask_uses, second.mask_uses, strict=True):
        if one.difference is None or two.difference is None:
            continue
        gaps = tangent(one.difference), tangent(two.difference)
        sides = [own[one.kink] for own in slopes]
        left, right = gaps[0] * sides[1], gaps[1] * sides[0]
        parallel = (left - right).abs() <= TANGENTS_PARALLEL * torch.maximum(
            left.abs(), right.abs()
        )
        # Without a first-order switching function the sides must agree by themselves.
        flat = (sides[0] == 0) & (sides[1] == 0) & (gaps[0].abs() + gaps[1].abs() > 0)
        torn[one.kink[~parallel | flat]] = True
    return torn


def _compared_slopes(program: Program, run: Run) -> torch.Tensor:
    """(count,) tangents of what comparisons and signs compare with zero."""
    found = torch.zeros(program.analysis.count, dtype=program.dtype)
    for position, probe in run.probes.items():
        site = program.analysis.sites[position]
        if site.rule.by_value:
            kinks = slice(site.first, site.first + site.touch.count)
            found[kinks] = tangent(probe.switching).reshape(-1).to(program.dtype)
    return found


def negligible(site: Site, probe: Probe) -> torch.Tensor:
    """Differences of candidates' tangents that are rounding: (K,), or one number for all."""
    bound = NULL_ALL * _largest_tangent(probe.call.args)
    if not is_choice(site):
        # A region kink often compares with a constant: its own size is then no yardstick.
        return bound
    touch = site.touch
    slopes = tangent(probe.candidates).to(torch.float64).abs()
    size = torch.zeros(touch.count, dtype=torch.float64)
    size.scatter_reduce_(0, touch.owner, slopes, "amax")
    return torch.maximum(NULL_OWN * size, bound)


def is_choice(site: Site) -> bool:
    """Whether the candidates are tied elements, not pieces."""
    return site.touch.base.dtype == torch.int64


def _largest_tangent(args: tuple[object, ...]) -> torch.Tensor:
    found = torch.zeros((), dtype=torch.float64)
    for a in args:
        if isinstance(a, torch.Tensor) and a.is_floating_point() and a.numel():
            found = torch.maximum(found, tangent(a).abs().max().to(torch.float64))
    return found


def _hazards(program: Program, jumping: torch.Tensor) -> dict[Hazard, torch.Tensor]:
    found: dict[Hazard, list[torch.Tensor]] = {}
    for site in program.analysis.sites.values():
        for hazard, kinks in site.touch.hazards.items():
            found.setdefault(hazard, []).append(site.first + kinks)
    if bool(jumping.any()):
        found.setdefault(Hazard.STEP, []).append(jumping.nonzero().squeeze(1))
    return {h: torch.cat(parts) for h, parts in found.items()}


def _reachable(
    program: Program,
    run: Run,
    null: torch.Tensor,
    held: torch.Tensor,
    generator: torch.Generator,
) -> torch.Tensor:
    """Kinks, not null, on which the result depends, or an argument of a kink on which it depends.

    What leads to a null kink on which nothing depends is as idle as that. On what is `held` the
    program's branches depend.
    """
    count = program.analysis.count
    if run.nudges is None:
        return ~null
    target = run.output
    watched = held
    while True:
        total = target * 1.0
        for position, probe in run.probes.items():
            site = program.analysis.sites[position]
            touch = site.touch
            own = watched[site.first : site.first + touch.count]
            if not bool(own.any()):
                continue
            for values, owner in (
                (probe.candidates, touch.owner),
                (probe.switching.reshape(-1, touch.count), None)
                if probe.switching.numel() % touch.count == 0 and not is_choice(site)
                else (probe.candidates, touch.owner),
            ):
                factor = torch.randn(values.shape, dtype=program.dtype, generator=generator)
                factor = factor * (own[owner] if owner is not None else own)
                if values.requires_grad:
                    total = total + (values * factor).sum()
        for use in run.mask_uses:
            # What a null comparison chooses between must not depend on idle kinks either.
            if use.difference is None or not use.difference.requires_grad:
                continue
            own = watched[use.kink]
            factor = torch.randn(own.shape, dtype=program.dtype, generator=generator)
            total = total + (use.difference * factor * own).sum()
        reached = watched | (run.nudges.adjoints(total, count) > 0)
        if bool((reached == watched).all()):
            return watched & ~null
        watched = reached
