"""Which kinks an exact enumeration must branch on, and whether first order is exact for them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

import torch

from clarke.constraints import find_relevant, tangent
from clarke.constraints.nearby import nearby_point, nearby_points
from clarke.constraints.noise import noise_of
from clarke.constraints.relevance import Mixing, random_mixtures
from clarke.decide.bends import bends
from clarke.decide.meeting import only_branches
from clarke.errors import BudgetError
from clarke.kinks import Hazard
from clarke.numerics import VALUES_SAME
from clarke.steering.cones import with_cones
from clarke.tangents import forward_mode
from clarke.torch_private import unpack_dual

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from clarke.kinks import Touch
    from clarke.steering import Errors, Program, Site

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
    constant = torch.ones(program.analysis.count, dtype=torch.bool)
    for _ in range(2):
        moved = nearby_point(program, generator)
        probed = partial(_compared, program, weights, moved)
        for position, zero in _zeros(program, probed).items():
            site = program.analysis.sites[position]
            constant[site.first : site.first + site.touch.count] &= zero
    first = _taylor_gaps(program, weights, generator, result=branches)
    affine = first <= VALUES_SAME and not bends(program, weights, generator)
    if branches and not affine:
        raise BudgetError(
            "Selections do not describe all gradients around the point: a step between functions "
            "that are not affine."
        )
    return Live(relevance.relevant & ~constant, constant, affine, branches)


def norm_of_zero(
    program: Program, generator: torch.Generator, live: Live | None = None
) -> Touch | None:
    """A Euclidean norm that is taken of zero, where the gradient depends on it.

    Raises:
        BudgetError: As `find_live`.
    """
    held = with_cones(program)
    if held is program:
        return None
    kinks = (live or find_live(held, generator)).kinks
    for site in held.analysis.ordered():
        own = kinks[site.first : site.first + site.touch.count]
        if site.rule.by_weights and bool(own.any()):
            return site.touch
    return None


def is_zero(
    program: Program,
    values: torch.Tensor,
    again: Callable[[Errors], torch.Tensor],
) -> torch.Tensor:
    """Which values are zero but for rounding: that of their own computation, not of others'.

    Args:
        program: Asked for its deadline.
        values: Of any shape.
        again: The same computed with random errors.
    """
    zero = values == 0
    largest = float(values.abs().max()) if values.numel() else 0.0
    small = values.abs() <= VALUES_SAME * max(largest, 1.0)
    if bool((small & ~zero).any()):
        noise = noise_of(program, {0: values}, lambda errors: {0: again(errors)})
        zero |= small & (values.abs() <= noise[0] if noise is not None else small)
    return zero


def _zeros(
    program: Program, probed: Callable[[Errors | None], dict[int, torch.Tensor]]
) -> dict[int, torch.Tensor]:
    """For each site of comparisons, which of what it compares are zero; False at other sites."""
    found = {}
    for position, values in probed(None).items():
        found[position] = torch.zeros(values.shape, dtype=torch.bool)
        if program.analysis.sites[position].rule.by_value:

            def again(errors: Errors, at: int = position) -> torch.Tensor:
                return probed(errors)[at]

            found[position] = is_zero(program, values, again)
    return found


def _compared(
    program: Program,
    weights: Mapping[int, torch.Tensor],
    moved: tuple[torch.Tensor, ...],
    errors: Errors | None,
) -> dict[int, torch.Tensor]:
    """(count,) what the kinks compare, by their site; zero where they choose by something else."""
    run = program.run(moved, weights=weights, probe=True, grad=False, errors=errors)
    found = {}
    for position, probe in run.probes.items():
        site = program.analysis.sites[position]
        if site.touch.count:
            own = primal(probe.switching) if site.rule.by_value else torch.zeros(site.touch.count)
            found[position] = own.reshape(-1)
    return found


def primal(value: torch.Tensor) -> torch.Tensor:
    """The value without its tangent."""
    return unpack_dual(value)[0].detach() if value.is_floating_point() else value


def _taylor_gaps(
    program: Program,
    weights: Mapping[int, torch.Tensor],
    generator: torch.Generator,
    *,
    result: bool,
) -> float:
    """Largest relative error of first-order Taylor expansions at random nearby points.

    Of switching functions and candidates; with `result` also of what the program returns. Errors
    that rounding can have made count as none.
    """
    worst = 0.0
    for moved in nearby_points(program, generator, 2, _PARTLY):
        program.deadline.ask("looking for curvature")
        expanded = partial(_expanded, program, weights, moved, result)
        seen = expanded(None)
        found = _largest_gap(program, seen, {})
        if found > VALUES_SAME:
            # Where large terms cancel, what they leave bends by roundings alone.
            noise = noise_of(program, seen, expanded)
            found = math.inf if noise is None else _largest_gap(program, seen, noise)
        worst = max(worst, found)
        if worst > VALUES_SAME:
            break
    return worst


_Expanded: TypeAlias = "dict[tuple[int, str], torch.Tensor]"
_RESULT = -1


def _expanded(
    program: Program,
    weights: Mapping[int, torch.Tensor],
    moved: tuple[torch.Tensor, ...],
    result: bool,  # noqa: FBT001 - bound by `partial`
    errors: Errors | None,
) -> _Expanded:
    """Values and slopes at the point and values beside it, a row each, by site."""
    step = tuple(a - b for a, b in zip(moved, program.point, strict=True))
    there = program.run(moved, weights=weights, probe=True, grad=False, errors=errors)
    seen: _Expanded = {}

    def see(key: tuple[int, str], own: torch.Tensor, other: torch.Tensor) -> None:
        if own.numel() and own.is_floating_point():
            parts = (primal(own), tangent(own), other.detach())
            seen[key] = torch.stack([p.reshape(-1) for p in parts])

    with forward_mode():
        here = program.run(weights=weights, probe=True, tangents=step, grad=False, errors=errors)
        if result:
            see((_RESULT, "result"), here.output.sum(), there.output.sum())
        for position, probe in here.probes.items():
            beside = there.probes[position]
            see((position, "switching"), probe.switching, beside.switching)
            see((position, "candidates"), probe.candidates, beside.candidates)
    return seen


def _largest_gap(
    program: Program, seen: _Expanded, noise: Mapping[tuple[int, str], torch.Tensor]
) -> float:
    """The largest error of an expansion, relative to its terms, beyond what is noise."""
    worst = 0.0
    for key, (own, slope, beside) in seen.items():
        gaps = (own + slope - beside).abs()
        sizes = beside.abs() + slope.abs()
        if bool(torch.isnan(gaps).any()):
            return math.inf
        if key in noise:
            gaps = torch.where(gaps <= noise[key].sum(0), 0.0, gaps)
        if key[0] != _RESULT:
            # Kink by kink: beside large values of other kinks a curvature is lost.
            site = program.analysis.sites[key[0]]
            gaps, sizes = _by_kink(gaps, site), _by_kink(sizes, site)
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
