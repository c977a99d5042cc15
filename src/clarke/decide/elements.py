"""Lists of limiting gradients: which are distinct, and which are vertices of the hull."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from clarke.decide.extreme import vertex_indices
from clarke.numerics import FLOPS, VERTEX_TOLERANCE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from clarke.deadline import Deadline

    Array = NDArray[np.float64]
    Index = NDArray[np.intp]

_BLOCK = 1 << 24  # inner products at a time


def distinct(points: Array, allowed: Array, deadline: Deadline) -> Index:
    """Which rows of (k, n) points to keep, up to what entries may be off, in order of appearance.

    Rows that are equal have nearly equal inner products with any vector: only those that follow
    each other in that order are compared.
    """
    if len(points) < 2:
        return np.arange(len(points))
    deadline.ask("telling {} elements apart", len(points))
    sizes = np.abs(points).max(axis=0)
    apart = sizes > allowed  # in the others all rows are equal
    units = np.where(apart, sizes, 1.0)
    random = np.random.default_rng(0).uniform(0.5, 1.0, points.shape[1])
    weights = np.where(apart, random / units, 0.0)
    values = points @ weights
    order = np.argsort(values, kind="stable")
    room = 2 * float(allowed @ weights) + 4 * len(sizes) * np.finfo(np.float64).eps * len(sizes)
    ends = np.flatnonzero(np.diff(values[order]) > room) + 1
    keep = np.ones(len(points), dtype=bool)
    starts = np.concatenate([[0], ends, [len(points)]])
    for i in np.flatnonzero(np.diff(starts) > 1).tolist():
        deadline.ask("telling {} elements apart", len(points))
        _keep_first(points, np.sort(order[starts[i] : starts[i + 1]]), allowed, keep)
    return np.flatnonzero(keep)


def _keep_first(points: Array, group: Index, allowed: Array, keep: NDArray[np.bool_]) -> None:
    """Of rows that are equal the first is kept."""
    left = group
    while len(left):
        first, left = left[0], left[1:]
        same = (np.abs(points[left] - points[first]) <= 2 * allowed).all(axis=1)
        keep[left[same]] = False
        left = left[~same]


def vertices(points: Array, directions: Array | None, allowed: Array, deadline: Deadline) -> Index:
    """Which of some distinct points are vertices of their hull.

    A point is one for certain when some direction puts it before all others by more than rounding.
    The direction in which it is the gradient is tried first: of a convex function it always does.

    Args:
        points: (k, n), distinct.
        directions: (k, n) a direction for each, if there are.
        allowed: (n,) what entries may be off.
        deadline: Asked all the time.
    """
    if directions is None or len(points) < 2:
        return np.array(vertex_indices(points, VERTEX_TOLERANCE, deadline), dtype=np.intp)
    clear = np.zeros(len(points), dtype=bool)
    room = 4 * allowed
    step = max(_BLOCK // len(points), 1)
    for sign in (1.0, -1.0):
        rest = np.flatnonzero(~clear)
        for start in range(0, len(rest), step):
            block = rest[start : start + step]
            cost = 2.0 * len(block) * points.size / FLOPS
            deadline.afford(cost, "telling vertices: {} of {} points", start, len(points))
            ahead = sign * directions[block]
            values = ahead @ points.T
            own = values[np.arange(len(block)), block].copy()
            values[np.arange(len(block)), block] = -np.inf
            clear[block] |= own - values.max(axis=1) > np.abs(ahead) @ room
        if bool(clear.all()):
            return np.arange(len(points))
    return np.array(
        vertex_indices(points, VERTEX_TOLERANCE, deadline, np.flatnonzero(clear)), dtype=np.intp
    )
