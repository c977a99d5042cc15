"""Turning approximate multipliers into rationals for which Aᵀy vanishes exactly."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import scipy.linalg

from clarke.deadline import UNLIMITED, Deadline
from clarke.feasibility.outcome import FloatArray, IndexArray
from clarke.numerics import PIVOT_RANK


def exact_multipliers(
    block: FloatArray, weights: FloatArray, deadline: Deadline = UNLIMITED
) -> list[Fraction] | None:
    """Rationals y >= 0 near the weights with Σ yᵢ aᵢ = 0, or ``None``.

    Floating point only chooses which columns are independent and which multipliers are determined
    by the others (QR with column pivoting, Businger and Golub 1965); those are then solved for
    exactly. A wrong choice can give a wrong answer: check the result with
    :func:`~clarke.feasibility.verify_contradiction`.

    Args:
        block: (s, u), the rows aᵢ that take part, entries of moderate size.
        weights: (s,), positive, with Σ wᵢ aᵢ near zero.
        deadline: asked at every step of the elimination.
    """
    columns = _independent(block)
    if not 0 < len(columns) < len(block):
        return None
    basic = _independent(block[:, columns].T)
    if len(basic) != len(columns):
        return None  # of almost dependent rows, rounding finds another number than of columns
    free = np.setdiff1d(np.arange(len(block)), basic)
    integers, shifts = _integer_rows(block[:, columns])
    # Unknowns z = y 2**-shift, so that the equations have integer coefficients.
    given = _round(weights[free]) if len(free) > 1 else [Fraction(1)]
    z = [y / (1 << shifts[i]) for i, y in zip(free.tolist(), given, strict=True)]
    scale = math.lcm(*(value.denominator for value in z))
    whole = [int(value * scale) for value in z]
    system = []
    for j in range(len(columns)):
        right = -sum(integers[i][j] * value for i, value in zip(free.tolist(), whole, strict=True))
        equation = [*(integers[i][j] for i in basic.tolist()), right]
        divisor = math.gcd(*equation) or 1
        system.append([entry // divisor for entry in equation])
    solution = _solve(system, deadline)
    if solution is None:
        return None
    result = [Fraction(0)] * len(block)
    for i, value in zip(basic.tolist(), solution, strict=True):
        result[i] = value * (1 << shifts[i])
    for i, total in zip(free.tolist(), whole, strict=True):
        result[i] = Fraction(total * (1 << shifts[i]))
    return result if min(result) >= 0 else None


def coprime(values: list[Fraction]) -> list[int]:
    """The smallest integers proportional to the values (not all zero)."""
    common = math.lcm(*(value.denominator for value in values))
    integers = [value.numerator * (common // value.denominator) for value in values]
    divisor = math.gcd(*integers)
    return [value // divisor for value in integers]


def as_floats(integers: list[int]) -> FloatArray:
    """The integers themselves where all fit a float64 exactly, else divided by the largest."""
    largest = max(integers)
    if largest.bit_length() <= 53:
        return np.array(integers, dtype=np.float64)
    return np.array([float(Fraction(value, largest)) for value in integers])


def _independent(block: FloatArray) -> IndexArray:
    """Indices of a well-conditioned maximal set of independent columns."""
    triangle, order = scipy.linalg.qr(block, mode="r", pivoting=True, check_finite=False)
    diagonal = np.abs(np.diag(triangle))
    rank = int((diagonal > PIVOT_RANK * diagonal[0]).sum()) if diagonal[0] > 0 else 0
    return np.asarray(order[:rank], dtype=np.intp)


def _integer_rows(block: FloatArray) -> tuple[list[list[int]], list[int]]:
    """Integers B and shifts k >= 0 with block = B 2**-k row by row."""
    rows, shifts = [], []
    for row in block.tolist():
        ratios = [value.as_integer_ratio() for value in row]
        shift = max(denominator.bit_length() - 1 for _, denominator in ratios)
        rows.append([number * ((1 << shift) // denominator) for number, denominator in ratios])
        shifts.append(shift)
    return rows, shifts


def _round(weights: FloatArray) -> list[Fraction]:
    """Positive rationals within 2**-30 relative of the weights: short, so cheap to eliminate."""
    fraction, power = np.frexp(weights / weights.max())
    numerators = np.maximum(np.round(fraction * 2.0**30), 1.0)
    return [
        Fraction(int(a)) * Fraction(2) ** (int(e) - 30)
        for a, e in zip(numerators, power, strict=True)
    ]


def solve_exactly(
    matrix: Sequence[Sequence[Fraction]], right: Sequence[Fraction], deadline: Deadline
) -> list[Fraction] | None:
    """The solution of a square system, or None if it is singular."""
    system = []
    for row, end in zip(matrix, right, strict=True):
        entries = [*row, end]
        scale = math.lcm(*(v.denominator for v in entries))
        system.append([int(v * scale) for v in entries])
    return _solve(system, deadline)


def _solve(system: list[list[int]], deadline: Deadline) -> list[Fraction] | None:
    """Solve a square integer system [M | b] by fraction-free Gauss-Jordan (Bareiss 1968)."""
    size, previous = len(system), 1
    for k in range(size):
        deadline.ask("eliminating in rational numbers: step {} of {}", k + 1, size)
        pivot = min((i for i in range(k, size) if system[i][k]), default=None,
                    key=lambda i: abs(system[i][k]))  # fmt: skip
        if pivot is None:
            return None
        system[k], system[pivot] = system[pivot], system[k]
        head = system[k]
        lead = head[k]
        for i in range(size):
            if i == k:
                continue
            row, factor = system[i], system[i][k]
            for j in range(k + 1, size + 1):
                row[j] = (lead * row[j] - factor * head[j]) // previous
            row[k] = 0
            if i < k:
                row[i] = lead
        previous = lead
    return [Fraction(system[k][size], previous) for k in range(size)]
