"""The largest margin as a linear program in the span of the rows."""

from __future__ import annotations

import numpy as np
import scipy.optimize

from clarke.deadline import UNLIMITED, Deadline
from clarke.feasibility.outcome import FloatArray
from clarke.numerics import HIGHS_TOLERANCE


def largest_margin(
    points: FloatArray, deadline: Deadline = UNLIMITED
) -> tuple[FloatArray, FloatArray] | None:
    """Maximise t subject to C u >= t and |u_j| <= 1, with HiGHS.

    Args:
        points: C, (m, r): the rows, or their coordinates in their span (from the Gram matrix), so
            that the program has at most m variables whatever n is.
        deadline: HiGHS ends with it.

    Returns:
        u, (r,), and the dual multipliers, (m,), >= 0, which solve Gordan's alternative when the
        largest margin is zero; ``None`` if HiGHS did not finish.
    """
    m, r = points.shape
    left = deadline.left
    result = scipy.optimize.linprog(
        np.r_[np.zeros(r), -1.0],
        A_ub=np.c_[-points, np.ones(m)],
        b_ub=np.zeros(m),
        bounds=[(-1.0, 1.0)] * r + [(None, None)],
        method="highs",
        options={
            "primal_feasibility_tolerance": float(HIGHS_TOLERANCE),
            "dual_feasibility_tolerance": float(HIGHS_TOLERANCE),
            **({"time_limit": max(left, 0.0)} if left < np.inf else {}),
        },
    )
    if result.x is None or not result.success:
        return None
    return np.asarray(result.x[:r]), np.maximum(-np.asarray(result.ineqlin.marginals), 0.0)
