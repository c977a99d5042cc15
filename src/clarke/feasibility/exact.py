"""Certificates checked in exact rational arithmetic; shares no code with what finds them.

A float64 is an integer times a power of two, so every sum of products below is computed exactly
with Python integers. A floating-point filter settles most sums first: a computed inner product of
length k differs from the true one by at most γ_k Σ|a||b|, γ_k = k u / (1 - k u), u = 2⁻⁵³, in any
order of summation, plus what underflow loses (Higham, *Accuracy and Stability of Numerical
Algorithms*, 2002, section 3.1). Twice that is used, which also covers the rounding of the bound
itself. Underflow is bounded as if subnormal numbers were flushed to zero on input and on output,
as ``torch.set_flush_denormal`` makes them. Overflow makes the bound infinite, hence the sum
unsettled, hence exact.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import ArrayLike, NDArray

from clarke.numerics import FLUSHED, UNIT

_Array = NDArray[np.float64]


def verify_witness(rows: Any, direction: ArrayLike) -> bool:
    """Whether A d > 0 exactly on every row.

    Args:
        rows: A, (m, n), dense or any SciPy sparse format; repeated sparse entries add up.
        direction: d, (n,).

    Raises:
        ValueError: if rows hold a non-finite or not exactly representable number, or shapes differ.
    """
    matrix = _matrix(rows)
    d = exact_vector(direction, matrix.shape[1], "direction")
    if not np.isfinite(d).all():
        return False
    with np.errstate(over="ignore", invalid="ignore"):
        value = matrix @ d
        size, longest, largest = _sizes(matrix, np.abs(d))
        bound = rounding_bound(size, longest, largest, d)
        if bool((value < -bound).any()):
            return False
        unsettled = np.flatnonzero(~(value > bound))
    return all(_row_sum(matrix, int(i), d) > 0 for i in unsettled)


def verify_contradiction(rows: Any, multipliers: Sequence[Any] | _Array) -> bool:
    """Whether y >= 0, y != 0 and Aᵀy = 0 exactly: Gordan's alternative to A d > 0 (Gordan 1873).

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


def rounding_bound(size: _Array, count: int, largest: float, factors: _Array) -> _Array:
    """How far computed inner products may be from the true ones.

    Args:
        size: their computed Σ|a||b|.
        count: the most terms that any of them has.
        largest: the largest |a|.
        factors: all b.
    """
    flushed = FLUSHED * (1.0 + largest) * (1.0 + float(np.abs(factors).max(initial=0.0)))
    return (count + 2) * (2.0 * UNIT * size + flushed)


def exact_dot(a: _Array, b: _Array) -> int:
    """An integer with the sign of Σ aᵢbᵢ."""
    (x, p), (y, q) = _split(a), _split(b)
    terms = [(u * v, e + f) for u, v, e, f in zip(x, y, p, q, strict=True) if u and v]
    lowest = min((e for _, e in terms), default=0)
    return sum(integer << (e - lowest) for integer, e in terms)


def _split(values: _Array) -> tuple[list[int], list[int]]:
    """Integers m and e with value = m 2^e exactly, read off the bits."""
    bits = np.ascontiguousarray(values).view(np.int64)
    power = (bits >> 52) & 0x7FF
    integer = bits & ((1 << 52) - 1)
    integer = np.where(power > 0, integer | (1 << 52), integer)
    return np.where(bits < 0, -integer, integer).tolist(), (np.maximum(power, 1) - 1075).tolist()


def _sizes(matrix: Any, factors: _Array) -> tuple[_Array, int, float]:
    """Σ|a||b| of each row, the most entries in a row, the largest |a|."""
    if isinstance(matrix, np.ndarray):
        size = np.abs(matrix)
        return size @ factors, matrix.shape[1], float(size.max(initial=0.0))
    data = np.abs(matrix.data)
    size = scipy.sparse.csr_array((data, matrix.indices, matrix.indptr), shape=matrix.shape)
    longest = int(np.diff(matrix.indptr).max(initial=0))
    return size @ factors, longest, float(data.max(initial=0.0))


def _row(matrix: Any, i: int) -> tuple[NDArray[Any], _Array]:
    if isinstance(matrix, np.ndarray):
        return np.arange(matrix.shape[1]), matrix[i]
    part = slice(matrix.indptr[i], matrix.indptr[i + 1])
    return matrix.indices[part], matrix.data[part]


def _row_sum(matrix: Any, i: int, d: _Array) -> int:
    columns, values = _row(matrix, i)
    return exact_dot(values, d[columns])


def _entries(matrix: Any, i: int) -> tuple[list[int], list[int], list[int]]:
    columns, values = _row(matrix, i)
    return (columns.tolist(), *_split(values))


def _matrix(rows: Any) -> Any:
    if not scipy.sparse.issparse(rows):
        return dense_matrix(rows)
    matrix = scipy.sparse.csr_array(rows)
    data = require_finite(_real(matrix.data), "rows")
    return scipy.sparse.csr_array((data, matrix.indices, matrix.indptr), shape=matrix.shape)


def dense_matrix(values: ArrayLike) -> _Array:
    """The values as finite float64 of shape (m, n), or ``ValueError``."""
    array = require_finite(_real(np.asarray(values)), "rows or points")
    if array.ndim != 2:
        raise ValueError(f"Expected a two-dimensional array, got shape {array.shape}.")
    return array


def exact_vector(values: ArrayLike, length: int, name: str) -> _Array:
    """The values as float64 of shape (length,), or ``ValueError``."""
    array = _real(np.asarray(values))
    if array.shape != (length,):
        raise ValueError(f"{name} must have shape ({length},), got {array.shape}.")
    return array


def _real(array: NDArray[Any]) -> _Array:
    converted: _Array | None = None
    if array.dtype.kind in "biuf":
        converted = array.astype(np.float64, copy=False)
        whole = array.dtype.kind in "iu"
        if array.dtype.itemsize > (4 if whole else 8):
            kept = np.abs(converted) < 2.0**53 if whole else ~(converted != array)
            converted = converted if bool(kept.all()) else None
    if converted is None:
        raise ValueError("Certificates are checked on numbers that float64 represents exactly.")
    return converted


def require_finite(array: _Array, name: str) -> _Array:
    """The array itself, or ``ValueError``."""
    if not np.isfinite(array).all():
        raise ValueError(f"{name} must be finite.")
    return array
