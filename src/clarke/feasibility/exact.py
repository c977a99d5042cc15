"""Certificates checked in exact rational arithmetic; shares no code with what finds them.

A float64 is an integer times a power of two, so every sum of products below is computed exactly
with Python integers. A floating-point filter settles most sums first: a computed inner product of
length k differs from the true one by at most γ_k Σ|a||b|, γ_k = k u / (1 - k u), u = 2⁻⁵³, in any
order of summation, plus 2⁻¹⁰⁷⁵ per product for underflow (Higham, *Accuracy and Stability of
Numerical Algorithms*, 2002, section 3.1). Twice that bound is used, which also covers the rounding
of the bound itself. Overflow makes the bound infinite, hence the sum unsettled, hence exact.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import ArrayLike, NDArray

_Array = NDArray[np.float64]
_UNIT = 2.0**-53
_UNDERFLOW = 2.0**-1073
_BLOCK = 1 << 22  # entries held at once beside the caller's own arrays


def verify_witness(rows: Any, direction: ArrayLike) -> bool:
    """Whether A d > 0 exactly on every row.

    Args:
        rows: A, (m, n), dense or any SciPy sparse format; repeated sparse entries add up.
        direction: d, (n,).

    Raises:
        ValueError: if rows hold a non-finite or not exactly representable number, or shapes differ.
    """
    matrix = _matrix(rows)
    d = _vector(direction, matrix.shape[1], "direction")
    if not np.isfinite(d).all():
        return False
    with np.errstate(over="ignore", invalid="ignore"):
        value = matrix @ d
        bound = _bound(abs(matrix) @ np.abs(d), matrix.shape[1])
        if bool((value < -bound).any()):
            return False
        unsettled = np.flatnonzero(~(value > bound))
    return all(_row_sum(matrix, int(i), d) > 0 for i in unsettled)


def verify_contradiction(rows: Any, multipliers: Sequence[Any] | _Array) -> bool:
    """Whether y >= 0, y != 0 and Aᵀy = 0, all exactly: Gordan's alternative to A d > 0 (Gordan 1873).

    Args:
        rows: A, (m, n), as for :func:`verify_witness`.
        multipliers: y, m numbers: ``Fraction``, ``int`` or float (taken as the float it is).

    Raises:
        ValueError: as :func:`verify_witness`.
    """
    matrix = _matrix(rows)
    if isinstance(multipliers, np.ndarray):
        multipliers = multipliers.tolist()
    if len(multipliers) != matrix.shape[0]:
        raise ValueError(f"Expected {matrix.shape[0]} multipliers, got {len(multipliers)}.")
    support = [i for i, y in enumerate(multipliers) if y != 0]
    floats = (y for y in (multipliers[i] for i in support) if isinstance(y, float))
    if not support or not all(math.isfinite(y) for y in floats):
        return False
    exact = [Fraction(multipliers[i]) for i in support]
    if min(exact) < 0:
        return False
    common = math.lcm(*(y.denominator for y in exact))
    totals: dict[int, int] = {}
    entries = [_entries(matrix, i) for i in support]
    lowest = min((min(powers) for _, _, powers in entries if powers), default=0)
    for y, (columns, integers, powers) in zip(exact, entries, strict=True):
        weight = y.numerator * (common // y.denominator)
        for j, integer, power in zip(columns, integers, powers, strict=True):
            totals[j] = totals.get(j, 0) + weight * (integer << (power - lowest))
    return not any(totals.values())


def verify_membership(
    points: ArrayLike, weights: ArrayLike, target: ArrayLike, tolerance: float
) -> bool:
    """Whether a true convex combination of the points lies within the tolerance of the target.

    The combination is Σ wᵢpᵢ / W with W = Σ wᵢ taken exactly. Checked exactly: w >= 0, |W - 1| at
    most k 2⁻⁵² (rounding of k weights), and every coordinate of the combination within
    ``tolerance`` times the largest absolute entry of the points used and the target.

    Args:
        points: (k, n). weights: (k,). target: (n,). tolerance: relative, >= 0.
    """
    p = _dense(points)
    w = _vector(weights, p.shape[0], "weights")
    t = _finite(_vector(target, p.shape[1], "target"), "target")
    if not np.isfinite(w).all() or bool((w < 0).any()) or not tolerance >= 0:
        return False
    support = np.flatnonzero(w)
    total = sum((Fraction(x) for x in w[support].tolist()), Fraction(0))
    if abs(total - 1) > Fraction(len(w), 2**52):
        return False
    largest = max((float(np.abs(p[i]).max(initial=0.0)) for i in support), default=0.0)
    largest = max(largest, float(np.abs(t).max(initial=0.0)))
    allowed = Fraction(tolerance) * Fraction(largest)
    slack = (len(w) + 4) * 2.0**-51  # covers W and the rounding of the limits
    accept, reject = tolerance * largest * (1 - slack), tolerance * largest * (1 + slack)
    step = max(1, _BLOCK // max(1, len(support)))
    for start in range(0, p.shape[1], step):
        block, part, ws = p[support, start : start + step], t[start : start + step], w[support]
        with np.errstate(over="ignore", invalid="ignore"):
            error = np.abs(ws @ block - part)
            # W differs from 1 by at most k 2⁻⁵², hence the wider count.
            bound = _bound(ws @ np.abs(block) + np.abs(part), 4 * len(w) + 4)
            if bool((error - bound > reject).any()):
                return False
            unsettled = np.flatnonzero(~(error + bound <= accept))
        weight = [Fraction(x) for x in ws.tolist()]
        for j in unsettled:
            column = [Fraction(x) for x in block[:, j].tolist()]
            moment = sum((a * b for a, b in zip(weight, column, strict=True)), Fraction(0))
            if abs(moment - total * Fraction(float(part[j]))) > allowed * total:
                return False
    return True


def verify_separation(points: ArrayLike, target: ArrayLike, direction: ArrayLike) -> bool:
    """Whether <d, target> > max <d, point> exactly, so that the target is outside the convex hull.

    Args:
        points: (k, n). target: (n,). direction: d, (n,).
    """
    p = _dense(points)
    t = _finite(_vector(target, p.shape[1], "target"), "target")
    d = _vector(direction, p.shape[1], "direction")
    if not np.isfinite(d).all():
        return False
    step = max(1, _BLOCK // max(1, p.shape[1]))
    for start in range(0, p.shape[0], step):
        block = p[start : start + step]
        with np.errstate(over="ignore", invalid="ignore"):
            difference = t - block  # each entry within u of the true one: one more rounding
            value = difference @ d
            bound = _bound(np.abs(difference) @ np.abs(d), len(d) + 1)
            if bool((value < -bound).any()):
                return False
            unsettled = np.flatnonzero(~(value > bound))
        for i in unsettled:
            if _dot(np.r_[t, -block[i]], np.r_[d, d]) <= 0:
                return False
    return True


def _bound(size: _Array, count: int) -> _Array:
    return 2 * (count + 2) * _UNIT * size + (count + 2) * _UNDERFLOW


def _dot(a: _Array, b: _Array) -> int:
    """An integer with the sign of Σ aᵢbᵢ."""
    (x, p), (y, q) = _split(a), _split(b)
    terms = [(u * v, e + f) for u, v, e, f in zip(x, y, p, q, strict=True) if u and v]
    lowest = min((e for _, e in terms), default=0)
    return sum(integer << (e - lowest) for integer, e in terms)


def _split(values: _Array) -> tuple[list[int], list[int]]:
    """Integers m and e with value = m 2^e exactly."""
    fraction, power = np.frexp(values)
    return (fraction * 2.0**53).astype(np.int64).tolist(), (power - 53).tolist()


def _row(matrix: Any, i: int) -> tuple[NDArray[Any], _Array]:
    if isinstance(matrix, np.ndarray):
        columns = np.flatnonzero(matrix[i])
        return columns, matrix[i, columns]
    part = slice(matrix.indptr[i], matrix.indptr[i + 1])
    return matrix.indices[part], matrix.data[part]


def _row_sum(matrix: Any, i: int, d: _Array) -> int:
    columns, values = _row(matrix, i)
    return _dot(values, d[columns])


def _entries(matrix: Any, i: int) -> tuple[list[int], list[int], list[int]]:
    columns, values = _row(matrix, i)
    return (columns.tolist(), *_split(values))


def _matrix(rows: Any) -> Any:
    if not scipy.sparse.issparse(rows):
        return _dense(rows)
    matrix = scipy.sparse.csr_array(rows)
    data = _finite(_real(matrix.data), "rows")
    return scipy.sparse.csr_array((data, matrix.indices, matrix.indptr), shape=matrix.shape)


def _dense(values: ArrayLike) -> _Array:
    array = _finite(_real(np.asarray(values)), "rows or points")
    if array.ndim != 2:
        raise ValueError(f"Expected a two-dimensional array, got shape {array.shape}.")
    return array


def _vector(values: ArrayLike, length: int, name: str) -> _Array:
    array = _real(np.asarray(values))
    if array.shape != (length,):
        raise ValueError(f"{name} must have shape ({length},), got {array.shape}.")
    return array


def _real(array: NDArray[Any]) -> _Array:
    converted: _Array | None = None
    if array.dtype.kind in "biuf":
        converted = array.astype(np.float64, copy=False)
        if array.dtype.kind in "iu":
            lossy = array.dtype.itemsize > 4 and bool((np.abs(converted) > 2.0**53).any())
        else:
            lossy = array.dtype.itemsize > 8 and not np.array_equal(converted, array, equal_nan=True)
        converted = None if lossy else converted
    if converted is None:
        raise ValueError("Certificates are checked on numbers that float64 represents exactly.")
    return converted


def _finite(array: _Array, name: str) -> _Array:
    if not np.isfinite(array).all():
        raise ValueError(f"{name} must be finite.")
    return array
