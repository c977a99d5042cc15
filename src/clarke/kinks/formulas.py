"""Operations whose own derivative formula holds for some programs only.

``cholesky`` reads one triangle of its argument and autograd credits both: that is the derivative
along symmetric matrices. A rule of this kind carries a formula of the same values whose derivative
is true at every regular input. Replays use it, so that what autograd returned for the whole
program is compared with the derivative of the function that ran.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from clarke.kinks.model import Call, Hazard, Touch, UnsteeredRule
from clarke.kinks.singular import singular_touch

if TYPE_CHECKING:
    from collections.abc import Callable

    from clarke.capture import OpRecord
    from clarke.kinks.singular import Singular


@dataclass(frozen=True)
class FormulaRule(UnsteeredRule):
    """A rule with a true formula, and tests for the inputs at which the operation is not smooth.

    Attributes:
        exact: The operation's results, by operations whose derivatives are true.
        tests: Boolean tensors of one shape, true where an element is special, with what it is
            there.
        behind: An operation along the last dimension, of whose results autograd's own formula is
            the derivative: what is wrong with it, that one's takes away.
    """

    doubtful: ClassVar[bool] = True

    exact: Callable[[Call], Any]
    tests: tuple[tuple[Callable[[Singular], torch.Tensor], Hazard], ...] = ()
    behind: str = ""

    def find(self, op: OpRecord) -> Touch:
        return singular_touch(op, self.tests)

    def evaluate(self, call: Call, selection: torch.Tensor, touch: Touch) -> Any:
        return self.exact(call)


def symmetric_part(matrix: torch.Tensor, *, upper: bool) -> torch.Tensor:
    """The symmetric matrix that one triangle stands for."""
    if upper:
        return matrix.triu() + matrix.triu(1).mH
    return matrix.tril() + matrix.tril(-1).mH


def cholesky_factor(call: Call) -> Any:
    """The Cholesky factor of the matrix whose triangle is read."""
    upper = bool(call.arg(1, "upper", False))
    whole = symmetric_part(call.args[0], upper=upper)
    found = torch.linalg.cholesky_ex(whole, upper=upper)
    return tuple(found) if call.func._schema.name.endswith("_ex") else found.L


def symmetric_eigen(call: Call) -> Any:
    """_linalg_eigh of the triangle that it reads."""
    side = call.arg(1, "UPLO", "L")
    whole = symmetric_part(call.args[0], upper=side.upper() == "U")
    return call.func(whole, side, call.arg(2, "compute_v", True))


def determinant(call: Call) -> Any:
    """_linalg_det with its differential, the cofactors, which singular matrices have as well."""
    matrix = call.args[0]
    value, *rest = call.func(matrix.detach(), **call.kwargs)
    left, sizes, right = torch.linalg.svd(matrix.detach())
    ones = torch.ones_like(sizes[..., :1])
    before = torch.cat([ones, sizes[..., :-1]], -1).cumprod(-1)
    after = torch.cat([sizes[..., 1:], ones], -1).flip(-1).cumprod(-1).flip(-1)
    turns = (torch.linalg.det(left) * torch.linalg.det(right))[..., None, None]
    cofactors = turns * (left * (before * after).unsqueeze(-2)) @ right
    moved = ((matrix - matrix.detach()) * cofactors).sum((-2, -1))
    return (value + moved, *rest)


def solve_by_cholesky(call: Call) -> torch.Tensor:
    """cholesky_solve with the triangle that it reads."""
    right, factor = call.args[0], call.args[1]
    upper = bool(call.arg(2, "upper", False))
    lower: torch.Tensor = factor.triu().mH if upper else factor.tril()
    half = torch.linalg.solve_triangular(lower, right, upper=False)
    solution: torch.Tensor = torch.linalg.solve_triangular(lower.mH, half, upper=True)
    return solution


def inverse_by_cholesky(call: Call) -> torch.Tensor:
    """cholesky_inverse with the triangle that it reads."""
    factor, upper = call.args[0], bool(call.arg(1, "upper", False))
    lower: torch.Tensor = factor.triu().mH if upper else factor.tril()
    ones = torch.eye(factor.shape[-1], dtype=factor.dtype).expand(factor.shape)
    half: torch.Tensor = torch.linalg.solve_triangular(lower, ones, upper=False)
    return half.mH @ half


def _reflected(
    vectors: torch.Tensor, scales: torch.Tensor, target: torch.Tensor, *, adjoint: bool
) -> torch.Tensor:
    """The product of reflections ``I - tau v v^H``, or its adjoint, times a matrix.

    As in LAPACK, column i of `vectors` holds v below its entry i, which counts as 1.
    """
    rows = vectors.shape[-2]
    order = range(scales.shape[-1]) if adjoint else reversed(range(scales.shape[-1]))
    unit = torch.eye(rows, vectors.shape[-1], dtype=vectors.dtype)
    below = vectors.tril(-1) + unit
    for i in order:
        v = below[..., i : i + 1]
        scale = scales[..., i, None, None]
        target = target - (scale.conj() if adjoint else scale) * (v @ (v.mH @ target))
    return target


def householder_matrix(call: Call) -> torch.Tensor:
    """linalg_householder_product, a polynomial of its arguments."""
    vectors, scales = call.args[0], call.args[1]
    start = torch.eye(*vectors.shape[-2:], dtype=vectors.dtype).expand(vectors.shape)
    return _reflected(vectors, scales, start, adjoint=False)


def times_reflections(call: Call) -> torch.Tensor:
    """ormqr, a polynomial of its arguments."""
    vectors, scales, other = call.args[:3]
    left, adjoint = bool(call.arg(3, "left", True)), bool(call.arg(4, "transpose", False))
    if left:
        return _reflected(vectors, scales, other, adjoint=adjoint)
    return _reflected(vectors, scales, other.mH, adjoint=not adjoint).mH


def least_squares(call: Call) -> tuple[torch.Tensor, ...]:
    """linalg_lstsq, with residuals that every version of PyTorch differentiates."""
    left, right = call.args[0], call.args[1]
    solution, residuals, rank, values = call.func(*call.args, **call.kwargs)
    if residuals.numel():
        vector = right.dim() == left.dim() - 1 and solution.dim() == left.dim() - 1
        wide = right.unsqueeze(-1) if vector else right
        found = solution.unsqueeze(-1) if vector else solution
        gap = left @ found - wide
        residuals = (gap * gap).sum(-2).reshape(residuals.shape)
    return solution, residuals, rank, values.detach()


def constant(call: Call) -> Any:
    """A result that does not change beside the point."""
    args = (a.detach() if isinstance(a, torch.Tensor) else a for a in call.args)
    return call.func(*args, **call.kwargs)


def complex_by_polar(call: Call) -> torch.Tensor:
    """A complex number from its size and angle, by sine and cosine."""
    size, angle = call.args[0], call.args[1]
    return torch.complex(size * torch.cos(angle), size * torch.sin(angle))


def last_written(call: Call) -> torch.Tensor:
    """max_unpool: of values that go to the same place, the last one in order stays."""
    x, indices, size = call.args[0], call.args[1], list(call.args[2])
    rank = len(size)
    lead, plane = x.shape[: x.dim() - rank], x.shape[x.dim() - rank :]
    count, numel = plane.numel(), torch.Size(size).numel()
    planes = lead.numel()
    where = indices.reshape(planes, count)
    order = torch.arange(count).expand(planes, count)
    last = torch.full((planes, numel), -1).scatter_reduce(1, where, order, "amax")
    taken = x.reshape(planes, count).gather(1, last.clamp(min=0))
    return torch.where(last >= 0, taken, torch.zeros_like(taken)).reshape(*lead, *size)


def unpool_differs(call: Singular) -> torch.Tensor:
    """max_unpool: one flag, the values written are not those of `last_written`."""
    if call.args[0].numel() == 0:
        return torch.tensor(False)
    own = call.func(*call.args, **call.kwargs)
    return torch.as_tensor(~torch.eq(own, last_written(call)).all())


def _window(call: Call) -> tuple[torch.Tensor, torch.Tensor]:
    """as_strided_scatter: positions in memory of the input's entries, and of those written."""
    x, (size, stride) = call.args[0], call.args[2:4]
    start = call.arg(4, "storage_offset")
    own = _positions(x.shape, x.stride(), x.storage_offset())
    return own, _positions(size, stride, x.storage_offset() if start is None else start)


def _positions(size: Any, stride: Any, start: int) -> torch.Tensor:
    found = torch.tensor(start)
    for length, step in zip(size, stride, strict=True):
        found = found.unsqueeze(-1) + torch.arange(length) * step
    return found


def written_over(call: Call) -> torch.Tensor:
    """as_strided_scatter as a copy by index, of an input that lies in memory without gaps."""
    x: torch.Tensor = call.args[0]
    own, target = _window(call)
    if not _fits(own, target):
        result: torch.Tensor = call.func(*call.args, **call.kwargs)
        return result
    place = torch.zeros_like(own).reshape(-1)
    place[own.reshape(-1)] = torch.arange(own.numel())
    new = call.args[1].reshape(-1)
    flat = x.reshape(-1).index_put((place[target.reshape(-1)],), new)
    return flat.reshape(x.shape)


def is_written_elsewhere(call: Singular) -> torch.Tensor:
    """as_strided_scatter: one flag, writes that meet, or go to memory that is not the input's."""
    return torch.tensor(not _fits(*_window(call)))


def _fits(own: torch.Tensor, target: torch.Tensor) -> bool:
    # Only such an input lies in a replay's memory as it did in the program's.
    dense = torch.equal(own.reshape(-1).sort().values, torch.arange(own.numel()))
    inside = target.numel() == 0 or int(target.max()) < own.numel()
    apart = target.unique().numel() == target.numel()
    return dense and inside and apart


def chunked_cross_entropy(call: Call) -> Any:
    """linear_cross_entropy in chunks: the losses without chunks."""
    summed = "no_reduction" not in call.func._schema.name
    x, matrix, target = call.args[:3]
    bias, weight = call.arg(3, "linear_bias"), call.arg(4, "weight")
    reduction = call.arg(5, "reduction") if summed else "none"
    ignored = call.arg(6 if summed else 5, "ignore_index")
    smoothing = float(call.arg(7, "label_smoothing", 0.0)) if summed else 0.0
    loss = torch.nn.functional.cross_entropy(
        torch.nn.functional.linear(x, matrix, bias),
        target,
        weight,
        ignore_index=ignored,
        reduction=reduction,
        label_smoothing=smoothing,
    )
    if not summed:
        return loss
    # Its further results are gradients for its own backward pass.
    unused = tuple(torch.zeros_like(a) for a in (x, matrix))
    rest = torch.zeros(matrix.shape[:1], dtype=matrix.dtype)
    return (loss, *(u.detach() for u in unused), rest)
