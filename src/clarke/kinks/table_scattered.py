"""Reductions and writes by index, written with gathers of listed elements."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import torch

from clarke.kinks.embeddings import constant_padding
from clarke.kinks.listed import ATEN, INF, Parts, flat, grouped, in_place, listing
from clarke.kinks.lowering import Lowerer, Lowering, Part

if TYPE_CHECKING:
    from clarke.capture import OpRecord

# Of a product by index, torch's forward mode drops the tangents without a word.
_LISTED: Final = ("amax", "amin", "prod")


def _scatter_reduce(lo: Lowerer) -> Parts | None:
    x, dim, index, src = (lo.arg(i, "") for i in range(4))
    reduce, include = lo.arg(4, "reduce"), bool(lo.op.kwargs.get("include_self", True))
    if reduce not in _LISTED:
        if not lo.op.func._schema.is_mutable:
            return None
        # The in-place form has no forward-mode derivative of its own.
        plain = ATEN.scatter_reduce.two
        return (lo(plain, x, dim, index, src, reduce, include_self=include),)
    shape = x.value.shape
    where = torch.arange(x.value.numel()).reshape(shape)
    if x.value.dim() == 0 or index.value.dim() == 0:
        return None
    cut = tuple(
        slice(None) if d == dim % x.value.dim() else slice(0, n)
        for d, n in enumerate(index.value.shape)
    )
    target = where[cut].gather(dim, index.value).reshape(-1)
    for d, n in enumerate(index.value.shape):
        if n < src.value.shape[d]:
            src = lo(ATEN.slice.Tensor, src, d, 0, n)
    return (_hit_table(lo, x, src, target, reduce, include=include),)


def _hit_table(
    lo: Lowerer, x: Part, src: Part, target: torch.Tensor, reduce: str, *, include: bool
) -> Part:
    numel = x.value.numel()
    own = torch.arange(numel)
    if not include:
        own[target] = -1
    table = listing(target, numel, numel, own)
    return grouped(lo, [x, src], table, list(x.value.shape), reduce)


def _index_reduce(lo: Lowerer) -> Parts | None:
    x, dim, index, src = (lo.arg(i, "") for i in range(4))
    reduce, include = lo.arg(4, "reduce"), bool(lo.op.kwargs.get("include_self", True))
    if x.value.dim() == 0:
        return None
    if reduce == "mean":
        # index_reduce has no forward-mode derivative of its own.
        shape = [1] * x.value.dim()
        shape[dim] = index.value.numel()
        wide = index.value.reshape(shape).expand(src.value.shape)
        scatter = ATEN.scatter_reduce.two
        return (lo(scatter, x, dim, wide, src, reduce, include_self=include),)
    if reduce not in _LISTED:
        return None
    where = torch.arange(x.value.numel()).reshape(x.value.shape)
    target = where.index_select(dim, index.value.reshape(-1))
    if tuple(target.shape) != tuple(src.value.shape):
        return None
    return (_hit_table(lo, x, src, target.reshape(-1), reduce, include=include),)


def _segment_reduce(lo: Lowerer) -> Parts | None:
    data, reduce, initial = lo.arg(0, "data"), lo.arg(1, "reduce"), lo.named("initial")
    lengths, offsets = lo.named("lengths"), lo.named("offsets")
    given = offsets if isinstance(offsets, Part) else lengths
    lengths_of = _segment_lengths(lengths, offsets)
    if lengths_of is None or given.value.dim() != 1 or lo.named("axis", 0) != 0:
        return None
    count, rows = lengths_of.numel(), data.value.shape[0]
    width = data.value[0].numel() if rows else 0
    if int(lengths_of.sum()) != rows or width == 0:
        return None
    if initial is None and reduce != "sum" and bool((lengths_of == 0).any()):
        return None  # empty segments give infinities and NaN
    shape = [count, *data.value.shape[1:]]
    owner = torch.repeat_interleave(torch.arange(count), lengths_of)
    start = 0.0 if initial is None else float(initial)
    if reduce in ("max", "min", "prod"):
        # A constant start is one more candidate, or factor.
        parts = [data] if initial is None else [data, data.value.new_full((1,), start)]
        target = (owner[:, None] * width + torch.arange(width)).reshape(-1)
        own = torch.full((count * width,), -1 if initial is None else data.value.numel())
        table = listing(target, count * width, 0, own)
        return (grouped(lo, parts, table, shape, reduce if reduce == "prod" else f"a{reduce}"),)
    base = torch.full(shape, start, dtype=data.value.dtype)
    total = lo(ATEN.index_add.default, base, 0, owner, data)
    if reduce == "mean":
        size = lengths_of.to(data.value.dtype).reshape(-1, *[1] * (len(shape) - 1))
        total = lo(ATEN.div.Tensor, total, size)
    return (total,) if reduce in ("sum", "mean") else None


def _segment_lengths(lengths: Part | None, offsets: Part | None) -> torch.Tensor | None:
    if isinstance(offsets, Part):
        return offsets.value.diff()
    return lengths.value if isinstance(lengths, Part) else None


def _sparse_mm_reduce(lo: Lowerer) -> Parts | None:
    left, right, reduce = lo.arg(0, "self"), lo.arg(1, "other"), lo.arg(2, "reduce")
    matrix = left.value
    if lo.varied(0) or matrix.layout is not torch.sparse_csr or right.value.dim() != 2:
        return None
    sizes = matrix.crow_indices().diff()
    rows, width = matrix.shape[0], right.value.shape[1]
    if matrix.values().numel() == 0 or width == 0 or bool((sizes == 0).any()):
        return None
    owner = torch.repeat_interleave(torch.arange(rows), sizes)
    taken = lo(ATEN.index_select.default, right, 0, matrix.col_indices())
    terms = lo(ATEN.mul.Tensor, taken, matrix.values()[:, None])
    shape, rest = [rows, width], lo.op.kept_outputs.get(1)
    if reduce in ("amax", "amin"):
        target = (owner[:, None] * width + torch.arange(width)).reshape(-1)
        table = listing(target, rows * width, 0, torch.full((rows * width,), -1))
        # Autograd follows one index.
        best = grouped(lo, [terms], table, shape, reduce, indexed=True)
    elif reduce in ("sum", "mean"):
        zeros = torch.zeros(shape, dtype=right.value.dtype)
        best = lo(ATEN.index_add.default, zeros, 0, owner, terms)
        if reduce == "mean":
            best = lo(ATEN.div.Tensor, best, sizes[:, None].to(right.value.dtype))
    else:
        return None
    # The second result serves the backward pass only.
    return (best, lo(ATEN.clone.default, torch.zeros(0) if rest is None else rest))


def _embedding_bag(lo: Lowerer) -> Parts | None:
    weight, indices, offsets = lo.arg(0, "weight"), lo.arg(1, "indices"), lo.arg(2, "offsets")
    frequency, mode = lo.arg(3, "scale_grad_by_freq", False), int(lo.arg(4, "mode", 0))
    scale, last, padding = lo.arg(6, "w"), lo.arg(7, "last", False), int(lo.arg(8, "p", -1))
    at, start = indices.value.reshape(-1), offsets.value
    if frequency or lo.op.outputs[0] is None or any(lo.op.outputs[i] is None for i in (1, 2, 3)):
        return None
    ends = start[1:] if last else torch.cat([start[1:], start.new_tensor([at.numel()])])
    bags = torch.repeat_interleave(torch.arange(ends.numel()), ends - start[: ends.numel()])
    used = at != padding
    size = torch.bincount(bags[used], minlength=ends.numel())
    rows = lo(ATEN.index_select.default, weight, 0, at[used])
    if isinstance(scale, Part):
        mine = lo(ATEN.index_select.default, scale, 0, used.nonzero().squeeze(1))
        rows = lo(ATEN.mul.Tensor, rows, lo(ATEN.unsqueeze.default, mine, 1))
    zeros = torch.zeros(ends.numel(), weight.value.shape[1], dtype=weight.value.dtype)
    if mode == 2:
        places = listing(bags[used], ends.numel(), 0, torch.full((ends.numel(),), -1))
        never = torch.full((1, zeros.shape[1]), -INF, dtype=zeros.dtype)
        joined = lo(ATEN.cat.default, [rows, never, zeros[:1]])
        places = torch.where(places < 0, rows.value.shape[0], places)
        places[size == 0, 0] = rows.value.shape[0] + 1  # an empty bag is zero
        best = lo(ATEN.max.dim, lo(ATEN.index.Tensor, joined, [places]), 1)[0]
    else:
        best = lo(ATEN.index_add.default, zeros, 0, bags[used], rows)
    if mode == 1:
        best = lo(ATEN.div.Tensor, best, size.clamp(min=1)[:, None].to(zeros.dtype))
    # The further results serve the backward pass only.
    rest = (lo(ATEN.clone.default, lo.op.kept_outputs.get(i, start)) for i in (1, 2, 3))
    return (best, *rest)


def _last_written(lo: Lowerer, x: Part, src: Part, target: torch.Tensor) -> Part | None:
    """Values written at positions of `x` (flat), of which the last stays where several meet.

    None where none meet, or where other values were written than these.
    """
    if target.unique().numel() == target.numel():
        return None
    last = torch.full((x.value.numel(),), -1).scatter_reduce(
        0, target, torch.arange(target.numel()), "amax"
    )
    table = torch.where(last < 0, torch.arange(x.value.numel()) + src.value.numel(), last)
    joined = lo(ATEN.cat.default, [flat(lo, src), flat(lo, x)])
    found = lo(ATEN.index.Tensor, joined, [table])
    result: Part = lo(ATEN.view.default, found, list(x.value.shape))
    return result if _is_what_ran(lo, result) else None


def _is_what_ran(lo: Lowerer, result: Part) -> bool:
    """Whether the operation itself gives the same: no order of writing is promised."""
    args = [lo.arg(i, "") for i in range(len(lo.op.args))]
    with torch.no_grad():
        values = [
            tuple(v.value if isinstance(v, Part) else v for v in a)
            if isinstance(a, (list, tuple))
            else a.value.clone()
            if isinstance(a, Part)
            else a
            for a in args
        ]
        ran = lo.op.func(*values, **lo.op.kwargs)
    return bool(torch.equal(torch.nan_to_num(ran), torch.nan_to_num(result.value)))


def _are_parts(*values: Any) -> bool:
    """Whether none is a constant of another operation's parts."""
    return all(isinstance(v, Part) for v in values)


def _places(x: Part) -> torch.Tensor:
    return torch.arange(x.value.numel()).reshape(x.value.shape)


def _scatter(lo: Lowerer) -> Parts | None:
    x, dim, index, src = (lo.arg(i, "") for i in range(4))
    if not _are_parts(x, index, src) or x.value.dim() == 0 or index.value.dim() == 0:
        return None
    shape = index.value.shape
    cut = tuple(
        slice(None) if d == dim % x.value.dim() else slice(0, n) for d, n in enumerate(shape)
    )
    target = _places(x)[cut].gather(dim, index.value).reshape(-1)
    if target.unique().numel() == target.numel():
        return None
    if src.value.shape != shape:
        for d, n in enumerate(shape):
            src = lo(ATEN.slice.Tensor, src, d, 0, n)
    found = _last_written(lo, x, src, target)
    return None if found is None else (found,)


def _index_copy(lo: Lowerer) -> Parts | None:
    x, dim, index, src = (lo.arg(i, "") for i in range(4))
    if not _are_parts(x, index, src) or x.value.dim() == 0:
        return None
    target = _places(x).index_select(dim, index.value.reshape(-1))
    if target.shape != src.value.shape:
        return None
    found = _last_written(lo, x, src, target.reshape(-1))
    return None if found is None else (found,)


def _index_put(lo: Lowerer) -> Parts | None:
    x, given, src = (lo.arg(i, "") for i in range(3))
    if lo.arg(3, "accumulate", False) or not _are_parts(x, src):
        return None
    indices = tuple(
        slice(None) if i is None else i.value if isinstance(i, Part) else i for i in given
    )
    target = _places(x)[indices]
    if src.value.shape != target.shape:
        src = lo(ATEN.expand.default, src, list(target.shape))
    found = _last_written(lo, x, src, target.reshape(-1))
    return None if found is None else (found,)


def _put(lo: Lowerer) -> Parts | None:
    x, index, src = (lo.arg(i, "") for i in range(3))
    if lo.arg(3, "accumulate", False) or not _are_parts(x, index, src) or not x.value.numel():
        return None
    found = _last_written(lo, x, src, index.value.remainder(x.value.numel()).reshape(-1))
    return None if found is None else (found,)


@dataclass(frozen=True, eq=False)
class ByIndex:
    """A largest or smallest by index, as it was recorded.

    Attributes:
        op: The record of the maximum or minimum that it is.
        dim: The dimension that the index is of.
        x: What it starts from.
        index: (of a shape) where entries go.
        src: (of that shape) the entries.
        result: What it returned.
    """

    op: OpRecord
    dim: int
    x: torch.Tensor
    index: torch.Tensor
    src: torch.Tensor
    result: torch.Tensor


def by_index(op: OpRecord) -> ByIndex | None:
    """A record as a largest or smallest by index; None for any other operation."""
    name = op.short_name
    if not name.startswith(("scatter_reduce", "index_reduce")) or len(op.args) != 5:
        return None
    dim, reduce = op.args[1], op.args[4]
    x, index, src = (op.kept.get(i) for i in (0, 2, 3))
    if reduce not in ("amax", "amin") or x is None or index is None or src is None:
        return None
    if x.dim() == 0 or index.dim() == 0 or not x.is_floating_point():
        return None
    with torch.no_grad():
        if name.startswith("index"):
            shape = [1] * x.dim()
            shape[dim] = index.numel()
            index = index.reshape(shape).expand(src.shape)
        if src.shape != index.shape:
            src = src[tuple(slice(0, n) for n in index.shape)]
        include = bool(op.kwargs.get("include_self", True))
        result = ATEN.scatter_reduce.two(x, dim, index, src, reduce, include_self=include)
    func = ATEN.amax.default if reduce == "amax" else ATEN.amin.default
    record = op.bare().holding(func=func, stands_for=op.shown)
    return ByIndex(record, dim, x, index, src, result)


@dataclass(frozen=True, eq=False)
class Attained:
    """What attains each result, where no result is an entry of the first argument.

    Autograd's formula then holds: it divides by how many entries equal the result, and would count
    one of the first argument among these even where that is left out.

    Attributes:
        equal: (of the index's shape) which entries are the result there.
        count: (of the result's shape) how many are.
    """

    equal: torch.Tensor
    count: torch.Tensor


def attained(found: ByIndex) -> Attained | None:
    """What attains each result of a reduction by index; None where one is of the start."""
    with torch.no_grad():
        equal = found.src == found.result.gather(found.dim, found.index)
        count = torch.zeros(found.x.shape)
        count.scatter_add_(found.dim, found.index, equal.to(torch.float32))
        # One of the two holds everywhere, unless a NaN is among them.
        if not bool(((count > 0) ^ (found.x == found.result)).all()):
            return None
    return Attained(equal, count)


def scattered() -> Iterator[tuple[str, Lowering]]:
    """(operator with overload, lowering)."""
    for name, overload, lowering in (
        ("scatter_reduce", ".two", _scatter_reduce),
        ("index_reduce", "", _index_reduce),
        ("scatter", ".src", _scatter),
        ("index_copy", "", _index_copy),
        ("index_put", "", _index_put),
        ("put", "", _put),
    ):
        yield f"{name}{overload}", lowering
    yield "_unsafe_index_put", _index_put
    yield "_index_put_impl_", in_place(_index_put)
    yield "segment_reduce", _segment_reduce
    yield "_sparse_mm_reduce_impl", _sparse_mm_reduce
    yield "_embedding_bag", _embedding_bag
    yield "embedding", constant_padding
