"""Candidates for rows that no pure column settles, cheapest method first, as a lazy sequence.

Nothing here is trusted: a candidate is a direction or multipliers that may be right, and whoever
asks for it checks it and asks for the next if it does not hold.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from clarke.feasibility.hinge import squared_hinge
from clarke.feasibility.margin_lp import largest_margin
from clarke.feasibility.nearest import RESOLUTIONS, from_gram, weights_of_nearest
from clarke.feasibility.outcome import Budget, Candidate, FloatArray, Method, spread
from clarke.feasibility.parallel import merge_parallel
from clarke.feasibility.system import System, components, restrict
from clarke.numerics import (
    COMBINATION_NEAR_ZERO,
    COMBINATION_ZERO,
    MARGIN_SAFE,
    NEWTON_ENDS,
    VIOLATED,
)

_FIRST_ROWS = 600  # rows with which the active set starts
_CHANGES = 25  # times the active set may change
_FIRST_STEPS = 10  # Newton steps before other methods are tried
_COARSE, _FINE = NEWTON_ENDS  # |Aᵀy| / |y| at which Newton's method stops, first and last time
_NARROW = 1000  # rank up to which the minimum-norm point is cheaper than Newton's method
_CLEAR = 0.1  # value of a unit row from which Newton's direction is kept for it


def candidates(system: System, budget: Budget) -> Iterator[Candidate]:
    """Directions and multipliers for the rows of the system, to be checked by the caller."""
    if system.shape[0] == 1:
        row = system.matrix if system.is_dense else system.matrix.toarray()
        yield Candidate(Method.SINGLE_ROW, direction=row[0])
    elif system.is_dense:
        yield from _dense(system, budget)
    else:
        yield from _sparse(system, budget)


def _dense(system: System, budget: Budget) -> Iterator[Candidate]:
    rows = system.unit()
    m, n = rows.shape
    if m <= n:
        d = np.linalg.lstsq(rows, np.ones(m), rcond=None)[0]
        if (rows @ d).min() > 0.5:
            yield Candidate(Method.INDEPENDENT_ROWS, direction=d)
    for resolution in RESOLUTIONS:
        weights = weights_of_nearest(rows, resolution, budget.deadline)
        if weights is not None:
            d = weights @ rows
            if np.linalg.norm(d) < COMBINATION_NEAR_ZERO:
                yield Candidate(Method.MIN_NORM_POINT, multipliers=weights / system.norms)
            if (rows @ d).min() > 0:
                yield Candidate(Method.MIN_NORM_POINT, direction=d)
    yield from _program(system, rows, budget)


def _sparse(system: System, budget: Budget) -> Iterator[Candidate]:
    m, n = system.shape
    kept, opposite = merge_parallel(system)
    for pair in opposite:
        multipliers = np.zeros(m)
        multipliers[list(pair)] = 1.0 / system.norms[list(pair)]
        yield Candidate(Method.OPPOSITE_ROWS, multipliers=multipliers)
    part, columns = restrict(system, kept)
    inner = _dense(part, budget) if part.is_dense else _iterate(part, budget, split=True)
    for found in inner:
        yield found.spread(kept, m, columns, n)


def _iterate(system: System, budget: Budget, *, split: bool) -> Iterator[Candidate]:
    rows = system.unit()
    result = squared_hinge(rows, np.zeros(rows.shape[1]), _COARSE, 1, budget)
    if result.solved:
        yield Candidate(Method.INDEPENDENT_ROWS, direction=result.direction)
    changes = _CHANGES
    labels = components(system) if split else np.zeros(len(system.norms), dtype=np.intp)
    if labels.max() > 0:
        yield from _by_component(system, labels, result.direction, rows, budget)
        changes = 0
    else:
        first = changes if min(rows.shape) <= _NARROW else 0
        yield from _active_set(system, rows, result.multipliers, first, budget)
    for stationary, steps in ((_COARSE, _FIRST_STEPS), (_FINE, budget.newton_steps)):
        result = squared_hinge(rows, result.direction, stationary, steps, budget)
        if result.solved:
            yield Candidate(Method.SQUARED_HINGE, direction=result.direction)
        yield from _active_set(system, rows, result.multipliers, changes, budget)
    yield from _program(system, rows, budget)
    yield Candidate(Method.SQUARED_HINGE, multipliers=result.multipliers / system.norms)


def _by_component(
    system: System, labels: Any, start: FloatArray, rows: Any, budget: Budget
) -> Iterator[Candidate]:
    """Solve each set of rows that shares no column with the others, unless the start solves it."""
    m, n = system.shape
    direction = start.copy()
    order = np.argsort(labels, kind="stable")
    bounds = np.flatnonzero(np.diff(labels[order])) + 1
    values = rows @ start
    for index in np.split(order, bounds):
        if values[index].min() >= _CLEAR:
            continue
        part, columns = restrict(system, index)
        inner = _dense(part, budget) if part.is_dense else _iterate(part, budget, split=False)
        best = 0.0
        for found in inner:
            if found.multipliers is not None:
                yield found.spread(index, m, columns, n)
            elif found.direction is not None:
                smallest = float(((part.matrix @ found.direction) / part.norms).min())
                margin = smallest / float(np.linalg.norm(found.direction) or 1.0)
                if margin > best:
                    best = margin
                    direction[columns] = found.direction / smallest
                if best >= MARGIN_SAFE:
                    break
        if best <= 0:
            return
    yield Candidate(Method.COMPONENTS, direction=direction)


def _active_set(
    system: System, rows: Any, violation: FloatArray, changes: int, budget: Budget
) -> Iterator[Candidate]:
    """Minimum-norm point of the most violated rows; check the others, exchange rows, repeat.

    The length of the point never grows, because the rows that it uses are kept.
    """
    m, limit, work = system.shape[0], budget.active_rows, 0
    order = np.argsort(-violation, kind="stable")[: min(_FIRST_ROWS, limit)]
    chosen = np.sort(order[violation[order] > VIOLATED * violation.max()])
    for _ in range(changes + 1):
        if len(chosen) == 0:
            return
        budget.deadline.ask("solving the most violated of {} rows", m)
        part = rows[chosen]
        points = _coordinates(part)
        weights = weights_of_nearest(points, deadline=budget.deadline)
        if weights is None:
            return
        work += int(np.count_nonzero(weights)) * points.size
        d = part.T @ weights
        squared = float(d @ d)
        if squared < COMBINATION_NEAR_ZERO**2:
            multipliers = spread(weights / system.norms[chosen], chosen, m)
            yield Candidate(Method.ACTIVE_SET, multipliers=multipliers)
            if squared < COMBINATION_ZERO**2:
                return
        values = rows @ d
        if values.min() > 0:
            yield Candidate(Method.ACTIVE_SET, direction=d)
        chosen_values = values[chosen]
        values[chosen] = np.inf
        worst = np.flatnonzero(values < 0.5 * squared)
        kept = chosen[(weights > 0) | (chosen_values < 3.0 * squared)][:limit]
        room = min(max(len(chosen), 100), limit - len(kept))
        worst = worst[np.argsort(values[worst], kind="stable")[:room]]
        if len(worst) == 0 or work > budget.active_work:
            return
        chosen = np.sort(np.r_[kept, worst])


def _program(system: System, rows: Any, budget: Budget) -> Iterator[Candidate]:
    m, n = rows.shape
    if m * min(m, n) > budget.lp_entries:
        return
    points = _coordinates(rows) if m < n else (rows if system.is_dense else rows.toarray())
    found = largest_margin(points, budget.deadline)
    if found is None:
        return
    u, multipliers = found
    if m < n and points is not rows:
        # In coordinates C of the span, d = Aᵀv has the values C u where Cᵀv = u.
        u = rows.T @ np.linalg.lstsq(points.T, u, rcond=None)[0]
    if multipliers.max() > 0:
        yield Candidate(Method.GRAM_LP, multipliers=multipliers / system.norms)
    yield Candidate(Method.GRAM_LP, direction=u)


def _coordinates(rows: Any) -> FloatArray:
    """The rows (m, n) if dense or narrow, else (m, r) coordinates with their Gram matrix."""
    m, n = rows.shape
    if isinstance(rows, np.ndarray):
        return rows
    if n <= 4 * m:
        dense: FloatArray = rows.toarray()
        return dense
    return from_gram((rows @ rows.T).toarray())
