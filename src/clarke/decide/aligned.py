"""A direction along which repeated eigenvalues part as autograd's own eigenvectors would have it.

Where eigenvalues of a symmetric matrix meet, their gradients beside the point along a direction
are those of the eigenvectors of the moved matrix, restricted to the eigenspace (Lancaster 1964).
A direction that is diagonal there in autograd's eigenvectors, with increasing entries, makes
autograd's answer the limit. It is a candidate only: the limit along it is computed and compared.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import torch

from clarke.capture import Ref
from clarke.constraints import flatten, random_tangents, unflatten
from clarke.kinks.formulas import symmetric_part
from clarke.steering import Pieces

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from clarke.capture import OpRecord
    from clarke.steering import Program

_MOST: Final = 256  # conditions; each costs a backward pass
_NEAR: Final = 1e-9  # relative difference of eigenvalues that are taken for one
_SOLVED: Final = 1e-8


def aligned_direction(
    program: Program, generator: torch.Generator
) -> tuple[torch.Tensor, ...] | None:
    """Such a direction, or None where there is none or too much to solve."""
    ops = [
        s.touch.op
        for s in program.analysis.ordered()
        if s.touch.count and s.touch.op.short_name == "_linalg_eigh"
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
        for value, target in _conditions(op, matrix):
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
    if float(np.abs(table @ exact - right).max()) > _SOLVED:
        return None
    noise = flatten(random_tangents(program, generator))
    free = noise - inverse @ (table @ noise)
    size = float(np.linalg.norm(exact)) / max(float(np.linalg.norm(free)), 1e-300)
    return unflatten(exact + 0.1 * size * free, program.point)


def _conditions(op: OpRecord, matrix: torch.Tensor) -> Iterator[tuple[torch.Tensor, float]]:
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
        near = _NEAR * float(lambdas.abs().max())
        for i in range(count):
            for j in range(i, count):
                if float(lambdas[j] - lambdas[i]) > near:
                    break
                alone = float(lambdas[min(i + 1, count - 1)] - lambdas[i]) > near
                alone = alone and (i == 0 or float(lambdas[i] - lambdas[i - 1]) > near)
                if not alone:
                    yield basis[:, i] @ own @ basis[:, j], float(i + 1) if i == j else 0.0
