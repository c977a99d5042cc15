"""The point of a convex hull nearest to an origin, in coordinates as few as the data allow."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator

import numpy as np
import scipy.linalg
import scipy.optimize

from clarke.deadline import UNLIMITED, Deadline
from clarke.feasibility.outcome import FloatArray
from clarke.numerics import (
    FLOPS,
    GRAM_NOISE,
    WEIGHT_NEGATIVE,
)

_BLOCK = 1 << 22  # entries held at once beside the points
_MODERATE = 200  # exponent up to which sums of squares are safe
# Scalings of the points against the row Σw = 1; larger ones resolve hulls that come closer to zero.
RESOLUTIONS = (1.0, 2.0**12, 2.0**24)


def weights_of_nearest(
    points: FloatArray, resolution: float = 1.0, deadline: Deadline = UNLIMITED
) -> FloatArray | None:
    """Convex weights w of the point of conv(points) nearest to zero; few are non-zero.

    Minimising |Pᵀw|² + (1 - Σw)² over w >= 0 has the same solution up to scale as the
    minimum-norm-point problem (Wolfe, *Finding the nearest point in a polytope*, 1976), because for
    fixed w / Σw the optimum over the scale increases with |Pᵀw|. It is solved by the active-set
    method of Lawson and Hanson (*Solving Least Squares Problems*, 1974, chapter 23), which, as
    Wolfe's does, keeps the points in use affinely independent.

    Args:
        points: (k, r), k >= 1.
        resolution: the power of two to which the points are scaled; see ``RESOLUTIONS``.
        deadline: bounds the iterations, which cannot be interrupted.

    Returns:
        (k,), or ``None`` if the iteration did not end.
    """
    k, r = points.shape
    equations = np.empty((r + 1, k))
    size = -exponent(largest_entry(points)) + exponent(resolution) - 1
    equations[:r] = scale(points, size).T
    equations[r] = 1.0
    right = np.zeros(r + 1)
    right[r] = 1.0
    whole = steps = 10 * (k + r + 10)
    if deadline.left < np.inf:
        # Each step multiplies by all points, and solves for those in use: r + 1 at most.
        cost = (k * (r + 1) + min(k, r + 1) ** 2) / FLOPS
        whole, steps = steps, int(min(steps, max(deadline.left, 0.0) / cost))
    try:
        weights, _ = scipy.optimize.nnls(equations, right, maxiter=max(steps, 1))
    except RuntimeError:  # SciPy: maximum number of iterations reached
        if steps < whole:
            deadline.afford(math.inf, "projecting onto the hull of {} points", k)
        return None
    total = float(weights.sum())
    result: FloatArray | None = weights / total if 0 < total < np.inf else None
    return result


def nearest_candidates(
    points: FloatArray, origin: FloatArray, deadline: Deadline = UNLIMITED
) -> Iterator[FloatArray]:
    """Convex weights, (k,), of the point of conv(points) nearest to the origin, better and better.

    With n much larger than k the points are replaced by coordinates with the same Gram matrix, and
    the weights then corrected with the points themselves.

    Args:
        points: (k, n), k >= 1, finite.
        origin: (n,), finite.
        deadline: when to give up.
    """
    blocks = Differences(points, origin)
    k, n = points.shape
    if n <= 4 * k + 64 or k * n <= 1 << 16:
        reduced = np.concatenate([np.zeros((k, 0)), *blocks], axis=1)
        for resolution in RESOLUTIONS:
            deadline.ask()
            weights = weights_of_nearest(reduced, resolution, deadline)
            if weights is not None:
                yield weights
        return
    gram = np.zeros((k, k))
    for block in blocks:
        deadline.ask()
        gram += block @ block.T
    weights = weights_of_nearest(from_gram(gram), deadline=deadline)
    if weights is not None:
        yield _refine(blocks, gram, weights)
        yield weights


class Differences:
    """The blocks of columns of points - origin, scaled only if their squares could overflow."""

    def __init__(self, points: FloatArray, origin: FloatArray) -> None:
        self._points, self._origin = points, origin
        self._step = max(1, _BLOCK // len(points))
        self._outer = moderating_power(max(largest_entry(points), largest_entry(origin)))
        self._inner = 0
        self._inner = moderating_power(max((largest_entry(block) for block in self), default=0.0))

    def __iter__(self) -> Iterator[FloatArray]:
        for start in range(0, len(self._origin), self._step):
            part = slice(start, start + self._step)
            outer = scale(self._points[:, part], self._outer)
            yield scale(outer - scale(self._origin[part], self._outer), self._inner)


def from_gram(gram: FloatArray) -> FloatArray:
    """Coordinates C (k, r) with C Cᵀ equal to the Gram matrix up to rounding."""
    values, vectors = scipy.linalg.eigh(gram, driver="evd")
    keep = values > len(gram) * GRAM_NOISE * max(float(values[-1]), 0.0)
    result: FloatArray = vectors[:, keep] * np.sqrt(values[keep])
    return result


def largest_entry(array: FloatArray) -> float:
    """The largest absolute value, 0 for an empty array, without a copy."""
    return max(float(array.max(initial=0.0)), -float(array.min(initial=0.0)))


def exponent(value: float) -> int:
    """The e for which |value| is in [2**(e - 1), 2**e)."""
    return int(np.frexp(value)[1])


def moderating_power(largest: float) -> int:
    """A power of two by which to scale entries up to this size before squaring: mostly 0."""
    power = -exponent(largest)
    return power if abs(power) > _MODERATE else 0


def scale(array: FloatArray, power: int) -> FloatArray:
    """The array times 2**power, itself if power is 0; exact unless it under- or overflows."""
    if power == 0:
        return array
    half = power // 2
    result: FloatArray = array * 2.0**half
    result *= 2.0 ** (power - half)
    return result


def _refine(blocks: Differences, gram: FloatArray, weights: FloatArray) -> FloatArray:
    """Correct weights found through a Gram matrix QQᵀ, on the points that they use.

    Solves (QQᵀ + eeᵀ) u = e (Wolfe 1976, section 4) with residuals from Q itself, not from its
    Gram matrix: corrected semi-normal equations (Björck 1987).
    """
    support = np.flatnonzero(weights)
    unit = float(np.trace(gram)) / len(gram) or 1.0  # balances the two terms
    ones = np.ones(len(support))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", scipy.linalg.LinAlgWarning)
            factor = scipy.linalg.cho_factor(gram[np.ix_(support, support)] / unit + 1.0)
    except (np.linalg.LinAlgError, scipy.linalg.LinAlgWarning):
        return weights
    u = np.zeros_like(weights)
    u[support] = scipy.linalg.cho_solve(factor, ones)
    for _ in range(2):
        product = np.zeros_like(weights)
        for block in blocks:
            product += block @ (u @ block)
        u[support] += scipy.linalg.cho_solve(factor, ones - product[support] / unit - u.sum())
    total = float(u.sum())
    if not total > 0 or not (u / total).min() > -WEIGHT_NEGATIVE:
        return weights
    positive: FloatArray = np.maximum(u, 0.0)
    positive /= positive.sum()
    return positive
