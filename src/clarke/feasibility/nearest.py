"""The point of smallest norm in a convex hull, in coordinates as few as the data allow."""

from __future__ import annotations

import warnings

import numpy as np
import scipy.linalg
import scipy.optimize

from clarke.feasibility.outcome import FloatArray

_BLOCK = 1 << 22  # entries held at once beside the points
_NOISE = 1e-14  # relative eigenvalue of a Gram matrix that is rounding
# Scalings of the points against the row Σw = 1; larger ones resolve hulls that come closer to zero.
RESOLUTIONS = (1.0, 2.0**12, 2.0**24)


def weights_of_nearest(points: FloatArray, resolution: float = 1.0) -> FloatArray | None:
    """Convex weights w of the point of conv(points) nearest to zero; few are non-zero.

    Minimising |Pᵀw|² + (1 - Σw)² over w >= 0 has the same solution up to scale as the
    minimum-norm-point problem (Wolfe, *Finding the nearest point in a polytope*, 1976), because for
    fixed w / Σw the optimum over the scale increases with |Pᵀw|. It is solved by the active-set
    method of Lawson and Hanson (*Solving Least Squares Problems*, 1974, chapter 23), which, as
    Wolfe's does, keeps the points in use affinely independent.

    Args:
        points: (k, r), k >= 1, entries of moderate size.
        resolution: factor on the points; see ``RESOLUTIONS``.

    Returns:
        (k,), or ``None`` if the iteration did not end.
    """
    k, r = points.shape
    equations = np.empty((r + 1, k))
    np.multiply(points.T, resolution, out=equations[:r])
    equations[r] = 1.0
    right = np.zeros(r + 1)
    right[r] = 1.0
    try:
        weights, _ = scipy.optimize.nnls(equations, right, maxiter=10 * (k + r + 10))
    except RuntimeError:  # SciPy: maximum number of iterations reached
        return None
    total = float(weights.sum())
    result: FloatArray | None = weights / total if 0 < total < np.inf else None
    return result


def coordinates(points: FloatArray, origin: FloatArray | None = None) -> tuple[FloatArray, int]:
    """Write points - origin, scaled by 2**shift, in an orthonormal basis of at most k vectors.

    With n much larger than k the coordinates come from the Gram matrix, accumulated over blocks of
    columns: inner products, hence norms and hulls, are the same; entries are good to about 1e-7.

    Args:
        points: (k, n).
        origin: (n,), default zero.

    Returns:
        (k, r) with r <= min(k, n) or, where n is small, r = n; and the shift.
    """
    k, n = points.shape
    step = max(1, _BLOCK // max(k, 1))
    starts = range(0, n, step)
    if origin is None:
        origin = np.zeros(n)
    largest = max(_largest(points), float(np.abs(origin).max(initial=0.0)))
    outer = -int(np.frexp(largest)[1])

    def block(start: int) -> FloatArray:
        part = slice(start, start + step)
        difference: FloatArray = np.ldexp(points[:, part], outer) - np.ldexp(origin[part], outer)
        return difference

    inner = -int(np.frexp(max((float(np.abs(block(s)).max()) for s in starts), default=0.0))[1])
    if n <= 4 * k + 64 or k * n <= 1 << 16:
        parts = [np.ldexp(block(s), inner) for s in starts]
        return np.concatenate(parts, axis=1) if parts else np.zeros((k, 0)), outer + inner
    gram = np.zeros((k, k))
    for start in starts:
        scaled = np.ldexp(block(start), inner)
        gram += scaled @ scaled.T
    return from_gram(gram), outer + inner


def from_gram(gram: FloatArray) -> FloatArray:
    """Coordinates C (k, r) with C Cᵀ equal to the Gram matrix up to rounding."""
    values, vectors = scipy.linalg.eigh(gram)
    keep = values > len(gram) * _NOISE * max(float(values[-1]), 0.0)
    result: FloatArray = vectors[:, keep] * np.sqrt(values[keep])
    return result


def refine(points: FloatArray, origin: FloatArray, weights: FloatArray) -> FloatArray:
    """Correct weights found through a Gram matrix, on the points that they use.

    Solves (QQᵀ + eeᵀ) u = e (Wolfe 1976, section 4) with residuals from Q = points - origin itself,
    not from its Gram matrix: corrected semi-normal equations (Björck 1987).
    """
    support = np.flatnonzero(weights)
    used = points[support]
    scale = float(max(_largest(used), np.abs(origin).max(initial=0.0))) or 1.0
    used, centre = used / scale, origin / scale
    used -= centre
    scale = _largest(used) or 1.0
    used /= scale
    ones = np.ones(len(support))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", scipy.linalg.LinAlgWarning)
            factor = scipy.linalg.cho_factor(used @ used.T + 1.0)
    except (np.linalg.LinAlgError, scipy.linalg.LinAlgWarning):
        return weights
    u = scipy.linalg.cho_solve(factor, ones)
    for _ in range(3):
        u += scipy.linalg.cho_solve(factor, ones - used @ (used.T @ u) - u.sum())
    total = float(u.sum())
    if not total > 0 or not (u / total).min() > -1e-9:
        return weights
    result = np.zeros_like(weights)
    result[support] = np.maximum(u, 0.0) / np.maximum(u, 0.0).sum()
    return result


def _largest(points: FloatArray) -> float:
    return max(float(points.max(initial=0.0)), -float(points.min(initial=0.0)))
