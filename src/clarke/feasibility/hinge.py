"""Squared hinge: minimise Σ max(0, 1 - aᵢ·d)² over d by Newton's method, for many sparse rows.

One problem answers both sides. With unit rows aᵢ, its minimum is zero exactly when some d has
A d > 0; otherwise the multipliers y = max(0, 1 - A d) at a minimiser satisfy Aᵀy = 0, y >= 0,
y != 0, which is Gordan's alternative. The function is piecewise quadratic, so Newton's method with
an exact line search ends after finitely many steps (Mangasarian, *A finite Newton method for
classification*, 2002; Keerthi and DeCoste, *A modified finite Newton method for fast solution of
large scale linear SVMs*, JMLR 6, 2005). Steps are least-squares problems on the violated rows,
solved by conjugate gradients (CGLS): no matrix is formed, and d stays in the span of the rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from clarke.feasibility.outcome import Budget, FloatArray
from clarke.numerics import CGLS_ENDS

_ENOUGH = 0.3  # aᵢ·d from which a row counts as solved; 1 would gain little margin


@dataclass(frozen=True, eq=False)
class HingeResult:
    """Where Newton's method stopped.

    Attributes:
        direction: (n,).
        multipliers: (m,) the remaining violations max(0, 1 - A d).
        solved: whether every row reached the required value.
        steps: Newton steps taken; one step is plain least squares on all rows.
    """

    direction: FloatArray
    multipliers: FloatArray
    solved: bool
    steps: int


def squared_hinge(
    matrix: Any, start: FloatArray, stationary: float, steps: int, budget: Budget
) -> HingeResult:
    """Minimise the squared hinge until all rows are clearly positive or y nearly a contradiction.

    Args:
        matrix: (m, n), CSR, rows of norm 1.
        start: (n,), where to start; zero to stay in the span of the rows.
        stationary: |Aᵀy| / |y| at which to stop.
        steps: most Newton steps to take.
        budget: gives the steps inside each.
    """
    direction, values = start.copy(), matrix @ start
    slack, taken = 1.0 - values, 0
    while taken < steps:
        budget.deadline.ask("solving {} rows by Newton's method", len(values))
        step, change = _least_squares(matrix, np.maximum(slack, 0.0), slack > 0, budget)
        length = _step_length(slack, change)
        if length <= 0:
            break
        taken += 1
        direction += length * step
        values += length * change
        slack = 1.0 - values
        if values.min() >= _ENOUGH:
            break
        violation = np.maximum(slack, 0.0)
        if np.linalg.norm(matrix.T @ violation) <= stationary * np.linalg.norm(violation):
            break
    values = matrix @ direction
    return HingeResult(direction, np.maximum(1.0 - values, 0.0), bool(values.min() > 0), taken)


def _least_squares(
    matrix: Any, residual: FloatArray, active: Any, budget: Budget
) -> tuple[FloatArray, FloatArray]:
    """CGLS for min |A_S x - r| over the active rows S; returns x and A x on all rows."""
    x, image = np.zeros(matrix.shape[1]), np.zeros(matrix.shape[0])
    gradient = matrix.T @ residual
    search, squared = gradient.copy(), float(gradient @ gradient)
    target = CGLS_ENDS * squared
    for _ in range(budget.inner_steps):
        budget.deadline.ask()
        if squared <= target:
            break
        product = matrix @ search
        on_active = np.where(active, product, 0.0)
        curvature = float(on_active @ on_active)
        if curvature <= 0:
            break
        length = squared / curvature
        x += length * search
        image += length * product
        residual = residual - length * on_active
        gradient = matrix.T @ residual
        previous, squared = squared, float(gradient @ gradient)
        search = gradient + (squared / previous) * search
    return x, image


def _step_length(slack: FloatArray, change: FloatArray) -> float:
    """The t >= 0 minimising Σ max(0, slack - t change)², exactly.

    The derivative is piecewise linear and non-decreasing; its kinks, where a row starts or ends
    being violated, are sorted and its coefficients accumulated.
    """
    violated = (slack > 0) | ((slack == 0) & (change < 0))
    crossing = (slack > 0) & (change > 0) | (slack < 0) & (change < 0)
    rows = np.flatnonzero(crossing)
    at = slack[rows] / change[rows]
    order = np.argsort(at)
    rows, at = rows[order], at[order]
    # On each piece half the negative derivative is constant - t * slope.
    sign = np.where(slack[rows] > 0, -1.0, 1.0)
    product, square = slack * change, change * change
    constant = product[violated].sum() + np.r_[0.0, np.cumsum(sign * product[rows])]
    slope = square[violated].sum() + np.r_[0.0, np.cumsum(sign * square[rows])]
    if not constant[0] > 0:
        return 0.0  # no descent
    if len(at) == 0:
        return float(constant[0] / slope[0])
    ended = np.flatnonzero(constant[:-1] - at * slope[:-1] <= 0)
    piece = int(ended[0]) if len(ended) else len(at)
    if slope[piece] > 0 and constant[piece] / slope[piece] > 0:
        lower = at[piece - 1] if piece else 0.0
        upper = at[piece] if piece < len(at) else np.inf
        return float(min(max(constant[piece] / slope[piece], lower), upper))
    return float(at[min(piece, len(at) - 1)])
