"""Full column rank, with a certificate in real arithmetic: Theorem 5's run-time check."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np
import scipy.linalg

from clarke.capture import digest
from clarke.numerics import DIVISOR, UNIT

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray
    from typing_extensions import Self

_EXACT = 40  # largest size for which elimination in rationals settles what bounds do not


@dataclass(frozen=True, eq=False)
class FullRank:
    """Proof that the columns of X are linearly independent.

    A square part M of X (some of its rows) and an approximate inverse R with ``|I - R M| < 1`` in
    the maximum norm: then R M is not singular (Neumann series), so neither is M.

    Attributes:
        rows: (n,) rows of X that form M.
        inverse: (n, n) R; for a proof by elimination in rationals, None.
        seal: Binds both to X.
    """

    rows: NDArray[np.int64]
    inverse: NDArray[np.float64] | None
    seal: str = ""

    def sealed(self, matrix: ArrayLike) -> Self:
        """The same, bound to a matrix."""
        return replace(self, seal=self._seal(matrix))

    def _seal(self, matrix: ArrayLike) -> str:
        return digest(np.asarray(matrix, dtype=np.float64), self.rows, self.inverse)

    def verify(self, matrix: ArrayLike) -> bool:
        """Check the proof again for X, (m, n), every rounding error bounded."""
        x = np.asarray(matrix, dtype=np.float64)
        if x.ndim != 2 or self.seal != self._seal(x):
            return False
        n = x.shape[1]
        rows = np.asarray(self.rows)
        if rows.shape != (n,) or rows.dtype.kind not in "iu" or len(set(rows.tolist())) != n:
            return False
        if n and not (rows.min() >= 0 and rows.max() < len(x)):
            return False
        square = x[rows]
        if not np.isfinite(square).all():
            return False
        if self.inverse is None:
            return n <= _EXACT and _regular(square)
        return n == 0 or _defect(self.inverse, square) < 1


def full_column_rank(matrix: ArrayLike) -> FullRank | None:
    """Whether X has linearly independent columns, as a certificate; None if that is not proved.

    Args:
        matrix: (m, n), for Theorem 5 the inputs of a layer: a column for each sample, a row for
            each feature (a row of ones where the layer has a bias).

    None says that X is rank deficient, or so close to it that float64 cannot tell.
    """
    x = np.asarray(matrix, dtype=np.float64)
    m, n = x.shape
    if n > m or not np.isfinite(x).all():
        return None
    if n == 0:
        return FullRank(np.zeros(0, dtype=np.int64), None).sealed(x)
    scale = np.abs(x).max(axis=0)
    if not (scale > 0).all():
        return None
    _, order = scipy.linalg.qr((x / scale).T, mode="r", pivoting=True)
    rows = np.sort(order[:n]).astype(np.int64)
    square = x[rows]
    inverse: NDArray[np.float64] | None
    try:
        inverse = np.asarray(np.linalg.inv(square), dtype=np.float64)
    except np.linalg.LinAlgError:
        inverse = None
    if inverse is not None and np.isfinite(inverse).all() and _defect(inverse, square) < 1:
        return FullRank(rows, inverse).sealed(x)
    if n <= _EXACT and _regular(square):
        return FullRank(rows, None).sealed(x)
    return None


def _defect(inverse: NDArray[np.float64], square: NDArray[np.float64]) -> float:
    """An upper bound of the row-sum norm of I - R M.

    A product of n terms in floating point errs by at most n u / (1 - n u) times the product of the
    absolute values (Higham, Accuracy and Stability, section 3.5), plus underflow.
    """
    n = len(square)
    if inverse.shape != (n, n):
        return float("inf")
    with np.errstate(over="ignore", invalid="ignore"):
        gap = np.abs(np.eye(n) - inverse @ square)
        size = np.abs(inverse) @ np.abs(square)
        bound = gap + 4 * (n + 2) * UNIT * (size + 1) + n * DIVISOR
        total = float(bound.sum(axis=1).max()) * (1 + 4 * n * UNIT)
    return total if np.isfinite(total) else float("inf")


def _regular(square: NDArray[np.float64]) -> bool:
    """Whether a square matrix is not singular, by elimination in rationals."""
    rows = [[Fraction(v) for v in row] for row in square.tolist()]
    n = len(rows)
    for k in range(n):
        pivot = next((i for i in range(k, n) if rows[i][k]), None)
        if pivot is None:
            return False
        rows[k], rows[pivot] = rows[pivot], rows[k]
        for i in range(k + 1, n):
            factor = rows[i][k] / rows[k][k]
            if factor:
                rows[i] = [a - factor * b for a, b in zip(rows[i], rows[k], strict=True)]
    return True
