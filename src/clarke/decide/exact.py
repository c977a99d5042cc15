"""All selections around a point, or around a part of its kinks, enumerated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from clarke.deadline import rung
from clarke.decide.allowed import rounding_of_selections
from clarke.decide.components import enumerate_components
from clarke.decide.enumerate import Enumeration
from clarke.decide.guards import lipschitz_around_guards
from clarke.decide.limits import Limits
from clarke.decide.limitset import Component, LimitSet
from clarke.decide.live import Live, find_live
from clarke.decide.meeting import JumpsBesideError, check_meeting, only_branches
from clarke.decide.normal import outer_estimate
from clarke.decide.onsurface import jumps_on_surfaces
from clarke.decide.recomputed import Defect
from clarke.decide.verification import fresh_generator
from clarke.errors import BudgetError
from clarke.numerics import (
    VERIFIED_CELLS,
    VERIFIED_KINKS,
    VERIFIED_NODES,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from clarke.constraints import Relevance
    from clarke.decide.ballset import BallSet
    from clarke.decide.outer import Outer
    from clarke.decide.regularset import RegularSet
    from clarke.steering import Program

    Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Exact:
    """The selections around a point.

    Attributes:
        limits: Gradients of all selections that could not be excluded.
        live: The kinks that were branched on.
    """

    limits: LimitSet
    live: Live


def rounding_of_set(program: Program, limits: LimitSet | RegularSet | BallSet) -> Array:
    """(n,) how far rounding alone may have moved entries of the set's elements."""
    found: Array = rounding_of_selections(program) + limits.roundings(np.zeros(limits.size))
    return found


@rung("enumerating all selections")
def enumerate_exactly(
    program: Program,
    generator: torch.Generator,
    limits: Limits | None = None,
    live: Live | None = None,
) -> Exact:
    """Enumerate the selections around the program's point.

    Args:
        program: The program.
        generator: Private randomness.
        limits: Budget.
        live: The kinks to branch on, if they are known.

    Raises:
        BudgetError: The problem is too large, or selections do not describe it.
    """
    live = find_live(program, generator) if live is None else live
    found = enumerate_components(program, live, generator, limits)
    if live.branches:
        check_meeting(program, [c for part in found.components for c in part.cells])
        torn = jumps_on_surfaces(program, fresh_generator(), equalities=True)
        if torn:
            raise JumpsBesideError(torn)
    return Exact(found, live)


def lipschitz_around_steps(program: Program, relevance: Relevance) -> bool:
    """Whether guards and branches alone jump, and not the function around them."""
    if lipschitz_around_guards(program, relevance):
        return True
    if not only_branches(program, relevance):
        return False
    try:
        recomputed_limits(program)
    except BudgetError:
        return False
    return True


def recomputed_limits(program: Program, limits: Limits | None = None) -> LimitSet:
    """All selections that cannot be excluded, enumerated again for a verification.

    Args:
        program: The program.
        limits: Budget, if another than a verdict's.

    Raises:
        BudgetError: That is out of reach.
    """
    return enumerate_exactly(program, fresh_generator(), limits or verified()).limits


def verified() -> Limits:
    """How much a verification enumerates."""
    return Limits(nodes=int(VERIFIED_NODES), cells=int(VERIFIED_CELLS), kinks=int(VERIFIED_KINKS))


def part_entries(program: Program, kinks: Sequence[int]) -> NDArray[np.bool_]:
    """(n,) which entries of a gradient depend on some kinks, and on no others.

    Raises:
        Defect: The kinks are no part of the program: some entry depends on others as well.
    """
    outer = outer_estimate(program, fresh_generator(), program.deadline)
    for atoms, entries in outer.parts():
        if kinks_of(outer, atoms) == tuple(kinks):
            return entries
    raise Defect("the kinks are no part of the program that can be judged apart")


def kinks_of(outer: Outer, atoms: NDArray[np.bool_]) -> tuple[int, ...]:
    """The touched kinks behind a part of an outer estimate."""
    return tuple(sorted({n for j in np.flatnonzero(atoms) for n in outer.atoms.kinks[j]}))


def part_limits(
    program: Program,
    live: Live,
    kinks: Sequence[int],
    entries: NDArray[np.bool_],
    generator: torch.Generator,
    limits: Limits,
) -> LimitSet:
    """The set of a part, its kinks enumerated alone; zero in all entries of others.

    Args:
        program: The program.
        live: Which kinks can change the gradient.
        kinks: The touched kinks on which the part's entries depend.
        entries: (n,) which entries these are.
        generator: Private randomness.
        limits: Budget.

    Raises:
        BudgetError: The part is too large.
    """
    mask = torch.zeros_like(live.kinks)
    mask[list(kinks)] = live.kinks[list(kinks)]
    cells = Enumeration(program, Live(mask, live.constant, live.affine), generator, limits).run()
    changes = np.zeros((len(cells.cells), len(entries)))
    for row, cell in zip(changes, cells.cells, strict=True):
        row[entries] = cell.gradient[entries]
    return LimitSet(np.zeros(len(entries)), (Component(changes, cells.cells, cells.exclusions),))


def nearest_correct(exact: Exact, gradient: Array) -> Array | None:
    """A limiting gradient close to AD's, among those that are known."""
    limits = exact.limits.known()
    if limits is None:
        return None
    if limits.count <= 4096:
        points = limits.elements()
        best: Array = points[int(np.linalg.norm(points - gradient, axis=1).argmin())]
        return best
    # Too many to compare: in every component the change that helps most on its own.
    total = limits.base.copy()
    for c in limits.components:
        gaps = np.linalg.norm(total + c.changes - gradient, axis=1)
        total = total + c.changes[int(gaps.argmin())]
    return total
