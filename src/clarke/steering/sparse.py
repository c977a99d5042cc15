"""Products with constant sparse matrices, by their formula."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

import torch


def sparse_product(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """The product of two matrices, or of a matrix and a vector, of which one factor is sparse.

    As products of entries that are added up: torch's kernels have no forward-mode derivative.

    Args:
        a: (n, m), sparse in any layout, or dense beside a sparse `b`.
        b: (m, k) or (m,).
    """
    if a.layout is torch.strided and b.layout is torch.strided:
        return a @ b
    if a.layout is torch.strided:
        return sparse_product(b.t(), a.t()).t()
    if b.layout is not torch.strided:
        b = b.to_dense()
    entries = a.to_sparse_coo().coalesce()
    (row, column), values = entries.indices(), entries.values()
    wide = b[:, None] if b.dim() == 1 else b
    terms = wide.index_select(0, column) * values[:, None]
    found = wide.new_zeros(a.shape[0], wide.shape[1]).index_add(0, row, terms)
    return found[:, 0] if b.dim() == 1 else found


def _added(
    base: torch.Tensor, a: torch.Tensor, b: torch.Tensor, beta: float = 1, alpha: float = 1
) -> torch.Tensor:
    found = alpha * sparse_product(a, b)
    return found if beta == 0 else beta * base + found


_FORMULAS: Final[Mapping[str, Callable[..., torch.Tensor]]] = MappingProxyType(
    {
        "aten::mm.default": sparse_product,
        "aten::mv.default": sparse_product,
        "aten::addmm.default": _added,
        "aten::addmv.default": _added,
        "aten::_sparse_addmm.default": _added,
    }
)


def by_formula(name: str, args: Sequence[Any]) -> Callable[..., torch.Tensor] | None:
    """What computes a product that torch's kernels for sparse matrices did; None for others."""
    formula = _FORMULAS.get(name)
    if formula is None:
        return None
    sparse = any(isinstance(a, torch.Tensor) and a.layout is not torch.strided for a in args)
    return formula if sparse or "sparse" in name else None
