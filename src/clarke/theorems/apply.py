"""The bias shift at one point: a direction that selects AD's pieces at every relevant kink.

At one point less is asked than for all parameters: only the relevant kinks count, and two kinks
that share a bias entry need AD's choices to agree, not one lambda for a whole layer. The direction
costs one walk over the trace and one forward-mode pass for each layer; no row is ever built.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from clarke.constraints import RowOperator, build_rows
from clarke.deadline import rung
from clarke.kinks.regions import RegionRule
from clarke.numerics import DIRECTION_SPREAD
from clarke.theorems.affine import bits
from clarke.theorems.structure import Context, Structure
from clarke.theorems.walk import walk

if TYPE_CHECKING:
    from clarke.kinks import Registry
    from clarke.steering import Program, Site

_GROUPS = 64  # each costs a pass; deeper programs are left to the general search


@dataclass(frozen=True, eq=False)
class BiasShift:
    """A witness made of bias shifts.

    Attributes:
        direction: One tensor per variable.
        rows: (m,) derivatives of the relevant kinks' signed switching functions along it, > 0.
        kinks: (m,) the touched kink of each.
        margin: The smallest of `rows`, relative to the largest.
    """

    direction: tuple[torch.Tensor, ...]
    rows: torch.Tensor
    kinks: torch.Tensor
    margin: float


@dataclass(frozen=True, eq=False)
class _Open:
    """Relevant kinks of one operation that no shift has settled yet.

    Attributes:
        site: Number of the operation in the structure.
        kinks: (K,) numbers of the touched kinks.
        elements: (K,) their positions among the operation's elements.
        want: (K,) +1 where AD took the upper piece, -1 where the lower.
    """

    site: int
    kinks: torch.Tensor
    elements: torch.Tensor
    want: torch.Tensor


@rung("looking for a bias shift")
def bias_shift(program: Program, registry: Registry, relevant: torch.Tensor) -> BiasShift | None:
    """Shift biases so that AD's piece is active at every relevant kink, if that is possible.

    Args:
        program: The program; AD must select one piece at every relevant kink.
        registry: The rules.
        relevant: (count,) bool, the relevant kinks.
    """
    context = Context(deadline=program.deadline)
    structure = walk(program.analysis.trace, registry, program.variables, context=context)
    open_ = _open_kinks(program, structure, relevant)
    if open_ is None:
        return None
    groups: list[tuple[int, torch.Tensor, torch.Tensor]] = []
    while open_:
        program.deadline.ask("{} groups of kinks are left", len(open_))
        group = next(
            filter(None, (_settle(structure, leaf, open_) for leaf in _leaves(structure, open_))),
            None,
        )
        if group is None or len(groups) == _GROUPS:
            return None
        leaf, signs, kinks, open_ = group
        groups.append((leaf, signs, kinks))
    return _combine(program, structure, groups, build_rows(program, {}, relevant))


def _open_kinks(
    program: Program, structure: Structure, relevant: torch.Tensor
) -> list[_Open] | None:
    number = {site.position: i for i, site in enumerate(structure.sites)}
    found = []
    for site in program.analysis.ordered():
        own = relevant[site.first : site.first + site.touch.count]
        if not bool(own.any()):
            continue
        known = number.get(site.position)
        wanted = _wanted(site, own)
        if known is None or wanted is None or structure.sites[known].state.shape is None:
            return None
        at = own.nonzero().squeeze(1)
        found.append(_Open(known, site.first + at, site.touch.elements[at], wanted))
    return found


def _wanted(site: Site, own: torch.Tensor) -> torch.Tensor | None:
    """(K,) the side that AD took at the kinks in question; None where it is not one of two."""
    touch = site.touch
    sizes = torch.bincount(touch.owner, minlength=touch.count)
    if not isinstance(site.rule, RegionRule) or bool((sizes[own] != 2).any()):
        return None
    if bool(touch.mixed()[own].any()):
        return None
    lowest = torch.full((touch.count,), 1 << 60, dtype=torch.int64)
    lowest.scatter_reduce_(0, touch.owner, touch.members.to(torch.int64), "amin")
    return torch.where(touch.chosen() > lowest, 1.0, -1.0).to(torch.float64)[own]


def _leaves(structure: Structure, open_: list[_Open]) -> tuple[int, ...]:
    found: dict[int, None] = {}
    for one in reversed(open_):
        forms = structure.sites[one.site].state.forms
        for leaf in bits(sum(1 << f for f in forms if structure.leaves[f].variable)):
            found.setdefault(leaf)
    return tuple(found)


def _settle(
    structure: Structure, leaf: int, open_: list[_Open]
) -> tuple[int, torch.Tensor, torch.Tensor, list[_Open]] | None:
    """Signs for a leaf's entries, the kinks that they settle, and the kinks left open."""
    size = torch.Size(structure.leaves[leaf].shape).numel()
    up = torch.zeros(size, dtype=torch.bool)
    down = torch.zeros(size, dtype=torch.bool)
    rest: list[_Open] = []
    settled: list[torch.Tensor] = []
    for one in open_:
        state = structure.sites[one.site].state
        if not state.depends >> leaf & 1:
            rest.append(one)
            continue
        form = state.forms.get(leaf)
        if form is None:
            return None
        coef = form.coef.reshape(-1)[one.elements]
        side = one.want * coef.sign()
        index = form.index.reshape(-1)[one.elements]
        up[index[side > 0]] = True
        down[index[side < 0]] = True
        moved = coef != 0
        settled.append(one.kinks[moved])
        if not bool(moved.all()):
            left = ~moved
            rest.append(_Open(one.site, one.kinks[left], one.elements[left], one.want[left]))
    kinks = torch.cat(settled) if settled else torch.zeros(0, dtype=torch.int64)
    if kinks.numel() == 0 or bool((up & down).any()):
        return None
    return leaf, up.to(torch.float64) - down.to(torch.float64), kinks, rest


def _combine(
    program: Program,
    structure: Structure,
    groups: list[tuple[int, torch.Tensor, torch.Tensor]],
    rows: RowOperator,
) -> BiasShift | None:
    """Add the shifts, each so large that it outweighs what the later ones do to its kinks."""
    place = {slot: i for i, slot in enumerate(program.variables)}
    direction = [torch.zeros_like(p) for p in program.point]
    values = torch.zeros(rows.shape[0], dtype=torch.float64)
    for leaf, signs, kinks in reversed(groups):
        i = place[structure.leaves[leaf].slot]
        shift = signs.reshape(program.point[i].shape).to(program.dtype)
        single = [torch.zeros_like(p) for p in program.point]
        single[i] = shift
        moved = rows.times(single).to(torch.float64)
        own = torch.isin(rows.kinks, kinks)
        if not bool((moved[own] > 0).all()):
            return None
        need = float((-values[own] / moved[own]).max())
        factor = 1.0 if need < 0.5 else 2.0 * need
        direction[i] = direction[i] + factor * shift
        values = values + factor * moved
    values = rows.times(direction).to(torch.float64)
    sizes = [float(d.abs().max()) for d in direction if d.numel() and bool((d != 0).any())]
    if not bool((values > 0).all()) or max(sizes) > DIRECTION_SPREAD * min(sizes):
        return None
    margin = float(values.min() / values.max())
    return BiasShift(tuple(direction), values, rows.kinks, margin)
