"""Rows that depend on others but for rounding, made to depend on them exactly."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from fractions import Fraction
from math import lcm
from typing import TYPE_CHECKING

import numpy as np
import scipy.linalg

from clarke.arrangement import Row, basis, primitive
from clarke.numerics import DEPENDENT_DENOMINATOR, ROWS_ROUNDING

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Array = NDArray[np.float64]


@dataclass(frozen=True)
class Rank:
    """How many of the switching functions' gradients are independent.

    Attributes:
        rank: How many.
        off: How far the gradients are from some that depend on each other exactly as was assumed,
            relative to the largest entry of each: zero where nothing was assumed.
    """

    rank: int
    off: float = 0.0

    def __str__(self) -> str:
        if not self.off:
            return f"rank {self.rank}, exactly"
        return f"rank {self.rank} within {self.off:.0e} of the largest row"

    @staticmethod
    def joined(parts: list[Rank]) -> Rank:
        """The rank of independent parts together."""
        return Rank(sum(p.rank for p in parts), max((p.off for p in parts), default=0.0))


@dataclass(frozen=True, eq=False)
class Dependent:
    """Rows in coordinates of their own, in which they depend on each other exactly.

    Attributes:
        rows: (m) of them, in integers.
        lift: (n, r) takes a direction in these coordinates to one of the variables.
        rank: What was assumed.
    """

    rows: tuple[Row, ...]
    lift: Array
    rank: Rank


def exact_rank(rows: tuple[Row, ...]) -> Rank:
    """The rank of integer rows."""
    return Rank(len(basis(rows)[0]))


def made_dependent(rows: Array, noise: Callable[[], Array]) -> Dependent | None:
    """Rows close to some that depend on each other in a simple way; None if there are none.

    Some rows are taken for a basis and the others written in it. Coefficients that are zero or a
    ratio of small integers but for rounding become so. Ratios are told apart from the lengths of
    rows, which say nothing of hyperplanes: as many coefficients as lengths can are made 1 first.

    Args:
        rows: (m, n), none zero.
        noise: Gives (m, n), how much of each entry rounding may be.
    """
    units = rows / np.abs(rows).max(axis=1, keepdims=True)
    triangle, order = scipy.linalg.qr(units.T, mode="r", pivoting=True, check_finite=False)
    sizes = np.abs(np.diag(triangle))
    rank = int((sizes > ROWS_ROUNDING * sizes[0]).sum())
    chosen = np.sort(order[:rank])
    coefficients = np.linalg.lstsq(units[chosen].T, units.T, rcond=None)[0].T
    coefficients[chosen] = np.eye(rank)
    coefficients[np.abs(coefficients) <= ROWS_ROUNDING * np.abs(coefficients).max()] = 0.0
    tall, wide = _lengths(coefficients)
    exact = [[_simple(v) for v in row] for row in (coefficients * tall[:, None] * wide).tolist()]
    if not all(any(row) for row in exact):
        return None
    floats = np.array([[float(v) for v in row] for row in exact]) / (tall[:, None] * wide)
    gaps = np.abs(floats @ units[chosen] - units)
    off = float(gaps.max())
    if off > ROWS_ROUNDING:
        return None
    # One of small units has small entries in all rows, which are no rounding for that.
    apart = gaps > ROWS_ROUNDING * np.abs(units).max(axis=0)
    if apart.any() and bool(
        (gaps > noise() / np.abs(rows).max(axis=1, keepdims=True))[apart].any()
    ):
        return None
    integers = []
    for row in exact:
        common = lcm(*(v.denominator for v in row))
        integers.append(primitive([v.numerator * (common // v.denominator) for v in row]))
    lift = np.linalg.pinv(units[chosen]) * wide
    return Dependent(tuple(integers), lift, Rank(rank, off))


def _simple(value: float) -> Fraction:
    """A ratio of small integers that rounding does not tell from a number, or the number."""
    near = Fraction(value).limit_denominator(int(DEPENDENT_DENOMINATOR))
    close = abs(float(near) - value) <= ROWS_ROUNDING * max(abs(value), 1.0)
    return near if close else Fraction(value)


def _lengths(coefficients: Array) -> tuple[Array, Array]:
    """Factors of rows and columns that make coefficients 1 or -1 along a spanning forest."""
    count, rank = coefficients.shape
    tall, wide = np.zeros(count), np.zeros(rank)
    for start in range(rank):
        if wide[start]:
            continue
        wide[start] = 1.0
        waiting = deque([(start, True)])
        while waiting:
            at, column = waiting.popleft()
            own = np.abs(coefficients[:, at] if column else coefficients[at])
            factors, others = (wide, tall) if column else (tall, wide)
            for i in np.flatnonzero((own > 0) & (others == 0)).tolist():
                others[i] = 1.0 / (own[i] * factors[at])
                waiting.append((i, not column))
    return tall, wide
