"""The picture of a subdifferential in two or three dimensions (extra `plot`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.spatial import ConvexHull, QhullError

from clarke.errors import UnsupportedError

if TYPE_CHECKING:
    from numpy.typing import NDArray


def draw_set(vertices: NDArray[np.float64], gradient: NDArray[np.float64]) -> Any:
    """A matplotlib figure of the hull of `vertices` with AD's gradient on it.

    Args:
        vertices: (k, n), n = 2 or 3.
        gradient: (n,) what AD returned.

    Raises:
        UnsupportedError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UnsupportedError(
            "Pictures need matplotlib: install it with `pip install clarke[plot]`."
        ) from error
    figure = Figure(figsize=(5, 4.5), layout="constrained")
    solid = vertices.shape[1] == 3
    axes: Any = figure.add_subplot(projection="3d" if solid else None)
    for a, b in _edges(vertices):
        axes.plot(*np.stack([vertices[a], vertices[b]]).T, color="tab:blue", linewidth=1.5)
    if not solid and len(vertices) > 2:
        centre = vertices.mean(0)
        order = np.argsort(np.arctan2(*(vertices - centre).T[::-1]))
        axes.fill(*vertices[order].T, color="tab:blue", alpha=0.15)
    axes.scatter(*vertices.T, color="tab:blue", label="limiting gradients (vertices)")
    axes.scatter(*gradient[:, None], color="tab:red", marker="x", s=80, label="AD's gradient")
    axes.set_xlabel("first variable")
    axes.set_ylabel("second variable")
    if solid:
        axes.set_zlabel("third variable")
    else:
        axes.set_aspect("equal", adjustable="datalim")
    axes.set_title("Clarke subdifferential")
    axes.legend(loc="best", fontsize="small")
    return figure


def _edges(vertices: NDArray[np.float64]) -> list[tuple[int, int]]:
    """Pairs of vertices to join: hull edges, or the segment if the set is flat."""
    if len(vertices) == 2:
        return [(0, 1)]
    if len(vertices) < 2:
        return []
    try:
        hull = ConvexHull(vertices)
    except QhullError:
        return [(i, j) for i in range(len(vertices)) for j in range(i)]
    found = set()
    for simplex in hull.simplices:
        for i in range(len(simplex)):
            for j in range(i):
                found.add((int(min(simplex[i], simplex[j])), int(max(simplex[i], simplex[j]))))
    return sorted(found)
