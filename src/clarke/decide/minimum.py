"""Whether a point is a local minimum, as far as directional derivatives tell."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.optimize import linprog, nnls

from clarke.constraints import tangent
from clarke.constraints.nearby import nearby_points
from clarke.constraints.relevance import Mixing, random_mixtures
from clarke.decide.live import primal
from clarke.decide.mixed import joint_direction
from clarke.errors import UnsupportedError
from clarke.feasibility import find_witness
from clarke.numerics import JUMP_ROUNDINGS, MINIMUM_FLAT, VALUES_SAME
from clarke.tangents import forward_mode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from numpy.typing import NDArray

    from clarke.deadline import Deadline
    from clarke.decide.limitset import LimitSet
    from clarke.decide.source import Source
    from clarke.steering import Program

    Array = NDArray[np.float64]
    Slope = Callable[[Array, Deadline], float]  # the directional derivative

_PARTLY = 4
_FARTHEST = 1000  # powers of two whose reciprocals are floats


@dataclass(frozen=True)
class Slopes:
    """What directional derivatives at the point say.

    Attributes:
        rises: All are positive (True), some are zero or negative (False); None: not known.
        falls: A direction with a negative one, or None.
        flat: No direction has a negative one.
    """

    rises: bool | None
    falls: Array | None
    flat: bool


@dataclass(frozen=True, eq=False)
class LocalMinimum:
    """Whether the function is nowhere smaller near the point.

    Attributes:
        minimum: It is (True), it is not (False), or that is not known (None).
        strict: It grows in every direction (True), not in every (False), or that is not known.
        descent: If it is no minimum, one tensor per variable along which the function falls.
        slope: The directional derivative along `descent`.
        order: Slopes told it (1): a strict minimum is sharp then, growing linearly. Or curvature
            did (2), or neither (None).
        curvature: Where the slope is zero, the second derivative along `descent`.
    """

    minimum: bool | None
    strict: bool | None
    descent: tuple[torch.Tensor, ...] | None
    slope: float
    order: int | None
    curvature: float = 0.0

    def __bool__(self) -> bool:
        if self.minimum is None:
            raise UnsupportedError(
                "Whether the point is a local minimum is undecided: slopes and curvature do not "
                "tell. Look at .minimum, which is None."
            )
        return self.minimum


def slopes_of_list(limits: LimitSet, allowed: Array, slope: Slope, deadline: Deadline) -> Slopes:
    """The smallest slope in every cell, by a linear program over its directions of size one.

    What it takes for a direction of descent may be one just outside of the cell: it counts if the
    function falls along it. Variables are measured in units in which their slopes are of size one.
    """
    rises = flat = True
    units = units_of(limits)
    allowed, own = allowed * units, allowed
    for rows, gradient in _cells(limits, units):
        deadline.ask("looking for a direction of descent in {} cells", limits.count)
        lowest, direction = _lowest(rows, gradient)
        room = float(np.abs(direction) @ allowed) + MINIMUM_FLAT * float(np.abs(gradient).max())
        within = None
        if lowest < -room:
            within = find_witness(np.concatenate([rows, -gradient[None]]), deadline=deadline)
            inside = within.direction
            ways = [direction * units, None if inside is None else inside * units]
            down = falling(ways, own, slope, deadline)
            if down is not None:
                return Slopes(False, down, flat=False)
        refused = within is not None and within.exact_multipliers is not None
        flat = flat and (refused or _is_flat(rows, gradient, allowed))
        rises = rises and _rises(rows, gradient, allowed)
    return Slopes(rises, None, flat=rises or flat)


def falling(
    directions: Iterable[Array | None], allowed: Array, slope: Slope, deadline: Deadline
) -> Array | None:
    """The first unit vector along which the function falls by more than rounding."""
    for direction in directions:
        if direction is None or not np.any(direction):
            continue
        unit: Array = direction / float(np.linalg.norm(direction))
        if slope(unit, deadline) < -float(np.abs(unit) @ allowed):
            return unit
    return None


def _is_flat(rows: Array, gradient: Array, allowed: Array) -> bool:
    """Whether a cell's gradient is a sum of its rows but for rounding: no slope is negative.

    What a linear program takes for zero may be a slope that is slight.
    """
    if not len(rows):
        return bool((np.abs(gradient) <= allowed).all())
    units = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    try:
        shares, _ = nnls(units.T, gradient)
    except RuntimeError:
        return False
    room = allowed + JUMP_ROUNDINGS * (np.abs(gradient) + np.abs(units).T @ shares)
    return bool((np.abs(units.T @ shares - gradient) <= room).all())


def units_of(limits: LimitSet) -> Array:
    """(n,) powers of two by which to multiply variables, so that no slope is far from another."""
    sizes = np.abs(limits.base)
    for c in limits.components:
        sizes = sizes + np.abs(c.changes).max(axis=0)
    powers = np.clip(np.frexp(np.where(sizes > 0, sizes, 1.0))[1], -_FARTHEST, _FARTHEST)
    found: Array = np.ldexp(1.0, -powers)
    return found


def _cells(limits: LimitSet, units: Array) -> Iterator[tuple[Array, Array]]:
    for atom, own in limits.combinations():
        yield joint_direction(own, limits.size)[1] * units, limits.element(atom) * units


def _lowest(rows: Array, gradient: Array) -> tuple[float, Array]:
    """The smallest slope in a cell, and a direction of entries up to 1 that has it."""
    units = rows / np.linalg.norm(rows, axis=1, keepdims=True) if len(rows) else rows
    found = linprog(
        gradient, A_ub=-units, b_ub=np.zeros(len(units)), bounds=(-1.0, 1.0), method="highs"
    )
    return (float(found.fun), found.x) if found.x is not None else (-np.inf, 0 * gradient)


def _rises(rows: Array, gradient: Array, allowed: Array) -> bool:
    """Whether the slope is positive along every direction of a closed cell."""
    size = len(gradient)
    if not len(rows) or np.linalg.matrix_rank(rows) < size:
        return False  # along a line in the cell the slope changes its sign, or is zero
    units = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    found = linprog(
        gradient,
        A_ub=-units,
        b_ub=np.zeros(len(units)),
        A_eq=units.sum(axis=0)[None],
        b_eq=np.ones(1),
        bounds=(None, None),
        method="highs",
    )
    if found.x is None:
        return False
    room = float(np.abs(found.x) @ allowed)
    return float(found.fun) > room + MINIMUM_FLAT * float(np.abs(gradient) @ np.abs(found.x))


def slopes_of_regular(
    source: Source, allowed: Array, slope: Slope, deadline: Deadline
) -> Slopes | None:
    """The same where all pieces bend one way; None where this is not such a set, or unclear."""
    known = source.regular
    if known is None:
        return None
    if not bool(known.convex_entries().all()):
        down = falling([known.downhill(deadline)], allowed, slope, deadline)
        return None if down is None else Slopes(False, down, flat=False)
    place = known.place(np.zeros(known.size), allowed, deadline)
    if place.inside is None:
        return None
    if not place.inside:
        down = falling([known.downhill(deadline), place.direction], allowed, slope, deadline)
        return None if down is None else Slopes(False, down, flat=False)
    return Slopes(known.zero_inside(allowed, deadline), None, flat=True)


def is_piecewise_linear(program: Program, generator: torch.Generator) -> bool:
    """Whether the result is affine under every selection, tried at random mixtures and points.

    Switching functions and candidates are known to be (`Live.affine`).
    """
    weights, _ = random_mixtures(program, generator, Mixing.ALL)
    for moved in nearby_points(program, generator, 2, _PARTLY):
        step = tuple(a - b for a, b in zip(moved, program.point, strict=True))
        there = program.run(moved, weights=weights, grad=False).output
        with forward_mode():
            here = program.run(weights=weights, tangents=step, grad=False).output
            gap = abs(float(primal(here) + tangent(here) - there.detach()))
            size = abs(float(there)) + abs(float(tangent(here)))
        if gap > VALUES_SAME * max(size, 1.0):
            return False
    return True
