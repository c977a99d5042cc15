"""The ladder of methods, cheapest first, and the exact gate that every answer has to pass."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np

from clarke.deadline import UNLIMITED, Deadline
from clarke.feasibility.columns import Peeling, extend, peel
from clarke.feasibility.core import candidates
from clarke.feasibility.exact import verify_contradiction, verify_witness
from clarke.feasibility.outcome import (
    Budget,
    Feasibility,
    FloatArray,
    IndexArray,
    Method,
    Outcome,
)
from clarke.feasibility.rational import as_floats, coprime, exact_multipliers
from clarke.feasibility.system import System, build, load, restrict
from clarke.numerics import (
    EXACT_ENTRY_SECONDS,
    MARGIN_COMFORTABLE,
    SUPPORTS,
    WITNESS_MARGIN,
)

_BLOCK_ENTRIES = 1 << 23  # largest dense block of rows in a contradiction


def find_witness(
    rows: Any,
    *,
    margin: float = WITNESS_MARGIN,
    budget: Budget | None = None,
    deadline: Deadline = UNLIMITED,
) -> Feasibility:
    """Find a direction d with A d > 0 on every row, or prove that there is none.

    By Gordan's theorem (1873) exactly one holds: A d > 0 for some d, or Aᵀy = 0 for some y >= 0,
    y != 0. Either is returned only after an exact check on the rows as given; a direction must
    also clear a relative margin, so that rounding inside the rows cannot have made it.

    Args:
        rows: A, (m, n), dense or any SciPy sparse format, any real dtype. Large systems stay
            sparse; the work depends on the non-zeros, not on n.
        margin: a direction needs (A d)_i / (|A_i| |d|) greater than this on every row; in [0, 1).
        budget: limits on the work, see :class:`Budget`.
        deadline: when to give up; in place of the budget's own.

    Raises:
        TypeError: if rows are not real numbers.
        ValueError: if rows are not two-dimensional and finite, or margin is out of range.
        OutOfTimeError: no answer in time.
    """
    if not 0 <= margin < 1:
        raise ValueError(f"margin must be at least 0 and below 1, got {margin}.")
    budget = budget or Budget()
    if deadline is not UNLIMITED:
        budget = replace(budget, deadline=deadline)
    budget.deadline.ask("solving rows")
    matrix, zero = load(rows)
    m, n = matrix.shape
    if m == 0:
        return Feasibility(Outcome.WITNESS, np.zeros(n), None, None, (Method.EMPTY,), np.inf)
    if len(zero):
        return _zero_row(rows, int(zero[0]), m)
    system, shifts = build(matrix)
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):  # the gate sees to it
        return _Search(rows, system, shifts, margin, budget).run()


class _Search:
    """One run of the ladder: tries candidates and keeps the best that passed the gate."""

    def __init__(
        self, rows: Any, system: System, shifts: IndexArray, margin: float, budget: Budget
    ) -> None:
        self._rows = rows
        self._system = system
        self._shifts = shifts
        self._required = margin
        self._budget = budget
        self._best: Feasibility | None = None
        self._best_margin = -np.inf
        self._approximate: FloatArray | None = None

    def run(self) -> Feasibility:
        m, n = self._system.shape
        everything = Peeling((), np.arange(m))
        peeling = peel(self._system, self._budget.rounds) if m > 1 else everything
        if self._peeled(peeling):
            return self._answer()
        if peeling.rounds and np.isfinite(self._best_margin):
            # Feasible, but the domination chain left little margin: solve all rows together.
            self._core(everything, self._system, np.arange(n))
        return self._answer()

    def _peeled(self, peeling: Peeling) -> bool:
        n = self._system.shape[1]
        if len(peeling.core) == 0:
            return self._direction(extend(self._system, peeling, np.zeros(n)), _methods(peeling))
        if not peeling.rounds and self._system.is_dense:
            return self._core(peeling, self._system, np.arange(n))
        return self._core(peeling, *restrict(self._system, peeling.core))

    def _core(self, peeling: Peeling, core: System, columns: IndexArray) -> bool:
        """Try candidates on the core rows until one is conclusive."""
        m, n = self._system.shape
        for found in candidates(core, self._budget):
            self._budget.deadline.ask("solving {} rows", m)
            methods = (*_methods(peeling), found.method)
            if found.multipliers is not None:
                weights = np.zeros(m)
                weights[peeling.core] = found.multipliers
                if self._contradiction(weights, methods):
                    return True
            if found.direction is not None:
                smallest = float((core.matrix @ found.direction).min())
                if smallest > 0:
                    start = np.zeros(n)
                    start[columns] = found.direction / smallest
                    if self._direction(extend(self._system, peeling, start), methods):
                        return True
                    if core.margin(found.direction) >= MARGIN_COMFORTABLE:
                        return False  # a better one for the core would not help
        return False

    def _direction(self, direction: FloatArray | None, methods: tuple[Method, ...]) -> bool:
        """Gate for a witness; returns whether to stop looking."""
        if direction is None:
            self._best_margin = max(self._best_margin, 0.0)
            return False
        direction = np.ldexp(direction, 1 - int(np.frexp(np.abs(direction).max())[1]))
        margin = self._system.margin(direction)
        if margin > self._best_margin:
            self._best_margin = margin
            if margin > self._required and verify_witness(self._rows, direction):
                self._best = Feasibility(Outcome.WITNESS, direction, None, None, methods, margin)
        return self._best is not None and margin >= MARGIN_COMFORTABLE

    def _contradiction(self, weights: FloatArray, methods: tuple[Method, ...]) -> bool:
        """Gate for a contradiction: make the multipliers of the scaled rows exact; check them."""
        previous = -1
        for relative in SUPPORTS:
            support = np.flatnonzero(weights > relative * weights.max())
            if len(support) == previous or len(support) > self._budget.exact_support:
                continue
            previous = len(support)
            block = restrict(self._system, support)[0].matrix
            if block.shape[0] * block.shape[1] > _BLOCK_ENTRIES:
                continue
            block = block if isinstance(block, np.ndarray) else block.toarray()
            exact = exact_multipliers(block, weights[support], self._budget.deadline)
            if exact is None:
                continue
            # Of the rows as given: every entry is multiplied and added once.
            self._budget.deadline.afford(
                block.size * EXACT_ENTRY_SECONDS, "checking a contradiction exactly"
            )
            powers = (Fraction(2) ** int(shift) for shift in self._shifts[support])
            integers = coprime([y * power for y, power in zip(exact, powers, strict=True)])
            found = _exact(self._rows, support, integers, len(weights), methods)
            if found is not None:
                self._best = found
                return True
        if self._approximate is None:
            shifts = self._shifts - self._shifts[weights > 0].max()
            self._approximate = np.ldexp(weights, shifts)
        return False

    def _answer(self) -> Feasibility:
        if self._best is not None:
            return self._best
        return Feasibility(
            Outcome.INCONCLUSIVE, None, self._approximate, None, (), float(self._best_margin)
        )


def _methods(peeling: Peeling) -> tuple[Method, ...]:
    return (Method.PURE_COLUMNS,) if peeling.rounds else ()


def _zero_row(rows: Any, row: int, m: int) -> Feasibility:
    found = _exact(rows, np.array([row]), [1], m, (Method.ZERO_ROW,))
    if found is not None:
        return found
    # Repeated sparse entries whose sum is zero only after rounding.
    return Feasibility(Outcome.INCONCLUSIVE, None, None, None, (), -np.inf)


def _exact(
    rows: Any, support: IndexArray, integers: list[int], m: int, methods: tuple[Method, ...]
) -> Feasibility | None:
    """The contradiction with these multipliers on the support, if it holds exactly."""
    exact, floats = [Fraction(0)] * m, np.zeros(m)
    for row, value in zip(support.tolist(), integers, strict=True):
        exact[row] = Fraction(value)
    if not verify_contradiction(rows, exact):
        return None
    floats[support] = as_floats(integers)
    if methods[-1] is not Method.ZERO_ROW:
        methods = (*methods, Method.RATIONAL_ELIMINATION)
    return Feasibility(Outcome.CONTRADICTION, None, floats, tuple(exact), methods, np.nan)
