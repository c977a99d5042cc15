"""Convex hulls of finitely many points: nearest point, membership, strict separation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from clarke.deadline import UNLIMITED, Deadline
from clarke.feasibility.exact_hull import verify_membership, verify_separation
from clarke.feasibility.nearest import (
    largest_entry,
    moderating_power,
    nearest_candidates,
    scale,
)
from clarke.feasibility.outcome import FloatArray
from clarke.numerics import HULL_TOLERANCE, NORM_NONE, PROJECTION_GAIN

_BLOCK = 1 << 22  # entries held at once beside the points


@dataclass(frozen=True, eq=False)
class Separation:
    """A hyperplane strictly between a target and the convex hull of points in R^n.

    Attributes:
        direction: (n,), Euclidean length 1 up to rounding, from the nearest point of the hull
            towards the target.
        gap: <direction, target> - max <direction, point>: a lower bound of the distance.
        distance: Euclidean distance from the target to the hull: the length to the nearest point.
    """

    direction: FloatArray
    gap: float
    distance: float


def minimum_norm_point(points: ArrayLike, deadline: Deadline = UNLIMITED) -> FloatArray:
    """Convex weights of the point of conv(points) with the smallest Euclidean norm (Wolfe 1976).

    Args:
        points: (k, n), k >= 1, finite.
        deadline: when to give up.

    Returns:
        w, (k,), w >= 0, sum 1 up to rounding; the point is ``points.T @ w``. At most n + 1 are
        non-zero.

    Raises:
        ValueError: if there are no points or one is not finite.
        RuntimeError: if the active-set iteration does not end (never seen).
    """
    array = _points(points)
    origin = np.zeros(array.shape[1])
    power = moderating_power(largest_entry(array))
    largest = float(np.ldexp(largest_entry(array), power))
    best, length = None, np.inf
    for weights in nearest_candidates(array, origin, deadline):
        nearest = scale(weights @ array, power)
        norm = float(np.linalg.norm(nearest))
        if norm < length:
            best, length = weights, norm
        if (
            norm <= NORM_NONE * largest
            or _gap(array, origin, -nearest / norm, power) >= (1 - PROJECTION_GAIN) * norm
        ):
            break
    if best is None:
        deadline.ask("projecting onto a hull")
        raise RuntimeError("The minimum-norm point was not found; rescale or merge the points.")
    return best


def convex_weights(
    points: ArrayLike,
    target: ArrayLike,
    *,
    tolerance: float = HULL_TOLERANCE,
    allowed: ArrayLike | None = None,
    deadline: Deadline = UNLIMITED,
) -> FloatArray | None:
    """Weights that write the target as a convex combination of the points, or ``None``.

    Args:
        points: (k, n).
        target: (n,).
        tolerance: largest error of a coordinate, relative to the largest absolute entry among the
            points used and the target.
        allowed: (n,), the largest error of each coordinate, in place of the tolerance.
        deadline: when to give up.

    Returns:
        w, (k,), accepted by :func:`verify_membership` at this tolerance. ``None`` says that none
        was found; :func:`separating_direction` proves that there is none.

    Raises:
        ValueError: if shapes do not match or an entry is not finite.
    """
    array = _points(points)
    goal = _target(target, array)
    if allowed is None:
        for weights in nearest_candidates(array, goal, deadline):
            if verify_membership(array, weights, goal, tolerance, deadline=deadline):
                return weights
        return None
    room = np.asarray(allowed, dtype=np.float64)
    moved = _moved(array, goal, room)
    for weights in nearest_candidates(moved, np.zeros(len(goal)), deadline):
        if verify_membership(array, weights, goal, allowed=room, deadline=deadline):
            return weights
    return None


def _moved(points: FloatArray, target: FloatArray, allowed: FloatArray) -> FloatArray:
    """Points seen from a target, each coordinate in its own size; zero where all are within reach.

    A coordinate of size 1 then counts beside one of size 1e8 that all points share.
    """
    moved = points - target
    sizes = np.abs(moved).max(axis=0)
    found: FloatArray = np.where(sizes > allowed, moved / np.where(sizes > 0, sizes, 1.0), 0.0)
    return found


def separating_direction(
    points: ArrayLike,
    target: ArrayLike,
    *,
    tolerance: float = HULL_TOLERANCE,
    deadline: Deadline = UNLIMITED,
) -> Separation | None:
    """A direction that strictly separates the target from conv(points), by projection onto it.

    Args:
        points: (k, n).
        target: (n,).
        tolerance: the smallest gap to accept, relative to the largest absolute entry, so that
            rounding in the points cannot pass for separation.
        deadline: when to give up.

    Returns:
        A separation accepted by :func:`verify_separation`, or ``None`` if none was found;
        :func:`convex_weights` proves that there is none.

    Raises:
        ValueError: if shapes do not match or an entry is not finite.
    """
    array = _points(points)
    goal = _target(target, array)
    largest = max(largest_entry(array), largest_entry(goal))
    power = moderating_power(largest)  # all lengths below are times 2**power
    required = tolerance * float(np.ldexp(largest, power))
    best: Separation | None = None
    moderate = scale(array, power)  # before the sum: weights that add up to 1 + 2^-53 overflow
    for weights in nearest_candidates(array, goal, deadline):
        direction = scale(goal, power) - weights @ moderate
        distance = float(np.linalg.norm(direction))
        if not distance > 0:
            continue
        direction = direction / distance
        gap = _gap(array, goal, direction, power)
        better = gap > required and (best is None or gap > best.gap)
        if better and verify_separation(array, goal, direction):
            best = Separation(direction, gap, distance)
        if gap >= (1 - PROJECTION_GAIN) * distance:
            break
    if best is None:
        return None
    with np.errstate(over="ignore"):  # a distance beyond float64 is infinite
        gap, distance = float(np.ldexp(best.gap, -power)), float(np.ldexp(best.distance, -power))
    return Separation(best.direction, gap, distance)


def _gap(points: FloatArray, target: FloatArray, direction: FloatArray, power: int) -> float:
    """Smallest over the points of <direction, target - point>, times 2**power."""
    goal, step = scale(target, power), max(1, _BLOCK // max(1, len(target)))
    smallest = np.inf
    for start in range(0, len(points), step):
        difference = goal - scale(points[start : start + step], power)
        smallest = min(smallest, float((difference @ direction).min()))
    return smallest


def _points(points: ArrayLike) -> FloatArray:
    array = np.asarray(points, dtype=np.float64)
    if array.ndim != 2 or len(array) == 0:
        raise ValueError(f"points must have shape (k, n) with k >= 1, got {array.shape}.")
    if not np.isfinite(array).all():
        raise ValueError("points must be finite: drop or report NaN and infinite ones first.")
    return array


def _target(target: ArrayLike, points: FloatArray) -> FloatArray:
    goal = np.asarray(target, dtype=np.float64)
    if goal.shape != (points.shape[1],):
        raise ValueError(f"target must have shape ({points.shape[1]},), got {goal.shape}.")
    if not np.isfinite(goal).all():
        raise ValueError("target must be finite: a NaN or infinite gradient is in no hull.")
    return goal
