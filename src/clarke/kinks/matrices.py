"""Where factorisations of matrices are not smooth: repeated values, lost rank, tied pivots."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import torch

from clarke.numerics import DIVISOR

if TYPE_CHECKING:
    from clarke.kinks.singular import Singular

_NEAR: Final = 64.0  # roundings within which computed values count as equal


def _rounding(values: torch.Tensor, size: int) -> float:
    """A relative difference that rounding may make in a computation with `size` rows."""
    return float(_NEAR * torch.finfo(values.dtype).eps * max(size, 1))


def factor_is_missing(call: Singular) -> torch.Tensor:
    """cholesky: one flag, some matrix is not positive definite."""
    upper = bool(call.arg(1, "upper", False))
    return torch.as_tensor((torch.linalg.cholesky_ex(call.args[0], upper=upper).info != 0).any())


def factor_is_singular(call: Singular) -> torch.Tensor:
    """cholesky_solve: one flag, a factor that is singular."""
    return torch.as_tensor((call.args[1].diagonal(dim1=-2, dim2=-1) == 0).any())


def eigenvalues_meet(call: Singular) -> torch.Tensor:
    """_linalg_eigh: one flag, eigenvalues that are equal up to rounding."""
    values = torch.linalg.eigvalsh(call.args[0], UPLO=call.arg(1, "UPLO", "L"))
    if values.shape[-1] < 2 or values.numel() == 0:
        return torch.tensor(False)
    near = _rounding(values, values.shape[-1]) * values.abs().amax(-1, keepdim=True)
    return torch.as_tensor((values.diff(dim=-1) <= near).any())


def general_eigenvalues_meet(call: Singular) -> torch.Tensor:
    """linalg_eig: one flag, eigenvalues so close that rounding may have parted them.

    A perturbation e of a matrix parts a double eigenvalue by about the root of e.
    """
    matrix = call.args[0]
    values = torch.linalg.eigvals(matrix)
    count = values.shape[-1]
    if count < 2 or values.numel() == 0:
        return torch.tensor(False)
    gaps = (values.unsqueeze(-1) - values.unsqueeze(-2)).abs()
    gaps = gaps + torch.diag(torch.full((count,), torch.inf, dtype=gaps.dtype))
    near = _rounding(gaps, count) ** 0.5 * matrix.abs().amax((-2, -1)).clamp(min=DIVISOR)
    return torch.as_tensor((gaps.amin((-2, -1)) <= near).any())


def sign_of_column_flips(call: Singular) -> torch.Tensor:
    """linalg_qr: one flag, a column of Q that changes its sign beside the matrix.

    LAPACK reflects the rest x of a column onto ``-sign(x_1) |x|`` times the first unit vector, and
    leaves x alone where it has that direction already. The sign jumps where x_1 is 0, and where
    the other entries all are.
    """
    matrix = call.args[0]
    rows = matrix.shape[-2]
    if matrix.numel() == 0:
        return torch.tensor(False)
    found, scales = torch.geqrf(matrix)
    count = scales.shape[-1]
    inner = scales[..., : min(count, rows - 1)]
    reflected = (inner != 0) & ((1 - inner).abs() > _rounding(found, rows))
    return torch.as_tensor(~reflected.all())


def columns_depend(call: Singular) -> torch.Tensor:
    """linalg_qr: one flag, leading columns that are linearly dependent, up to rounding."""
    matrix = call.args[0]
    if matrix.numel() == 0:
        return torch.tensor(False)
    diagonal = torch.geqrf(matrix).a.diagonal(dim1=-2, dim2=-1).abs()
    near = _rounding(diagonal, max(matrix.shape[-2:]))
    size = torch.linalg.vector_norm(matrix, dim=-2).amax(-1, keepdim=True)
    return torch.as_tensor((diagonal <= near * size).any())


def pivots_tie(call: Singular) -> torch.Tensor:
    """lu: one flag, two candidates for a pivot of equal size, up to rounding."""
    matrix = call.args[0]
    if not call.arg(1, "pivot", True) or matrix.numel() == 0:
        return torch.tensor(False)
    factor = torch.linalg.lu_factor_ex(matrix).LU.tril(-1)
    near = _rounding(factor, max(matrix.shape[-2:]))
    return torch.as_tensor((factor.abs() >= 1 - near).any())


def pivot_is_zero(call: Singular) -> torch.Tensor:
    """lu: one flag, leading columns that are linearly dependent, up to rounding."""
    matrix = call.args[0]
    if matrix.numel() == 0:
        return torch.tensor(False)
    pivot = bool(call.arg(1, "pivot", True))
    diagonal = torch.linalg.lu_factor_ex(matrix, pivot=pivot).LU.diagonal(dim1=-2, dim2=-1)
    near = _rounding(diagonal.abs(), max(matrix.shape[-2:]))
    return torch.as_tensor((diagonal.abs() <= near * matrix.abs().amax((-2, -1))[..., None]).any())
