"""A direction along which repeated eigenvalues part as autograd's own eigenvectors would have it.

Where eigenvalues of a symmetric matrix meet, their gradients beside the point along a direction
are those of the eigenvectors of the moved matrix, restricted to the eigenspace (Lancaster 1964).
A direction that is diagonal there in autograd's eigenvectors, with increasing entries, makes
autograd's answer the limit. For singular values above 0 the symmetric part takes the place of the
matrix, and for those that are 0 both sides of the diagonal must vanish. It is a candidate only:
the limit along it is computed and compared.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import torch

from clarke.capture import Ref
from clarke.constraints import flatten, random_tangents, unflatten
from clarke.kinks.formulas import symmetric_part
from clarke.numerics import ALIGNED_SOLVED, DIVISOR, EIGENVALUES_NEAR
from clarke.steering import Pieces

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from clarke.capture import OpRecord
    from clarke.steering import Program

_MOST: Final = 256  # conditions; each costs a backward pass
_FACTORS: Final = frozenset({"_linalg_eigh", "_linalg_svd"})


def aligned_direction(
    program: Program, generator: torch.Generator
) -> tuple[torch.Tensor, ...] | None:
    """Such a direction, or None where there is none or too much to solve."""
    ops = [
        s.touch.op
        for s in program.analysis.ordered()
        if s.touch.count and s.touch.op.short_name in _FACTORS
    ]
    if not ops:
        return None
    run = program.run(pieces=Pieces.TRUE)
    rows: list[NDArray[np.float64]] = []
    wanted: list[float] = []
    for op in ops:
        source = op.args[0]
        matrix = run.tensors.get(source.slot) if isinstance(source, Ref) else None
        if matrix is None or not matrix.requires_grad:
            return None
        if matrix.is_complex():
            return None
        symmetric = op.short_name == "_linalg_eigh"
        conditions = _of_eigenvalues if symmetric else _of_singular_values
        for value, target in conditions(op, matrix):
            if len(rows) == _MOST:
                return None
            found = torch.autograd.grad(
                value, run.leaves, retain_graph=True, materialize_grads=True
            )
            rows.append(flatten(found))
            wanted.append(target)
    if not rows:
        return None
    table, right = np.stack(rows), np.asarray(wanted)
    inverse = np.linalg.pinv(table)
    exact = inverse @ right
    if float(np.abs(table @ exact - right).max()) > ALIGNED_SOLVED:
        return None
    noise = flatten(random_tangents(program, generator))
    free = noise - inverse @ (table @ noise)
    size = float(np.linalg.norm(exact)) / max(float(np.linalg.norm(free)), DIVISOR)
    return unflatten(exact + 0.1 * size * free, program.point)


def _of_eigenvalues(op: OpRecord, matrix: torch.Tensor) -> Iterator[tuple[torch.Tensor, float]]:
    """Entries of the matrix in its eigenvectors, and what their slopes must be."""
    side = op.args[1] if len(op.args) > 1 else "L"
    whole = symmetric_part(matrix, upper=str(side).upper() == "U")
    values, vectors = torch.linalg.eigh(matrix.detach(), UPLO=side)
    count = values.shape[-1]
    for own, lambdas, basis in zip(
        whole.reshape(-1, count, count),
        values.reshape(-1, count),
        vectors.reshape(-1, count, count),
        strict=True,
    ):
        for i, j in _meeting(lambdas):
            yield basis[:, i] @ own @ basis[:, j], float(i + 1) if i == j else 0.0


def _of_singular_values(
    _op: OpRecord, matrix: torch.Tensor
) -> Iterator[tuple[torch.Tensor, float]]:
    """The same in singular vectors; the values are in descending order."""
    rows, columns = matrix.shape[-2:]
    for own in matrix.reshape(-1, rows, columns):
        left, sigmas, right = torch.linalg.svd(own.detach(), full_matrices=False)
        zero = sigmas <= EIGENVALUES_NEAR * sigmas[:1]
        count = sigmas.numel()
        for i, j in _meeting(sigmas, alone=zero):
            here, there = (left[:, a] @ own @ right[b] for a, b in ((i, j), (j, i)))
            if bool(zero[i]) and i != j:
                yield here, 0.0
                yield there, 0.0
            else:
                yield here + there, 2.0 * (count - i) if i == j else 0.0
        for i in zero.nonzero().squeeze(1).tolist():
            # Nothing may move out of the space of the singular vectors either.
            ahead, behind = own @ right[i], left[:, i] @ own
            yield from ((v, 0.0) for v in ahead - left @ (left.mT @ ahead))
            yield from ((v, 0.0) for v in behind - (behind @ right.mT) @ right)


def _meeting(values: torch.Tensor, alone: torch.Tensor | None = None) -> Iterator[tuple[int, int]]:
    """Pairs i <= j of sorted values that meet; with those that are special even alone."""
    near = EIGENVALUES_NEAR * float(values.abs().max())
    close = (values[:, None] - values[None, :]).abs() <= near
    special = close.sum(1) > 1 if alone is None else (close.sum(1) > 1) | alone
    for i in special.nonzero().squeeze(1).tolist():
        yield from ((i, j) for j in range(i, values.numel()) if bool(close[i, j]))
