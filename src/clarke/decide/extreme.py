"""The vertices of the convex hull of finitely many points."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial import ConvexHull, QhullError

from clarke.deadline import UNLIMITED, Deadline
from clarke.feasibility import convex_weights
from clarke.numerics import HULL_CLEAR, HULL_RANK

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

_FLAT = 3  # up to this dimension Qhull is fast for any number of points
_ROOM = 6
_FEW = 300
_BLOCK = 512


def vertex_indices(
    points: Array,
    tolerance: float,
    deadline: Deadline = UNLIMITED,
    known: NDArray[np.intp] | None = None,
) -> list[int]:
    """Which of the points are vertices of their hull, in order.

    Qhull proposes candidates in the affine hull of the points, where that has few dimensions. A
    candidate counts when some direction puts it strictly before all other points, or when a
    linear program finds it outside of the hull of the others.

    Args:
        points: (k, n), distinct.
        tolerance: Distance, relative to the points' width, at which a point counts as inside of
            the others' hull.
        deadline: Asked before every linear program.
        known: Points that are vertices for certain.
    """
    deadline.ask("computing a convex hull")
    # Every coordinate in its own width: one of size 1 counts beside one of 1e8.
    widths = np.ptp(points, axis=0)
    points = (points - points[0])[:, widths > 0] / widths[widths > 0]
    kept, clear = _candidates(points)
    if known is not None:
        clear = clear | frozenset(known.tolist())
        kept = sorted(clear.union(kept))
    unclear = [i for i in kept if i not in clear]
    for done, i in enumerate(unclear):
        deadline.ask("telling vertices: {} of {} points", done, len(unclear))
        others = [j for j in kept if j != i]
        rest = points[others]
        if (
            others
            and convex_weights(rest, points[i], tolerance=tolerance, deadline=deadline) is not None
        ):
            kept = others
    return kept


def _candidates(points: Array) -> tuple[list[int], frozenset[int]]:
    """Points that may be vertices, and those of them that are so for certain."""
    every = list(range(len(points)))
    flat = _coordinates(points)
    rank = flat.shape[1]
    if rank == 0:
        return every[:1], frozenset(every[:1])
    if rank == 1:
        ends = sorted({int(flat[:, 0].argmin()), int(flat[:, 0].argmax())})
        return ends, frozenset(ends)
    if rank > _ROOM or (rank > _FLAT and len(points) > _FEW) or len(points) <= rank + 1:
        return every, frozenset()
    try:
        hull = ConvexHull(flat)
    except QhullError:
        return every, frozenset()
    kept = sorted(int(v) for v in hull.vertices)
    outward = np.zeros_like(flat)
    for simplex, equation in zip(hull.simplices, hull.equations, strict=True):
        outward[simplex] += equation[:-1]
    clear: set[int] = set()
    for start in range(0, len(kept), _BLOCK):
        block = np.array(kept[start : start + _BLOCK])
        values = flat @ outward[block].T  # (k, block)
        own = values[block, np.arange(len(block))].copy()
        values[block, np.arange(len(block))] = -np.inf
        size = np.abs(flat).max() * np.linalg.norm(outward[block], axis=1)
        clear.update(block[own - values.max(0) > HULL_CLEAR * size].tolist())
    return kept, frozenset(clear)


def _coordinates(points: Array) -> Array:
    """(k, rank) coordinates in the affine hull, scaled to unit size in every direction."""
    moved = points - points.mean(0)
    left, sizes, _ = np.linalg.svd(moved, full_matrices=False)
    rank = int((sizes > HULL_RANK * sizes.max(initial=0.0)).sum()) if len(sizes) else 0
    found: Array = left[:, :rank] * np.sqrt(len(points))
    return found
