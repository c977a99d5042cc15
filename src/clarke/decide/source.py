"""Where the answers of a set come from: weights at kinks, or a list of limiting gradients."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch

from clarke.constraints import unflatten
from clarke.decide.ballset import BallSet
from clarke.decide.components import count_combinations
from clarke.decide.dependent import Rank
from clarke.decide.elements import distinct, vertices
from clarke.decide.exact import enumerate_exactly
from clarke.decide.flat import ChamberCells
from clarke.decide.limitset import Component, LimitSet
from clarke.decide.live import Live, find_live, norm_of_zero
from clarke.decide.membership import Member
from clarke.decide.minimum import (
    Slopes,
    is_piecewise_linear,
    slopes_of_list,
    slopes_of_regular,
)
from clarke.decide.regularset import RegularSet
from clarke.errors import BudgetError, UnsupportedError
from clarke.numerics import ARRAY_ENTRIES, HULL_RANK, SET_LISTED, SET_SMALL
from clarke.steering.cones import with_cones

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from clarke.deadline import Deadline
    from clarke.decide.limits import Limits
    from clarke.decide.minimum import Slope
    from clarke.kinks import Touch
    from clarke.steering import Program

    Array = NDArray[np.float64]

_UNPROVED = 200  # elements that may lie between the others


@dataclass(eq=False)
class Source:
    """A program and what is known of its set so far.

    Attributes:
        program: The program.
        limits: Budget of a list.
        seed: Of the private random generator.
        known: The list, once somebody asked for it.
    """

    program: Program
    limits: Limits
    seed: int
    known: LimitSet | None = None

    def generator(self) -> torch.Generator:
        """A fresh one, always the same."""
        return torch.Generator().manual_seed(self.seed)

    @cached_property
    def live(self) -> Live:
        """The kinks that can change the gradient, norms of zero among them."""
        return find_live(with_cones(self.program), self.generator())

    @cached_property
    def norm(self) -> Touch | None:
        """A norm that is taken of zero, where the gradient depends on it."""
        return norm_of_zero(self.program, self.generator(), self.live)

    @cached_property
    def regular(self) -> RegularSet | None:
        """The set without a list, where there are many kinks and all pieces bend one way."""
        if self.norm is None and self._pieces() <= SET_SMALL:
            return None
        return RegularSet.of(self.program, self.generator(), self.program.deadline)

    @cached_property
    def round(self) -> BallSet | None:
        """The set where norms are taken of zero and pieces bend both ways."""
        if self.norm is None or self.regular is not None:
            return None
        return BallSet.of(self.program, self.generator(), self.limits)

    @property
    def size(self) -> int:
        """How many variables there are, n."""
        return sum(p.numel() for p in self.program.point)

    @cached_property
    def is_piecewise_linear(self) -> bool:
        """Whether the function is, near the point."""
        return self.live.affine and is_piecewise_linear(with_cones(self.program), self.generator())

    def _pieces(self) -> int:
        """How many pieces could be taken instead of AD's, kink by kink."""
        total = 0
        for site in self.program.analysis.sites.values():
            touch = site.touch
            mine = self.live.kinks[site.first : site.first + touch.count]
            total += int(mine[touch.owner].sum()) - int(mine.sum())
        return total

    @property
    def either(self) -> RegularSet | BallSet | LimitSet:
        """What there is without a list, or the list."""
        without = self.regular or self.round
        if without is not None:
            return without
        return self.listed(self.program.deadline)

    def listed(self, deadline: Deadline) -> LimitSet:
        """The list.

        Raises:
            BudgetError: It is too long, or selections do not describe the program.
            UnsupportedError: Some gradient is not finite, or a ball of them are limits.
        """
        if self.norm is not None:
            raise UnsupportedError(_no_list(self.norm))
        if self.known is None:
            program = with_cones(self.program.within(deadline))
            found = enumerate_exactly(program, self.generator(), self.limits, self.live).limits
            if not found.finite:
                raise UnsupportedError(
                    "The set cannot be computed: autograd's gradient with fixed pieces is NaN or "
                    "infinite here. clarke.check names the operation and, where there is one, a "
                    "finite element."
                )
            self.known = found
        return self.known

    def count(self, deadline: Deadline) -> int:
        """How many combinations of pieces there are."""
        if self.known is None and self.norm is None:
            program = with_cones(self.program.within(deadline))
            found = count_combinations(program, self.live, self.generator(), self.limits)
            if found is not None:
                return found
        return self.listed(deadline).count


def _no_list(norm: Touch) -> str:
    return (
        f"{norm.op.shown} at {norm.op.location} is a norm of zero: the slopes of all directions "
        "are limits, as many as a sphere has points, and no list holds them. contains(), "
        "min_norm(), directional(), is_stationary(), frechet() and is_local_minimum() answer "
        "without one."
    )


def listed_elements(source: Source, allowed: Array, deadline: Deadline) -> Array:
    """(k, n) the distinct limiting gradients that are proved.

    Raises:
        BudgetError: They are too many for one array.
    """
    _require_few(source.count(deadline), source.size)
    limits = source.listed(deadline).certain()
    if limits is None:
        return np.zeros((0, source.size))
    points = limits.elements()
    return points[distinct(points, allowed, deadline)]


def _require_few(count: int, size: int) -> None:
    if count > SET_LISTED or count * size > ARRAY_ENTRIES:
        raise BudgetError(
            f"The set has {count} combinations of pieces, too many to list. contains(), "
            "min_norm() and directional() answer without listing them; stream() gives them one "
            "block after the other."
        )


def listed_vertices(source: Source, allowed: Array, deadline: Deadline) -> Array:
    """(k, n) those of them that are vertices of the hull.

    Raises:
        BudgetError: The limiting gradients are too many for one array.
    """
    if source.regular is not None:
        # Each is the only gradient around some direction, and largest there.
        return listed_elements(source, allowed, deadline)
    _require_few(source.count(deadline), source.size)
    limits = source.listed(deadline).certain()
    if limits is None:
        return np.zeros((0, source.size))
    kept = [c.restricted(_corners(c, allowed, deadline).tolist()) for c in limits.components]
    points = LimitSet(limits.base, tuple(kept)).elements()
    points = points[distinct(points, allowed, deadline)]
    if len(kept) == 1 or _are_independent(limits):
        return points
    return points[vertices(points, None, allowed, deadline)]


def is_hull_known(limits: LimitSet, allowed: Array, deadline: Deadline) -> bool:
    """Whether what is not proved lies between what is, up to rounding.

    Of planes that meet in a line but for rounding, a cell is left that may be there or not.
    """
    certain = limits.certain()
    if certain is None:
        return False
    zero = np.zeros(limits.size)
    for whole, proved in zip(limits.components, certain.components, strict=True):
        left = np.setdiff1d(np.arange(len(whole.changes)), whole.certain())
        if len(left) > _UNPROVED:
            return False
        hull = LimitSet(zero, (proved,))
        for change in whole.changes[left]:
            if not hull.place(change, allowed, deadline).inside:
                return False
    return True


def _corners(component: Component, allowed: Array, deadline: Deadline) -> NDArray[np.intp]:
    """The cells whose changes are vertices of a component's hull, one for each."""
    first = distinct(component.changes, allowed, deadline)
    if isinstance(component.cells, ChamberCells):
        directions = component.cells.directions[first]
    else:
        found = [component.cells[i].direction for i in first.tolist()]
        size = component.changes.shape[1]
        directions = np.stack([np.zeros(size) if d is None else d for d in found])
    return first[vertices(component.changes[first], directions, allowed, deadline)]


def _are_independent(limits: LimitSet) -> bool:
    """Whether the components lie in independent spaces: sums of vertices are vertices then."""
    parts = [c.changes - c.changes.mean(axis=0) for c in limits.components]
    parts = [p / (np.abs(p).max() or 1.0) for p in parts]
    bases = []
    for part in parts:
        _, sizes, axes = np.linalg.svd(part, full_matrices=False)
        bases.append(axes[sizes > HULL_RANK * max(sizes[0], 1.0)])
    whole = np.concatenate(bases)
    return not len(whole) or bool(
        len(whole) <= limits.size and np.linalg.svd(whole, compute_uv=False)[-1] > HULL_RANK
    )


def rank_of(limits: LimitSet) -> Rank | None:
    """The rank of all kinks' rows, or None where some are not simple hyperplanes."""
    parts = [c.cells.rank for c in limits.components if isinstance(c.cells, ChamberCells)]
    return Rank.joined(parts) if len(parts) == len(limits.components) else None


# ---------------------------------------------------------------- membership


def placed(source: Source, target: Array, allowed: Array, deadline: Deadline) -> Member:
    """Where a vector lies when every entry may be off by its own bound."""
    blank = Member(
        inside=None,
        distance=0.0,
        elements=np.zeros((0, len(target))),
        weights=np.zeros(0),
        direction=None,
        allowed=allowed,
        exact=not source.limits.rounding,
        regular=source.regular is not None,
    )
    if source.regular is not None:
        return _placed_in_regular(blank, source.regular, target, deadline)
    if source.round is not None:
        return _placed_in_balls(blank, source.round, target, deadline)
    return _placed_in_listed(blank, source.listed(deadline), target, deadline)


def _placed_in_listed(blank: Member, limits: LimitSet, target: Array, deadline: Deadline) -> Member:
    allowed = blank.allowed
    certain = limits.certain()
    near = None if certain is None else certain.place(target, allowed, deadline)
    if certain is not None and near is not None and near.inside:
        elements = np.stack([certain.element(a) for a in near.atoms])
        weights = np.asarray(near.weights)
        distance = float(np.linalg.norm(weights @ elements - target))
        inside = replace(blank, inside=True, distance=distance, elements=elements, weights=weights)
        return replace(inside, atoms=near.atoms)
    far = limits.place(target, allowed, deadline)
    distance = far.distance if near is None or far.inside is False else near.distance
    decided = None if far.direction is None else False
    return replace(blank, inside=decided, distance=distance, direction=far.direction)


def granted_more(
    source: Source, found: Member, target: Array, more: Array, deadline: Deadline
) -> Member:
    """The same question when entries may be off by more."""
    allowed = found.allowed + more
    known, d = source.regular, found.direction
    if known is None or d is None:
        return placed(source, target, allowed, deadline)
    if known.gap(target, d) > float(np.abs(d) @ allowed):
        return replace(found, allowed=allowed)
    return placed(source, target, allowed, deadline)


def _placed_in_regular(
    blank: Member, found: RegularSet, target: Array, deadline: Deadline
) -> Member:
    place = found.place(target, blank.allowed, deadline)
    near, distance = place.nearest, place.distance
    if not place.inside:
        return replace(blank, inside=place.inside, distance=distance, direction=place.direction)
    elements = np.stack([found.element(s) for s in near.shares])
    inside = replace(blank, inside=True, distance=distance, elements=elements)
    return replace(inside, weights=near.weights, shares=near.shares)


def _placed_in_balls(blank: Member, found: BallSet, target: Array, deadline: Deadline) -> Member:
    place = found.place(target, blank.allowed, deadline)
    if not place.inside:
        inside, away = place.inside, place.distance
        return replace(blank, inside=inside, distance=away, direction=place.direction)
    return replace(
        blank,
        inside=True,
        distance=place.distance,
        elements=np.stack([w.element for w in place.ways]),
        weights=place.weights,
        atoms=tuple((w.cell,) for w in place.ways),
        directions=np.stack([w.direction for w in place.ways]),
    )


def slopes_around(source: Source, allowed: Array, slope: Slope, deadline: Deadline) -> Slopes:
    """What directional derivatives at the point say."""
    found = slopes_of_regular(source, allowed, slope, deadline)
    if found is None and source.norm is not None:
        return Slopes(None, None, flat=False)
    if found is None:
        found = slopes_of_list(source.listed(deadline), allowed, slope, deadline)
    return found


def smallest_element(source: Source, deadline: Deadline) -> tuple[torch.Tensor, ...]:
    """The element of smallest norm.

    Raises:
        BudgetError: It was not found to within what is allowed.
    """
    if source.round is not None:
        point = source.round.smallest(deadline)
    elif source.regular is None:
        limits = source.listed(deadline)
        point = limits.nearest(np.zeros(limits.size), deadline).point
    else:
        point = source.regular.smallest(deadline).point
    return unflatten(point, source.program.point)
