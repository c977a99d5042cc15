"""What a search for a witness returns: plain data, no algorithm."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from clarke.deadline import UNLIMITED, Deadline

FloatArray = NDArray[np.float64]
IndexArray = NDArray[np.intp]


class Outcome(Enum):
    """The answers to "is there a d with A d > 0 on every row?"; values are sentences for users."""

    WITNESS = "a direction satisfies every row strictly"
    CONTRADICTION = (
        "no direction satisfies every row: a non-negative combination of the rows is exactly zero"
    )
    INCONCLUSIVE = (
        "neither a direction with a safe margin nor an exactly vanishing combination was found"
    )


class Method(Enum):
    """How an answer was found; each value is a sentence for users."""

    EMPTY = "there are no rows, so every direction satisfies them"
    ZERO_ROW = "a row is zero, so no direction can make it positive"
    OPPOSITE_ROWS = "two rows point in exactly opposite directions"
    PURE_COLUMNS = "coordinates that have one sign in every row they still appear in settled rows"
    SINGLE_ROW = "a single row was left, and it is its own witness"
    INDEPENDENT_ROWS = (
        "least squares solved A d = 1, which it can whenever the rows are linearly independent"
    )
    MIN_NORM_POINT = (
        "the point of smallest norm in the convex hull of the rows settles which alternative holds"
    )
    GRAM_LP = "a linear program in the span of the rows maximised the margin"
    SQUARED_HINGE = "Newton's method brought the squared violation of the rows to zero"
    COMPONENTS = "rows that share no column with the others were solved apart"
    ACTIVE_SET = "the rows that were still violated were solved first and the others checked"
    RATIONAL_ELIMINATION = "exact elimination on the rows involved gave the multipliers"


@dataclass(frozen=True)
class Budget:
    """Limits on the work of :func:`~clarke.feasibility.find_witness`.

    Counts, so that runs repeat; a deadline only for the call that must not wait any longer.

    Attributes:
        rounds: rounds of pure columns.
        newton_steps: Newton steps of the squared hinge.
        inner_steps: conjugate-gradient steps inside each Newton step.
        active_rows: rows whose minimum-norm point is computed at once.
        active_work: multiplications, in total, in one sequence of minimum-norm points.
        exact_support: rows in a contradiction that is made exact (cost grows as its fourth power).
        lp_entries: matrix entries given to the linear program.
        deadline: asked between all steps; what cannot be interrupted is sized to the time left.
    """

    rounds: int = 64
    newton_steps: int = 60
    inner_steps: int = 40
    active_rows: int = 1500
    active_work: int = 3_000_000_000
    exact_support: int = 128
    lp_entries: int = 400_000
    deadline: Deadline = UNLIMITED

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if isinstance(value, int) and value < 1:
                raise ValueError(f"Budget.{name} must be at least 1, got {value}.")


@dataclass(frozen=True, eq=False)
class Feasibility:
    """An answer with its certificate, for rows A of shape (m, n).

    Attributes:
        outcome: which of the three answers.
        direction: (n,) for a WITNESS: A d > 0 exactly, largest entry in [1, 2); else ``None``.
        multipliers: (m,) for a CONTRADICTION: ``exact_multipliers`` rounded to float64. For
            INCONCLUSIVE: the best approximate multipliers met, or ``None``.
        exact_multipliers: m rationals y >= 0, y != 0 with Aᵀy = 0 exactly; only for CONTRADICTION.
        methods: what led to the answer, in order; empty when INCONCLUSIVE.
        margin: for a WITNESS, min over rows of (A d)_i / (|A_i| |d|), Euclidean norms, ``inf``
            without rows. For INCONCLUSIVE the best one met (``-inf``: none). For CONTRADICTION
            ``nan``.
    """

    outcome: Outcome
    direction: FloatArray | None
    multipliers: FloatArray | None
    exact_multipliers: tuple[Fraction, ...] | None
    methods: tuple[Method, ...]
    margin: float


@dataclass(frozen=True, eq=False)
class Candidate:
    """A direction, (n,), or multipliers, (m,), not checked yet; exactly one is given."""

    method: Method
    direction: FloatArray | None = None
    multipliers: FloatArray | None = None

    def spread(self, rows: IndexArray, m: int, columns: IndexArray, n: int) -> Candidate:
        """The candidate of a part, the given rows and columns, as one of the whole (m, n)."""
        direction, multipliers = self.direction, self.multipliers
        return Candidate(
            self.method,
            None if direction is None else spread(direction, columns, n),
            None if multipliers is None else spread(multipliers, rows, m),
        )


def spread(values: FloatArray, index: IndexArray, length: int) -> FloatArray:
    """The values at the indices, zero elsewhere, (length,)."""
    result = np.zeros(length)
    result[index] = values
    return result
