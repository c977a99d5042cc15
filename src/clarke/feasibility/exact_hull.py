"""Certificates about convex hulls, checked exactly; as :mod:`clarke.feasibility.exact`."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from numpy.typing import ArrayLike, NDArray

from clarke.deadline import UNLIMITED, Deadline
from clarke.feasibility.exact import (
    dense_matrix,
    exact_dot,
    exact_vector,
    require_finite,
    rounding_bound,
)
from clarke.numerics import EXACT_ENTRY_SECONDS, UNIT

_BLOCK = 1 << 22  # entries held at once beside the caller's own arrays
_DIGITS = 53  # of a float64
_ASKED = 256  # coordinates between two questions to the deadline


def verify_membership(
    points: ArrayLike,
    weights: ArrayLike,
    target: ArrayLike,
    tolerance: float = 0.0,
    allowed: ArrayLike | None = None,
    deadline: Deadline = UNLIMITED,
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
        deadline: asked while coordinates are summed in exact arithmetic.

    Raises:
        ValueError: if shapes differ, a point or the target is not finite, or the tolerance is not.
        OutOfTimeError: the coordinates that need exact arithmetic are too many.
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
    whole = Fraction(tolerance) * Fraction(largest)
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
            settled = error + bound <= accept[start : start + step]
            if total == 1:  # nothing is left over where nothing was rounded
                settled |= (error == 0) & _sums_exactly(ws, block, part)
            unsettled = np.flatnonzero(~settled)
        weight = [Fraction(x) for x in ws.tolist()]
        for number, j in enumerate(unsettled):
            if number % _ASKED == 0:
                left = (len(unsettled) - number) * len(ws) * EXACT_ENTRY_SECONDS
                deadline.afford(left, "adding up {} entries exactly", len(unsettled))
            column = [Fraction(x) for x in block[:, j].tolist()]
            moment = sum((a * b for a, b in zip(weight, column, strict=True)), Fraction(0))
            exact = whole if allowed is None else Fraction(float(room[start + j]))
            if abs(moment - total * Fraction(float(part[j]))) > exact * total:
                return False
    return True


def _sums_exactly(
    weights: NDArray[np.float64], block: NDArray[np.float64], part: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """(n,) whether ``weights @ block - part`` is computed without any rounding, in any order.

    Of one point it is told by its bits. Otherwise all products have to be whole multiples of one
    number, so few that every sum of some of them is a float64: as gradients of small whole numbers
    are, with weights that are powers of two.
    """
    if len(weights) == 1 and weights[0] == 1:
        bits, others = block[0].view(np.int64), part.view(np.int64)
        zero: NDArray[np.bool_] = ((bits << 1) == 0) & ((others << 1) == 0)  # of either sign
        same: NDArray[np.bool_] = zero | (bits == others)
        return same
    low, high = _extent(weights[:, None])
    lows, highs = _extent(block)
    own, top = _extent(part[None])
    finest = np.minimum(low + lows, own)
    coarsest = np.maximum(high + highs, top)
    # Subnormal numbers are not counted on: flushed to zero, they lose what they hold.
    within: NDArray[np.bool_] = (
        (coarsest - finest + len(weights).bit_length() + 1 <= _DIGITS)
        & (finest > np.finfo(np.float64).minexp)
        & (lows > np.finfo(np.float64).minexp)
        & (coarsest < np.finfo(np.float64).maxexp - len(weights).bit_length())
    )
    return within


def _extent(values: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For each column, l and h: all its entries are multiples of 2^l, and less than 2^h in size."""
    fraction, exponent = np.frexp(values)
    digits = np.abs(fraction * 2.0**_DIGITS).astype(np.int64)
    last = np.where(digits == 0, 1, digits & -digits)
    zero = digits == 0
    lowest = exponent.astype(np.int64) - _DIGITS + np.log2(last.astype(np.float64)).astype(np.int64)
    return (
        np.where(zero, 0, lowest).min(axis=0, initial=0),
        np.where(zero, 0, exponent).max(axis=0, initial=0),
    )


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
