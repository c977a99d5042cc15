"""Certificates about convex hulls, checked exactly; as :mod:`clarke.feasibility.exact`."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from numpy.typing import ArrayLike

from clarke.feasibility.exact import (
    dense_matrix,
    exact_dot,
    exact_vector,
    require_finite,
    rounding_bound,
)
from clarke.numerics import UNIT

_BLOCK = 1 << 22  # entries held at once beside the caller's own arrays


def verify_membership(
    points: ArrayLike,
    weights: ArrayLike,
    target: ArrayLike,
    tolerance: float = 0.0,
    allowed: ArrayLike | None = None,
) -> bool:
    """Whether a convex combination of the points lies within the tolerance of the target.

    The combination is Σ wᵢpᵢ / W with W = Σ wᵢ taken exactly. Checked exactly: w >= 0, |W - 1| at
    most k 2⁻⁵² (rounding of k weights), and every coordinate of the combination within
    ``tolerance`` times the largest absolute entry of the points used and the target, or within its
    own ``allowed``.

    Args:
        points: (k, n).
        weights: w, (k,).
        target: (n,).
        tolerance: relative, at least 0.
        allowed: (n,), how far each coordinate may be off, in place of the tolerance.

    Raises:
        ValueError: if shapes differ, a point or the target is not finite, or the tolerance is not.
    """
    p = dense_matrix(points)
    w = exact_vector(weights, p.shape[0], "weights")
    t = require_finite(exact_vector(target, p.shape[1], "target"), "target")
    if not 0 <= tolerance < np.inf:
        raise ValueError(f"tolerance must be finite and at least 0, got {tolerance}.")
    if not np.isfinite(w).all() or bool((w < 0).any()):
        return False
    support = np.flatnonzero(w)
    total = sum((Fraction(x) for x in w[support].tolist()), Fraction(0))
    if abs(total - 1) > Fraction(len(w), 2**52):
        return False
    largest = max((float(np.abs(p[i]).max(initial=0.0)) for i in support), default=0.0)
    largest = max(largest, float(np.abs(t).max(initial=0.0)))
    room = np.full(len(t), tolerance * largest) if allowed is None else np.asarray(allowed, float)
    if room.shape != t.shape or not (np.isfinite(room).all() and bool((room >= 0).all())):
        raise ValueError("allowed must be one finite number, at least 0, for each coordinate.")
    exact = [Fraction(tolerance) * Fraction(largest)] * len(room)
    exact = exact if allowed is None else [Fraction(r) for r in room.tolist()]
    slack = (len(w) + 4) * 4 * UNIT  # covers W and the rounding of the limits
    accept, reject = room * (1 - slack), room * (1 + slack)
    step = max(1, _BLOCK // max(1, len(support)))
    for start in range(0, p.shape[1], step):
        block, part, ws = p[support, start : start + step], t[start : start + step], w[support]
        with np.errstate(over="ignore", invalid="ignore"):
            error = np.abs(ws @ block - part)
            # W differs from 1 by at most k 2⁻⁵², hence the wider count.
            size = ws @ np.abs(block) + np.abs(part)
            bound = rounding_bound(size, 4 * len(w) + 4, largest, ws)
            if bool((error - bound > reject[start : start + step]).any()):
                return False
            unsettled = np.flatnonzero(~(error + bound <= accept[start : start + step]))
        weight = [Fraction(x) for x in ws.tolist()]
        for j in unsettled:
            column = [Fraction(x) for x in block[:, j].tolist()]
            moment = sum((a * b for a, b in zip(weight, column, strict=True)), Fraction(0))
            if abs(moment - total * Fraction(float(part[j]))) > exact[start + j] * total:
                return False
    return True


def verify_separation(points: ArrayLike, target: ArrayLike, direction: ArrayLike) -> bool:
    """Whether <d, target> > max <d, point> exactly, so that the target is outside the convex hull.

    Args:
        points: (k, n).
        target: (n,).
        direction: d, (n,).

    Raises:
        ValueError: if shapes differ, or a point or the target is not finite.
    """
    p = dense_matrix(points)
    t = require_finite(exact_vector(target, p.shape[1], "target"), "target")
    d = exact_vector(direction, p.shape[1], "direction")
    if not np.isfinite(d).all():
        return False
    step = max(1, _BLOCK // max(1, p.shape[1]))
    for start in range(0, p.shape[0], step):
        block = p[start : start + step]
        with np.errstate(over="ignore", invalid="ignore"):
            difference = t - block  # each entry within u of the true one: one more rounding
            value = difference @ d
            size = np.abs(difference)
            bound = rounding_bound(size @ np.abs(d), len(d) + 1, float(size.max(initial=0.0)), d)
            if bool((value < -bound).any()):
                return False
            unsettled = np.flatnonzero(~(value > bound))
        for i in unsettled:
            if exact_dot(np.r_[t, -block[i]], np.r_[d, d]) <= 0:
                return False
    return True
