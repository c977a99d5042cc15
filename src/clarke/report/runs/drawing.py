"""A gradient and the set that it should be in, as SVG: on a line, in the plane, in space."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import nnls

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from clarke.report.runs.model import Picture

_SIDE = 240
_MARGIN = 40
_LEGEND = (
    '<p class="key"><span class="k-ad">×</span> returned <span class="k-valid">○</span> right '
    '<span class="k-set">●</span> limits of gradients beside the point, and all between</p>'
)


def drawing(picture: Picture) -> str:
    """An SVG element with its legend, or "" for more than three dimensions or infinite numbers.

    The set is drawn as the hull of the picture's vertices, AD's gradient as a cross, a correct
    gradient as a ring, the distance as a line. Three dimensions are seen from the side from which
    the gap between gradient and set shows at its true size.
    """
    size = len(picture.gradient)
    points = [*picture.vertices, picture.gradient]
    if picture.element is not None:
        points.append(picture.element)
    if not 1 <= size <= 3 or not picture.vertices or any(len(p) != size for p in points):
        return ""
    values = np.array(points, dtype=np.float64)
    if not bool(np.isfinite(values).all()):
        return ""
    count = len(picture.vertices)
    near = nearest(values[:count], values[count])
    flat = _flattened(np.vstack([values, near]), count)
    place = _Scale(flat)
    parts = [] if size == 3 else [_axes(size, values, place)]
    outline = " ".join(_xy(place(p)) for p in hull(flat[:count]))
    parts.append(f'<polygon class="set" points="{outline}"/>')
    parts += [_dot(place(v), "vertex", 3) for v in flat[:count]]
    parts.append(_gap(place(flat[count]), place(flat[-1]), values[count] - near))
    if picture.element is not None:
        parts.append(_dot(place(flat[-2]), "valid", 6))
    parts.append(_cross(place(flat[count])))
    return (
        f'<figure class="picture"><svg viewBox="0 0 {_SIDE} {_SIDE}" role="img" '
        'aria-label="The gradient that was returned, beside those that are right">'
        f"{''.join(parts)}</svg>{_LEGEND}</figure>"
    )


def hull(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """(k, 2) corners of the convex hull of (m, 2) points, counter-clockwise (monotone chain)."""
    ordered = sorted({(float(x), float(y)) for x, y in points})
    if len(ordered) < 3:
        return np.array(ordered, dtype=np.float64)

    def chain(sequence: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
        kept: list[tuple[float, float]] = []
        for p in sequence:
            while len(kept) > 1 and _turn(kept[-2], kept[-1], p) <= 0:
                kept.pop()
            kept.append(p)
        return kept[:-1]

    return np.array(chain(ordered) + chain(reversed(ordered)), dtype=np.float64)


def _turn(a: tuple[float, float], b: tuple[float, float], c: tuple[float, float]) -> float:
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])


def _flattened(values: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """(m, 2) points of the plane; of `values`, the first `count` are vertices, then AD's."""
    if values.shape[1] == 1:
        return np.hstack([values, np.zeros_like(values)])
    if values.shape[1] == 2:
        return values
    vertices, gradient = values[:count], values[count]
    gap = gradient - nearest(vertices, gradient)
    scale = max(float(np.abs(values).max()), 1e-300)
    spread = values - values.mean(0)
    if float(np.linalg.norm(gap)) > 1e-9 * scale:
        across = gap / np.linalg.norm(gap)
        spread = spread - np.outer(spread @ across, across)
        along = np.linalg.svd(spread)[2][0]
        along = along - (along @ across) * across
        return np.stack([values @ along, values @ across], axis=1)
    flat: NDArray[np.float64] = values @ np.linalg.svd(spread)[2][:2].T
    return flat


def nearest(vertices: NDArray[np.float64], point: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n,) the point of the hull of (k, n) vertices that is nearest to (n,) `point`.

    Non-negative least squares, with one heavy equation that makes the weights add up to 1.
    """
    size = float(np.abs(np.vstack([vertices, point])).max()) or 1.0
    heavy = 1e4 * size
    system = np.vstack([vertices.T, np.full(len(vertices), heavy)])
    weights, _ = nnls(system, np.append(point, heavy))
    return np.asarray(weights / max(weights.sum(), 1e-300)) @ vertices


class _Scale:
    def __init__(self, points: NDArray[np.float64]) -> None:
        low, high = points.min(0), points.max(0)
        self._middle = (low + high) / 2
        self._unit = (_SIDE - 2 * _MARGIN) / max(float((high - low).max()), 1e-12)

    def __call__(self, point: NDArray[np.float64]) -> tuple[float, float]:
        x, y = (point - self._middle) * self._unit
        return _SIDE / 2 + float(x), _SIDE / 2 - float(y)


def _axes(size: int, values: NDArray[np.float64], place: _Scale) -> str:
    """An axis for each entry, with ticks where the points are; few enough to be told apart."""
    end, names = _SIDE - 30, ("first entry", "second entry")
    lines = [f'<line class="axis" x1="{_MARGIN - 8}" x2="{_SIDE - 8}" y1="{end}" y2="{end}"/>']
    lines.append(f'<text class="name" x="{_SIDE - 8}" y="{_SIDE - 4}">{names[0]}</text>')
    if size == 2:
        side = f'x1="{_MARGIN - 8}" x2="{_MARGIN - 8}" y1="16" y2="{end}"'
        lines.append(f'<line class="axis" {side}/>')
        lines.append(f'<text x="4" y="10">{names[1]}</text>')
    for axis in range(size):
        last: float = -_SIDE
        for value in np.unique(values[:, axis]):
            x, y = place(np.array([value, 0.0]) if axis == 0 else np.array([0.0, value]))
            at = x if axis == 0 else _SIDE - y
            if at - last < (34 if axis == 0 else 14) or not 0 <= at <= _SIDE - 14:
                continue
            last = at
            text = f"{value + 0.0:.3g}"
            if axis == 0:
                lines.append(
                    f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{end}" y2="{end + 3}"/>'
                )
                lines.append(f'<text class="tick" x="{x:.1f}" y="{end + 13}">{text}</text>')
            else:
                lines.append(f'<text class="name" x="{_MARGIN - 11}" y="{y + 4:.1f}">{text}</text>')
    return "".join(lines)


def _gap(start: tuple[float, float], end: tuple[float, float], gap: NDArray[np.float64]) -> str:
    """The line from the gradient to the set, with its length."""
    length = float(np.linalg.norm(gap))
    if math.hypot(start[0] - end[0], start[1] - end[1]) < 1:
        return ""
    x, y = (start[0] + end[0]) / 2, (start[1] + end[1]) / 2
    steep = abs(start[1] - end[1]) > 2 * abs(start[0] - end[0])  # the length beside the line
    x, y = (x + 14, y + 10) if steep else (x, y)
    return (
        f'<line class="gap" x1="{start[0]:.1f}" y1="{start[1]:.1f}" x2="{end[0]:.1f}" '
        f'y2="{end[1]:.1f}"/><text class="far" x="{x:.1f}" y="{y - 6:.1f}">{length:.3g}</text>'
    )


def _xy(point: tuple[float, float]) -> str:
    return f"{point[0]:.1f},{point[1]:.1f}"


def _dot(point: tuple[float, float], kind: str, radius: float) -> str:
    return f'<circle class="{kind}" cx="{point[0]:.1f}" cy="{point[1]:.1f}" r="{radius}"/>'


def _cross(point: tuple[float, float]) -> str:
    x, y = point
    return f'<path class="ad" d="M{x - 6:.1f},{y - 6:.1f}l12,12m0,-12l-12,12"/>'
