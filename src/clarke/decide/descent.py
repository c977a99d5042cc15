"""Directions along which a function falls to first order, and what its slopes lie above."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from clarke.constraints import unflatten
from clarke.decide.flat import ChamberCells
from clarke.decide.minimum import units_of
from clarke.decide.mixed import joint_direction
from clarke.errors import OutOfTimeError, UnsupportedError
from clarke.feasibility import find_witness

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch
    from numpy.typing import NDArray

    from clarke.deadline import Deadline
    from clarke.decide.certificate import Certificate
    from clarke.decide.limitset import LimitSet
    from clarke.decide.minimum import Slope
    from clarke.decide.source import Source

    Array = NDArray[np.float64]

_TRIED = 32  # random directions, and those of entries, that may lie below a vector
_LOOKED_AT = 200  # cells in which a direction of descent is looked for beyond their own


@dataclass(frozen=True, eq=False)
class Stationarity:
    """Whether zero is in the set, and where to go if the function still decreases.

    Attributes:
        stationary: Zero is a Clarke gradient (None: undecided).
        descent: One tensor per variable along which the function decreases to first order, or
            None if none was found.
        slope: The directional derivative along `descent`.
        certificate: Of whether zero is one; `Subdifferential.certificate` has that of a slope.
    """

    stationary: bool | None
    descent: tuple[torch.Tensor, ...] | None
    slope: float
    certificate: Certificate | None = field(default=None, repr=False)

    def __bool__(self) -> bool:
        if self.stationary is None:
            raise UnsupportedError(
                "Whether zero is in the set is undecided: rounding decides, or selections that "
                "could be neither proved nor excluded. Look at .stationary, which is None."
            )
        return self.stationary

    def __str__(self) -> str:
        told = {True: "stationary", False: "not stationary", None: "undecided"}[self.stationary]
        if self.descent is None:
            return told
        return f"{told}; falls with slope {self.slope:.4g} along .descent"


@dataclass(frozen=True, eq=False)
class Frechet:
    """Whether a vector is a Frechet (regular) subgradient: no slope is less than its own.

    Attributes:
        inside: It is (True), it is not (False); None: rounding decides, or cells that are unproved.
        direction: If it is not, one tensor per variable: a unit direction along which the function
            falls below the vector's linear function.
        excess: The directional derivative less the vector's inner product, along it.
    """

    inside: bool | None
    direction: tuple[torch.Tensor, ...] | None
    excess: float

    def __bool__(self) -> bool:
        if self.inside is None:
            raise UnsupportedError(
                "Undecided here: rounding decides, or selections that could be neither proved nor "
                "excluded. Look at .inside, which is None."
            )
        return self.inside


def stationarity(
    source: Source, allowed: Array, slope: Slope, deadline: Deadline, *, inside: bool | None
) -> Stationarity:
    """The steepest descent among some directions, beyond rounding."""
    convex = source.regular
    if inside and convex is not None and bool(convex.convex_entries().all()):
        return Stationarity(True, None, 0.0)  # its slopes are the largest of products with elements
    best: tuple[float, float, Array] | None = None
    with suppress(OutOfTimeError):
        for direction in descent_candidates(source, deadline):
            norm = float(np.linalg.norm(direction))
            if norm == 0:
                continue
            unit = direction / norm
            own = slope(unit, deadline)
            beyond = own + float(np.abs(unit) @ allowed)
            if best is None or beyond < best[0]:
                best = (beyond, own, unit)
    if best is None or best[0] >= 0:
        return Stationarity(inside, None, 0.0)
    return Stationarity(inside, unflatten(best[2], source.program.point), best[1])


def frechet(
    source: Source, vector: Array, allowed: Array, slope: Slope, deadline: Deadline
) -> Frechet:
    """Whether all directional derivatives lie above a vector's.

    Of a convex function that is membership. In every cell the slope is linear, so that each is one
    linear system: it has a direction below, or multipliers that write the difference of gradients
    as a sum of the cell's rows.
    """
    convex = source.regular
    if convex is not None and bool(convex.convex_entries().all()):
        place = convex.place(vector, allowed, deadline)
        if place.direction is None:
            return Frechet(place.inside, None, 0.0)
        excess = slope(place.direction, deadline) - float(vector @ place.direction)
        return Frechet(False, unflatten(place.direction, source.program.point), excess)
    if source.norm is not None:
        return _below(source, vector, allowed, slope, deadline)
    limits = source.listed(deadline)
    known, units = all(c.complete for c in limits.components), units_of(limits)
    for atom, own in limits.combinations():
        deadline.ask("comparing slopes in {} cells", limits.count)
        rows, above = joint_direction(own, limits.size)[1], limits.element(atom) - vector
        if bool((np.abs(above) <= allowed).all()):
            continue
        found = find_witness(np.concatenate([rows, -above[None]]) * units, deadline=deadline)
        if found.direction is not None:
            unit = found.direction * units
            unit /= float(np.linalg.norm(unit))
            excess = slope(unit, deadline) - float(vector @ unit)
            if excess < -float(np.abs(unit) @ allowed):
                return Frechet(False, unflatten(unit, source.program.point), excess)
        known = known and found.exact_multipliers is not None
    return Frechet(True if known else None, None, 0.0)


def _below(
    source: Source, vector: Array, allowed: Array, slope: Slope, deadline: Deadline
) -> Frechet:
    """A direction below a vector, among some; where there is no list, nothing else is known."""
    generator = np.random.default_rng(0)
    ways = [*np.eye(source.size), *generator.standard_normal((_TRIED, source.size))]
    for way in ways[: 2 * _TRIED]:
        for d in (way, -way):
            unit = d / float(np.linalg.norm(d))
            excess = slope(unit, deadline) - float(vector @ unit)
            if excess < -float(np.abs(unit) @ allowed):
                return Frechet(False, unflatten(unit, source.program.point), excess)
    return Frechet(None, None, 0.0)


def descent_candidates(source: Source, deadline: Deadline) -> Iterator[Array]:
    """Directions that may go down: steepest descent of the hull, then cell by cell."""
    if source.regular is not None:
        yield source.regular.downhill(deadline)
        nothing = np.zeros(source.size)
        apart = source.regular.place(nothing, nothing, deadline).direction
        if apart is not None:
            yield apart
        return
    if source.round is not None:
        yield from source.round.downhill(deadline)
        return
    limits = source.listed(deadline).certain()
    if limits is None:
        return
    yield -limits.nearest(np.zeros(limits.size), deadline).point
    units = units_of(limits)
    if len(limits.components) > 1:
        yield from _joint_descent(limits, units, deadline)
        return
    cells = limits.components[0].cells
    if isinstance(cells, ChamberCells):
        slopes = np.einsum("ij,ij->i", cells.gradients, cells.directions)
        order = np.argsort(slopes)[:_LOOKED_AT].tolist()
    else:
        order = list(range(len(cells)))
    for i in order:
        cell = cells[i]
        if cell.direction is not None:
            yield from _downhill(cell.rows, cell.gradient, cell.direction, units, deadline)


def _joint_descent(limits: LimitSet, units: Array, deadline: Deadline) -> Iterator[Array]:
    if limits.count > _LOOKED_AT:
        # Component by component: the cell with the steepest own descent.
        picked = []
        for c in limits.components:
            slopes = [_slope(cell.direction, g) for cell, g in zip(c.cells, c.changes, strict=True)]
            picked.append(c.cells[int(np.argmin(slopes))])
        yield joint_direction(picked, limits.size)[0]
        return
    for atom, own in limits.combinations():
        direction, rows = joint_direction(own, limits.size)
        yield from _downhill(rows, limits.element(atom), direction, units, deadline)


def _slope(direction: Array | None, gradient: Array) -> float:
    return float("inf") if direction is None else float(direction @ gradient)


def _downhill(
    rows: Array, gradient: Array, inside: Array, units: Array, deadline: Deadline
) -> list[Array]:
    """A direction in a cell along which its own gradient descends, if there is one."""
    if float(gradient @ inside) < 0:
        return [inside]
    stacked = np.concatenate([rows, -gradient[None, :]])
    if not np.any(gradient):
        return []
    outcome = find_witness(stacked * units, deadline=deadline)
    return [] if outcome.direction is None else [outcome.direction * units]
