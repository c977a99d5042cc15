"""Which kinks can be decided by shifting biases: pure columns, at the grain of parameters.

A leaf settles the kinks that depend on it if, among the kinks not yet settled, all that depend on
it do so exactly affinely. Shifting it far compared with leaves chosen later decides their signs
and leaves the others alone. Repeat. Settling kinks never makes a leaf unusable, so the greedy
order misses nothing. docs/theory.md, "The bias shift".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from clarke.theorems.affine import bits, is_dead

if TYPE_CHECKING:
    from clarke.theorems.structure import KinkSite, Structure


@dataclass(frozen=True, eq=False)
class Member:
    """The kinks of one operation that a group settles.

    Attributes:
        site: Number of the operation among the structure's sites.
        mask: bool, its pre-activations' shape: the elements settled.
        coef: The bias's coefficient at every element.
        index: The bias's entry at every element.
    """

    site: int
    mask: torch.Tensor
    coef: torch.Tensor
    index: torch.Tensor


@dataclass(frozen=True, eq=False)
class Group:
    """Kinks settled by shifting one leaf.

    Attributes:
        leaf: Its bit number.
        members: The kinks.
        single: Every kink has an entry of its own: any selection can be reached.
        upper: The lambda that all kinks share when the leaf moves up along `signs`, or None.
        signs: (numel,) direction of every entry that raises its pre-activations; 0: unused.
        weight: The group is settled by the weight of a fully connected layer, if its inputs have
            full rank (Theorem 5), not by a bias.
    """

    leaf: int
    members: tuple[Member, ...]
    single: bool
    upper: float | None
    signs: torch.Tensor | None
    weight: bool = False


@dataclass(frozen=True, eq=False)
class Peeling:
    """The groups found, first those whose leaves move furthest, and the operations left over."""

    groups: tuple[Group, ...]
    left: tuple[int, ...]

    @property
    def complete(self) -> bool:
        """Whether every kink is settled."""
        return not self.left


def peel(structure: Structure, *, strict: bool = True, weights: bool = False) -> Peeling:
    """Settle kinks by leaves, as far as possible.

    Args:
        structure: The facts.
        strict: Demand that a group can follow AD: one entry per kink, or one lambda for all.
            Otherwise only that some direction moves all its kinks.
        weights: Also use fully connected weights (their inputs' rank is then to be checked).
    """
    variables = sum(1 << i for i, leaf in enumerate(structure.leaves) if leaf.variable)
    open_: dict[int, torch.Tensor] = {}
    for number, site in enumerate(structure.sites):
        mask = _live(site, variables)
        if mask is None or bool(mask.any()):
            open_[number] = torch.ones(()) if mask is None else mask
    unknown = {n for n in open_ if structure.sites[n].state.shape is None}
    groups: list[Group] = []
    tried_all = False
    while open_ and not tried_all:
        tried_all = True
        for leaf in _candidates(structure, open_, variables):
            structure.deadline.ask("settling kinks by biases: {} are left", len(open_))
            group = None
            if not unknown & set(open_):
                group = _group(structure, leaf, open_, strict=strict)
                if group is None and weights:
                    group = _weight_group(structure, leaf, open_)
            if group is None:
                continue
            groups.append(group)
            for m in group.members:
                rest = open_[m.site] & ~m.mask
                if bool(rest.any()):
                    open_[m.site] = rest
                else:
                    del open_[m.site]
            tried_all = False
            break
    return Peeling(tuple(groups), tuple(sorted(open_)))


def _live(site: KinkSite, variables: int) -> torch.Tensor | None:
    if site.state.shape is None:
        return None
    if not site.state.depends & variables:
        return torch.zeros((), dtype=torch.bool)
    return ~is_dead(site.state, site.state.shape)


def _candidates(structure: Structure, open_: dict[int, torch.Tensor], variables: int) -> list[int]:
    """Leaves with a form at the last open operation first: they reach the fewest others."""
    found: dict[int, None] = {}
    for number in sorted(open_, reverse=True):
        state = structure.sites[number].state
        own = set(state.forms)
        if state.product is not None:
            own.add(state.product.weight)
        for leaf in bits(sum(1 << f for f in own) & variables):
            found.setdefault(leaf)
    return list(found)


def _group(
    structure: Structure, leaf: int, open_: dict[int, torch.Tensor], *, strict: bool
) -> Group | None:
    members: list[Member] = []
    for number, live in open_.items():
        site = structure.sites[number]
        if not site.state.depends >> leaf & 1:
            continue
        form = site.state.forms.get(leaf)
        if form is None or site.state.shape is None:
            return None
        mask = live & (form.coef != 0)
        if bool(mask.any()):
            members.append(Member(number, mask, form.coef, form.index))
    if not members:
        return None
    size = torch.Size(structure.leaves[leaf].shape).numel()
    used = torch.zeros(size, dtype=torch.int64)
    up = torch.zeros(size, dtype=torch.bool)
    down = torch.zeros(size, dtype=torch.bool)
    for m in members:
        index = m.index[m.mask]
        used.index_add_(0, index, torch.ones_like(index))
        up[index[m.coef[m.mask] > 0]] = True
        down[index[m.coef[m.mask] < 0]] = True
    proper = all(_proper(structure.sites[m.site]) for m in members)
    single = bool((used <= 1).all()) and proper
    signs = None
    upper = None
    if not bool((up & down).any()):
        signs = up.to(torch.int8) - down.to(torch.int8)
        shares = {s for m in members for s in _uppers(structure.sites[m.site])}
        if len(shares) == 1 and proper:
            upper = shares.pop()
    if strict and not single and (upper is None or signs is None):
        return None
    return Group(leaf, tuple(members), single, upper, signs)


def _weight_group(structure: Structure, leaf: int, open_: dict[int, torch.Tensor]) -> Group | None:
    own = [n for n in open_ if structure.sites[n].state.depends >> leaf & 1]
    if len(own) != 1:
        return None
    site = structure.sites[own[0]]
    product = site.state.product
    if product is None or product.weight != leaf or not _proper(site):
        return None
    shape = site.state.shape
    if shape is None:
        return None
    none = torch.zeros(shape)
    member = Member(own[0], open_[own[0]], none, none.to(torch.int64))
    return Group(leaf, (member,), single=True, upper=None, signs=None, weight=True)


def _proper(site: KinkSite) -> bool:
    return site.points is not None and all(p.proper for p in site.points)


def _uppers(site: KinkSite) -> set[float]:
    if site.points is None:
        return {float("nan")}
    return {p.upper for p in site.points}
