"""Which kinks an exact enumeration must branch on, and whether first order is exact for them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from clarke.constraints import find_relevant, tangent
from clarke.constraints.relevance import Mixing, nearby_point, random_mixtures
from clarke.decide.meeting import only_branches
from clarke.errors import BudgetError
from clarke.kinks import Hazard
from clarke.numerics import VALUES_SAME
from clarke.tangents import forward_mode
from clarke.torch_private import unpack_dual

if TYPE_CHECKING:
    from collections.abc import Mapping

    from clarke.steering import Program, Run, Site

_PARTLY = 6


@dataclass(frozen=True, eq=False)
class Live:
    """The kinks that can change the gradient under some selection of the others.

    Attributes:
        kinks: (count,) bool.
        constant: (count,) bool: kinks whose switching functions vanish identically, so that the
            piece that AD saw is the only one.
        affine: Switching functions and candidates are affine in the variables under every
            selection, so that a first-order contradiction is a contradiction.
        branches: Comparisons jump, each of which is branched on; the result is affine as well.
    """

    kinks: torch.Tensor
    constant: torch.Tensor
    affine: bool
    branches: bool = False


def find_live(program: Program, generator: torch.Generator) -> Live:
    """Kinks relevant under random mixtures of all pieces.

    Everything here is a polynomial in the mixture weights, affine in each; it vanishes for all
    selections if it vanishes at random weights (with probability one).
    """
    relevance = find_relevant(program, generator, Mixing.ALL)
    beyond = [h for h in relevance.hazards if h is not Hazard.IMPROPER]
    branches = only_branches(program, relevance)
    if (beyond and not branches) or relevance.lost_masks:
        what = beyond[0].value if beyond else "a comparison that cannot be followed"
        raise BudgetError(f"Selections do not describe all gradients around the point: {what}.")
    weights, _ = random_mixtures(program, generator, Mixing.ALL)
    probes = [_nearby(program, generator, weights) for _ in range(2)]
    constant = torch.ones(program.analysis.count, dtype=torch.bool)
    affine = True
    for run in probes:
        for position, probe in run.probes.items():
            site = program.analysis.sites[position]
            k = site.touch.count
            values = primal(probe.switching)
            scale = float(values.abs().max()) if values.numel() else 0.0
            if site.rule.by_value and k:
                own = values.reshape(-1).abs() <= VALUES_SAME * max(scale, 1.0)
                constant[site.first : site.first + k] &= own
            else:
                constant[site.first : site.first + k] = False
    first = _taylor_gaps(program, weights, generator, result=branches)
    affine = first <= VALUES_SAME
    if branches and not affine:
        raise BudgetError(
            "Selections do not describe all gradients around the point: a step between functions "
            "that are not affine."
        )
    return Live(relevance.relevant & ~constant, constant, affine, branches)


def primal(value: torch.Tensor) -> torch.Tensor:
    """The value without its tangent."""
    return unpack_dual(value)[0].detach() if value.is_floating_point() else value


def _nearby(
    program: Program, generator: torch.Generator, weights: Mapping[int, torch.Tensor]
) -> Run:
    return program.run(nearby_point(program, generator), weights=weights, probe=True, grad=False)


def _taylor_gaps(
    program: Program,
    weights: Mapping[int, torch.Tensor],
    generator: torch.Generator,
    *,
    result: bool,
) -> float:
    """Largest relative error of first-order Taylor expansions at random nearby points.

    Of switching functions and candidates; with `result` also of what the program returns.
    """
    worst = 0.0
    for partly in (False,) * 2 + (True,) * _PARTLY:
        moved = nearby_point(program, generator, partly=partly)
        step = tuple(a - b for a, b in zip(moved, program.point, strict=True))
        there = program.run(moved, weights=weights, probe=True, grad=False)
        with forward_mode():
            here = program.run(weights=weights, probe=True, tangents=step, grad=False)
            if result:
                own, other = here.output.sum(), there.output.sum()
                gap = float((primal(own) + tangent(own) - other).abs())
                worst = max(worst, gap / max(float(other.abs() + tangent(own).abs()), gap or 1.0))
            for position, probe in here.probes.items():
                beside = there.probes[position]
                for a, b in (
                    (probe.switching, beside.switching),
                    (probe.candidates, beside.candidates),
                ):
                    if a.numel() == 0 or not a.is_floating_point():
                        continue
                    gaps = (primal(a) + tangent(a) - b.detach()).abs().reshape(-1)
                    sizes = b.detach().abs().reshape(-1) + tangent(a).abs().reshape(-1)
                    if bool(torch.isnan(gaps).any()):
                        return math.inf
                    # Kink by kink: beside large values of other kinks a curvature is lost.
                    gaps, sizes = (
                        _by_kink(v, program.analysis.sites[position]) for v in (gaps, sizes)
                    )
                    worst = max(worst, float(torch.where(sizes > 0, gaps / sizes, gaps).max()))
    return worst


def _by_kink(values: torch.Tensor, site: Site) -> torch.Tensor:
    """The largest of the values that belong to each kink of a site."""
    touch = site.touch
    if values.numel() == touch.members.numel():
        owner = touch.owner
    elif values.numel() % touch.count == 0:
        owner = torch.arange(touch.count).repeat(values.numel() // touch.count)
    else:
        return values.max()[None]
    found = torch.zeros(touch.count, dtype=values.dtype)
    return found.scatter_reduce(0, owner, values, "amax")
