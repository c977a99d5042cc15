"""Convex hulls of finitely many points: nearest point, membership, strict separation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from clarke.feasibility.exact_hull import verify_membership, verify_separation
from clarke.feasibility.nearest import RESOLUTIONS, coordinates, refine, weights_of_nearest
from clarke.feasibility.outcome import FloatArray

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


def minimum_norm_point(points: ArrayLike) -> FloatArray:
    """Convex weights of the point of conv(points) with the smallest Euclidean norm (Wolfe 1976).

    Args:
        points: (k, n), k >= 1, finite.

    Returns:
        w, (k,), w >= 0, sum 1 up to rounding; the point is ``points.T @ w``. At most n + 1 are
        non-zero.

    Raises:
        ValueError: if there are no points or one is not finite.
        RuntimeError: if the active-set iteration does not end (never seen).
    """
    array = _points(points)
    origin = np.zeros(array.shape[1])
    largest = float(np.abs(array).max(initial=0.0))
    best, length = None, np.inf
    for weights in _candidates(array, origin):
        nearest = weights @ array
        norm = _length(nearest)
        if norm < length:
            best, length = weights, norm
        if norm <= 1e-15 * largest or _gap(array, origin, -nearest / norm) >= (1 - 1e-9) * norm:
            break
    if best is None:
        raise RuntimeError("The minimum-norm point was not found; rescale or merge the points.")
    return best


def convex_weights(
    points: ArrayLike, target: ArrayLike, *, tolerance: float = 1e-9
) -> FloatArray | None:
    """Weights that write the target as a convex combination of the points, or ``None``.

    Args:
        points: (k, n).
        target: (n,).
        tolerance: largest error of a coordinate, relative to the largest absolute entry among the
            points used and the target.

    Returns:
        w, (k,), accepted by :func:`verify_membership` at this tolerance. ``None`` says that none
        was found; :func:`separating_direction` proves that there is none.

    Raises:
        ValueError: if shapes do not match or an entry is not finite.
    """
    array = _points(points)
    goal = _target(target, array)
    for weights in _candidates(array, goal):
        if verify_membership(array, weights, goal, tolerance):
            return weights
    return None


def separating_direction(
    points: ArrayLike, target: ArrayLike, *, tolerance: float = 1e-9
) -> Separation | None:
    """A direction that strictly separates the target from conv(points), by projection onto it.

    Args:
        points: (k, n).
        target: (n,).
        tolerance: the smallest gap to accept, relative to the largest absolute entry, so that
            rounding in the points cannot pass for separation.

    Returns:
        A separation accepted by :func:`verify_separation`, or ``None`` if none was found;
        :func:`convex_weights` proves that there is none.

    Raises:
        ValueError: if shapes do not match or an entry is not finite.
    """
    array = _points(points)
    goal = _target(target, array)
    # Work on a copy of the scale, not of the points: all lengths below are times 2**shift.
    largest = max(float(np.abs(array).max(initial=0.0)), float(np.abs(goal).max(initial=0.0)))
    shift = -int(np.frexp(largest)[1])
    required = tolerance * float(np.ldexp(largest, shift))
    best: Separation | None = None
    for weights in _candidates(array, goal):
        support = np.flatnonzero(weights)
        direction = np.ldexp(goal, shift) - weights[support] @ np.ldexp(array[support], shift)
        distance = _length(direction)
        if not distance > 0:
            continue
        direction = direction / distance
        gap = _gap(array, goal, direction, shift)
        better = gap > required and (best is None or gap > best.gap)
        if better and verify_separation(array, goal, direction):
            best = Separation(direction, gap, distance)
        if gap >= (1 - 1e-9) * distance:
            break
    if best is None:
        return None
    gap, distance = float(np.ldexp(best.gap, -shift)), float(np.ldexp(best.distance, -shift))
    return Separation(best.direction, gap, distance)


def _candidates(points: FloatArray, origin: FloatArray) -> Iterator[FloatArray]:
    """Weights of the hull's point nearest to the origin, at increasing resolution."""
    reduced, _ = coordinates(points, origin)
    for resolution in RESOLUTIONS:
        weights = weights_of_nearest(reduced, resolution)
        if weights is None:
            continue
        yield weights
        refined = refine(points, origin, weights)
        if refined is not weights:
            yield refined


def _gap(points: FloatArray, target: FloatArray, direction: FloatArray, shift: int = 0) -> float:
    """Smallest over the points of <direction, target - point>, times 2**shift."""
    goal, step = np.ldexp(target, shift), max(1, _BLOCK // max(1, len(target)))
    return min(
        float(((goal - np.ldexp(points[start : start + step], shift)) @ direction).min())
        for start in range(0, len(points), step)
    )


def _length(vector: FloatArray) -> float:
    """Euclidean length without overflow."""
    shift = -int(np.frexp(float(np.abs(vector).max(initial=0.0)))[1])
    return float(np.ldexp(np.linalg.norm(np.ldexp(vector, shift)), -shift))


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
