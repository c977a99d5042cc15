"""Split the live kinks into groups that choose independently, and enumerate each group."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from clarke.constraints import flatten
from clarke.decide.enumerate import Enumeration
from clarke.decide.flat import ChamberCells
from clarke.decide.limits import Limits
from clarke.decide.limitset import Component, LimitSet
from clarke.decide.live import Live
from clarke.errors import BudgetError
from clarke.numerics import SPACES_RANK
from clarke.steering import selected_gradient

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from clarke.deadline import Deadline
    from clarke.decide.cells import Cell
    from clarke.steering import Program

    Array = NDArray[np.float64]


def enumerate_components(
    program: Program, live: Live, generator: torch.Generator, limits: Limits | None = None
) -> LimitSet:
    """The limiting gradients around a point.

    Raises:
        BudgetError: Some group needs more work than `limits` allow.
    """
    limits = limits or Limits()
    size = sum(p.numel() for p in program.point)
    whole, groups = _whole_and_groups(program, live, generator, limits)
    if groups is None:
        cells = whole.run()
        stacked = gradients_of(cells.cells, size)
        return LimitSet(np.zeros(size), (Component(stacked, cells.cells, cells.exclusions),))
    base = flatten(selected_gradient(program))
    components: list[Component] = []
    for group in groups:
        program.deadline.ask("{} of {} groups of kinks", len(components), len(groups))
        mask = torch.zeros_like(live.kinks)
        mask[group] = True
        part = Live(mask, live.constant, live.affine)
        cells = Enumeration(program, part, generator, limits, whole).run()
        if not cells.cells:
            raise BudgetError("A group of kinks has no selection that could not be excluded.")
        changes = gradients_of(cells.cells, size) - base
        components.append(Component(changes, cells.cells, cells.exclusions))
    return LimitSet(base, tuple(components))


def count_combinations(
    program: Program, live: Live, generator: torch.Generator, limits: Limits
) -> int | None:
    """How many selections there are, without listing them; None where kinks depend on each other.

    Raises:
        BudgetError: Some group needs more work than `limits` allow.
    """
    whole, groups = _whole_and_groups(program, live, generator, limits)
    total = 1
    for group in groups or [live.kinks.nonzero().flatten().tolist()]:
        mask = torch.zeros_like(live.kinks)
        mask[group] = True
        part = Live(mask, live.constant, live.affine)
        found = Enumeration(program, part, generator, limits, whole).count()
        if found is None:
            return None
        total *= found
    return total


def _whole_and_groups(
    program: Program, live: Live, generator: torch.Generator, limits: Limits
) -> tuple[Enumeration, list[list[int]] | None]:
    """An enumeration of all kinks, and the groups if there are several."""
    whole = Enumeration(program, live, generator, limits)
    groups = _groups(whole) if live.affine else None
    return whole, None if groups is None or len(groups) < 2 else groups


def gradients_of(cells: Sequence[Cell], size: int) -> Array:
    """(k, n) the gradients of some cells."""
    if isinstance(cells, ChamberCells):
        return cells.gradients
    return np.stack([c.gradient for c in cells]) if cells else np.zeros((0, size))


def _groups(enumeration: Enumeration) -> list[list[int]] | None:
    """Kinks whose switching gradients are linearly independent of all others', in groups.

    A matroid argument: with a basis of the normals, every other normal joins the groups of the
    basis normals in its expansion; groups that are never joined span independent spaces, so any
    combination of their cells is a cell.
    """
    normals, owners = enumeration.flat_normals()
    if normals is None or not len(normals):
        return None
    lengths = np.linalg.norm(normals, axis=1)
    keep = lengths > 0
    if not keep.all():
        return None
    basis, expansions = _expand(normals / lengths[:, None], enumeration.deadline)
    parent = list(range(len(normals)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    for i, row in enumerate(expansions):
        for j, value in zip(basis, row, strict=True):
            if abs(value) > SPACES_RANK:
                parent[root(i)] = root(j)
    first: dict[int, int] = {}
    for i, kink in enumerate(owners):
        if kink in first:
            parent[root(i)] = root(first[kink])  # the rows of one kink belong together
        first[kink] = i
    groups: dict[int, list[int]] = {}
    for kink, i in first.items():
        groups.setdefault(root(i), []).append(kink)
    return list(groups.values())


def _expand(normals: Array, deadline: Deadline) -> tuple[list[int], Array]:
    """A basis among the normals, and the coordinates of all normals in it."""
    basis: list[int] = []
    directions: list[Array] = []
    for i, v in enumerate(normals):
        deadline.ask("splitting {} rows into groups", len(normals))
        rest = v.copy()
        for _ in range(2):  # twice is enough (Kahan and Parlett)
            for d in directions:
                rest = rest - (rest @ d) * d
        norm = float(np.linalg.norm(rest))
        if norm > SPACES_RANK:
            basis.append(i)
            directions.append(rest / norm)
    solution = np.linalg.lstsq(normals[basis].T, normals.T, rcond=None)[0]
    expansions: Array = solution.T.astype(np.float64)
    return basis, expansions
