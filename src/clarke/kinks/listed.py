"""Parts that lowerings of reductions by index share: elements listed in a table, in-place forms."""

from __future__ import annotations

from typing import Any, Final

import torch

from clarke.kinks.lowering import Lowerer, Lowering, Part

Parts = tuple[Part, ...]
INF: Final = float("inf")
ATEN: Final = torch.ops.aten


def in_place(lowering: Lowering) -> Lowering:
    """The in-place form: the plain one, written over the first argument."""

    def written(lo: Lowerer) -> Parts | None:
        # What the parts read is looked at again after it has been written to.
        target = lo.keep_first()
        found = lowering(lo)
        return None if found is None else (lo(ATEN.copy_.default, target, found[0]),)

    return written


def flat(lo: Lowerer, x: Part) -> Part:
    """A tensor laid out as a vector."""
    plain = lo(ATEN.clone.default, x, memory_format=torch.contiguous_format)
    return lo(ATEN.view.default, plain, [x.value.numel()])  # type: ignore[no-any-return]


def grouped(
    lo: Lowerer,
    parts: list[Any],
    table: torch.Tensor,
    shape: list[int],
    reduce: str,
    *,
    indexed: bool = False,
) -> Part:
    """The largest, smallest, or the product of the listed elements of some tensors laid end to end.

    Args:
        lo: The lowering.
        parts: The tensors (constants too).
        table: (outputs, width) positions in the flattened tensors, -1 for none.
        shape: Shape of the result.
        reduce: ``amax``, ``amin`` or ``prod``.
        indexed: Autograd follows one of tied elements instead of all.
    """
    vectors = [flat(lo, p) if isinstance(p, Part) else p for p in parts]
    # Empty places hold an element that is never chosen, or changes no product.
    empty = {"amax": -INF, "amin": INF, "prod": 1.0}[reduce]
    never = torch.full((1,), empty, dtype=parts[0].value.dtype)
    joined = lo(ATEN.cat.default, [*vectors, never])
    last = joined.value.numel() - 1
    rows = lo(ATEN.index.Tensor, joined, [torch.where(table < 0, last, table)])
    if reduce == "prod":
        best = lo(ATEN.prod.dim_int, rows, 1)
    elif indexed:
        best = lo(ATEN.max.dim if reduce == "amax" else ATEN.min.dim, rows, 1)[0]
    else:
        best = lo(ATEN.amax.default if reduce == "amax" else ATEN.amin.default, rows, [1])
    return lo(ATEN.view.default, best, shape)  # type: ignore[no-any-return]


def listing(target: torch.Tensor, outputs: int, offset: int, own: torch.Tensor) -> torch.Tensor:
    """(outputs, width) for every output its own element (-1: none) and the sources that hit it."""
    count = torch.bincount(target, minlength=outputs)
    order = torch.argsort(target, stable=True)
    start = torch.cumsum(count, 0) - count
    column = torch.arange(target.numel()) - start[target[order]]
    width = int(count.max()) + 1 if target.numel() else 1
    table = torch.full((outputs, width), -1, dtype=torch.int64)
    table[:, 0] = own
    table[target[order], column + 1] = order + offset
    return table
