"""Rows as the finders see them: validated, scaled by powers of two, restricted to used columns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse
import scipy.sparse.csgraph
from numpy.typing import NDArray

from clarke.feasibility.outcome import FloatArray, IndexArray

DENSE_ENTRIES = 1 << 16  # a dense array up to this size is faster than a sparse one


@dataclass(frozen=True, eq=False)
class System:
    """Rows A of shape (m, n), each scaled by 2**shift so that its largest entry is in [0.5, 1).

    Attributes:
        matrix: (m, n) float64, dense when small, else CSR.
        row, col, val: the non-zeros, sorted by row; each row has at least one.
        norms: (m,) Euclidean norms of the scaled rows.
    """

    matrix: Any
    row: IndexArray
    col: IndexArray
    val: FloatArray
    norms: FloatArray

    @property
    def shape(self) -> tuple[int, int]:
        """Numbers of rows and columns, (m, n)."""
        m, n = self.matrix.shape
        return int(m), int(n)

    @property
    def is_dense(self) -> bool:
        """Whether the matrix is a NumPy array."""
        return isinstance(self.matrix, np.ndarray)

    def unit(self) -> Any:
        """The rows divided by their norms, up to rounding: for finders, never for certificates."""
        if self.is_dense:
            return self.matrix / self.norms[:, None]
        parts = (self.val / self.norms[self.row], self.matrix.indices, self.matrix.indptr)
        return scipy.sparse.csr_array(parts, shape=self.matrix.shape)

    def margin(self, direction: FloatArray) -> float:
        """Smallest over the rows of (A d)_i / (|A_i| |d|); -inf for the zero direction."""
        length = float(np.linalg.norm(direction))
        if not 0 < length < np.inf:
            return -np.inf
        return float(((self.matrix @ direction) / self.norms).min() / length)


def load(rows: Any) -> tuple[Any, IndexArray]:
    """The rows as float64, dense if small, else canonical CSR, and the indices of zero rows.

    Raises:
        TypeError: unless rows are real numbers.
        ValueError: unless they are two-dimensional and finite, and float64 holds them exactly.
    """
    if scipy.sparse.issparse(rows):
        matrix = scipy.sparse.csr_array(rows)
        data = _as_float64(matrix.data)
        matrix = scipy.sparse.csr_array((data, matrix.indices, matrix.indptr), shape=matrix.shape)
        if not matrix.has_canonical_format:
            matrix = matrix.copy()
            matrix.sum_duplicates()
        if not matrix.data.all():
            matrix = matrix.copy()
            matrix.eliminate_zeros()
        return matrix, np.flatnonzero(np.diff(matrix.indptr) == 0)
    dense = _as_float64(np.asarray(rows))
    if dense.ndim != 2:
        raise ValueError(f"rows must have shape (m, n), got {dense.shape}.")
    if dense.size > DENSE_ENTRIES:
        return load(scipy.sparse.csr_array(dense))
    return dense, np.flatnonzero(~dense.any(axis=1))


def build(matrix: Any) -> tuple[System, IndexArray]:
    """The system of a loaded matrix without zero rows, and the shift of each row, (m,) integers."""
    if isinstance(matrix, np.ndarray):
        _, shifts = np.frexp(np.abs(matrix).max(axis=1))
        scaled = np.ldexp(matrix, -shifts[:, None])
        row, col = np.nonzero(scaled)
        return _system(scaled, row, col, scaled[row, col]), -shifts.astype(np.intp)
    counts = np.diff(matrix.indptr)
    _, shifts = np.frexp(np.maximum.reduceat(np.abs(matrix.data), matrix.indptr[:-1]))
    data = np.ldexp(matrix.data, np.repeat(-shifts, counts))
    scaled = scipy.sparse.csr_array((data, matrix.indices, matrix.indptr), shape=matrix.shape)
    if not data.all():  # entries 2**1022 times smaller than the largest of their row
        scaled = scaled.copy()
        scaled.eliminate_zeros()
    return _sparse_system(scaled), -shifts.astype(np.intp)


def restrict(system: System, rows: IndexArray) -> tuple[System, IndexArray]:
    """The given rows over the columns that they use, and those columns' indices."""
    if system.is_dense:
        part = system.matrix[rows]
        columns = np.flatnonzero(part.any(axis=0))
        part = part[:, columns]
        row, col = np.nonzero(part)
        return _system(part, row, col, part[row, col]), columns
    part = system.matrix[rows] if len(rows) < system.shape[0] else system.matrix
    if 20 * part.nnz < system.shape[1]:
        columns, indices = np.unique(part.indices, return_inverse=True)
    else:
        used = np.zeros(system.shape[1], dtype=bool)
        used[part.indices] = True
        columns, indices = np.flatnonzero(used), (np.cumsum(used) - 1)[part.indices]
    shape = (part.shape[0], len(columns))
    part = scipy.sparse.csr_array((part.data, indices, part.indptr), shape=shape)
    if shape[0] * shape[1] <= DENSE_ENTRIES:
        dense = part.toarray()
        row, col = np.nonzero(dense)
        return _system(dense, row, col, dense[row, col]), columns
    return _sparse_system(part), columns


def components(system: System) -> IndexArray:
    """A label for each row, (m,): equal for rows linked by a chain of shared columns."""
    m, n = system.shape
    ends = np.r_[system.matrix.indptr, np.full(n, system.matrix.indptr[-1])]
    graph = scipy.sparse.csr_array(
        (np.ones(len(system.val), dtype=np.int8), system.matrix.indices + m, ends),
        shape=(m + n, m + n),
    )
    labels = scipy.sparse.csgraph.connected_components(graph, directed=False)[1][:m]
    return np.unique(labels, return_inverse=True)[1].astype(np.intp)


def _sparse_system(matrix: Any) -> System:
    row = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    return _system(matrix, row, matrix.indices, matrix.data)


def _system(matrix: Any, row: IndexArray, col: NDArray[Any], val: FloatArray) -> System:
    norms = np.sqrt(np.bincount(row, val * val, minlength=matrix.shape[0]))
    return System(matrix, row, col, val, norms)


def _as_float64(array: NDArray[Any]) -> FloatArray:
    kind, size = array.dtype.kind, array.dtype.itemsize
    if kind not in "biuf":
        raise TypeError(f"rows must be real numbers, got dtype {array.dtype}.")
    values: FloatArray = array.astype(np.float64, copy=False)
    if not np.isfinite(values).all():
        raise ValueError(
            "rows must be finite: a NaN or infinite gradient entry has no sign to satisfy."
        )
    if (kind in "iu" and size > 4 and (np.abs(values) >= 2.0**53).any()) or (
        kind == "f" and size > 8 and (values != array).any()
    ):
        raise ValueError(
            f"rows of dtype {array.dtype} hold numbers that float64 cannot represent; "
            "round them to float64 first."
        )
    return values
