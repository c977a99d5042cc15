"""What operators that look at many places at once are, in instructions over cells."""

from __future__ import annotations

from itertools import accumulate, product
from math import inf, prod
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.functional import pad as padded

from clarke.proof.cells import UNKNOWN, NoInstructionsError, Word

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from clarke.proof.cells import Cell, Cells

    Reduction = Callable[[Cells, tuple[int, int], Sequence[Cell]], Cell]
    Tensor = torch.Tensor
    Whole = Callable[..., Tensor]

_OUTSIDE = UNKNOWN + 1  # the number of what lies beyond the edge of an image


def logsumexp(c: Cells, _: tuple[int, int] | None, cells: Sequence[Cell]) -> Cell:
    """The logarithm of the sum of exponentials."""
    return c.smooth(Word.LOG, c.add(*((c.smooth(Word.EXP, x), 1) for x in cells)))


REDUCED: Mapping[str, Reduction] = MappingProxyType(
    {
        "sum": lambda c, _, cells: c.add(*((x, 1) for x in cells)),
        "mean": lambda c, _, cells: c.mean(cells),
        "amax": lambda c, w, cells: c.largest(cells, w),
        "max": lambda c, w, cells: c.largest(cells, w),
        "amin": lambda c, w, cells: c.smallest(cells, w),
        "min": lambda c, w, cells: c.smallest(cells, w),
        "logsumexp": logsumexp,
        "argmax": lambda c, _, cells: c.place_of_largest(cells),
        "argmin": lambda c, _, cells: c.place_of_largest([c.add((x, -1)) for x in cells]),
    }
)


def reduced(
    f: Reduction,
    c: Cells,
    op: int,
    t: Tensor,
    dim: Any = None,
    keepdim: Any = False,  # noqa: FBT002 - as torch passes it
    dtype: Any = None,  # noqa: ARG001 - of the result, which changes no number of it
) -> Tensor:
    """One number for all entries along some dimensions, by default all."""
    chosen = [dim] if isinstance(dim, int) else list(dim or [])
    chosen = [d % t.dim() for d in chosen if t.dim()] or list(range(t.dim()))
    rest = [d for d in range(t.dim()) if d not in chosen]
    rows = t.permute([*rest, *chosen]).reshape(prod(t.shape[d] for d in rest), -1).tolist()
    found = [f(c, (op, n), row) for n, row in enumerate(rows)]
    shape = [1 if d in chosen else n for d, n in enumerate(t.shape) if keepdim or d not in chosen]
    return _tensor(found, shape)


def _tensor(cells: Sequence[Cell], shape: Sequence[int]) -> Tensor:
    return torch.tensor(cells, dtype=torch.int64).reshape(shape)


def _along(t: Tensor, dims: Sequence[int], f: Callable[[list[Cell]], Sequence[Cell]]) -> Tensor:
    """What f makes of the list of entries along some dimensions, in their places."""
    dims = [d % t.dim() for d in dims]
    order = [d for d in range(t.dim()) if d not in dims] + dims
    moved = t.permute(order)
    rows = moved.reshape(-1, prod(t.shape[d] for d in dims)).tolist()
    found = _tensor([x for row in rows for x in f(row)], moved.shape)
    return found.permute([order.index(d) for d in range(t.dim())])


def _log_softmax(c: Cells, _: int, t: Tensor, dim: int, __: Any = None) -> Tensor:
    def row(cells: list[Cell]) -> list[Cell]:
        total = logsumexp(c, None, cells)
        return [c.subtract(x, total) for x in cells]

    return _along(t, [dim], row)


def _softmax(c: Cells, _: int, t: Tensor, dim: int, __: Any = None) -> Tensor:
    def row(cells: list[Cell]) -> list[Cell]:
        grown = [c.smooth(Word.EXP, x) for x in cells]
        over = c.smooth(Word.INVERSE, c.add(*((g, 1) for g in grown)))
        return [c.times(g, over) for g in grown]

    return _along(t, [dim], row)


def _cumsum(c: Cells, _: int, t: Tensor, dim: int, dtype: Any = None) -> Tensor:  # noqa: ARG001 - changes no number
    def row(cells: list[Cell]) -> list[Cell]:
        return [c.add(*((x, 1) for x in cells[: n + 1])) for n in range(len(cells))]

    return _along(t, [dim], row) if t.dim() else t.clone()


def _cumprod(c: Cells, _: int, t: Tensor, dim: int, dtype: Any = None) -> Tensor:  # noqa: ARG001 - changes no number
    def row(cells: list[Cell]) -> list[Cell]:
        return list(accumulate(cells, c.times))

    return _along(t, [dim], row) if t.dim() else t.clone()


def _norm(c: Cells, op: int, t: Tensor, order: Any = 2, *where: Any, **named: Any) -> Tensor:
    """Lengths. Of zero that of order 2 has a ball of derivatives, for which there is no word."""
    if order == 2:
        squares = _tensor([c.times(x, x) for x in t.reshape(-1).tolist()], t.shape)
        found = reduced(REDUCED["sum"], c, op, squares, *where, **named)
        if any(c.is_told((op, n)) for n in range(found.numel())):
            raise NoInstructionsError("a norm of zero")
        return _tensor([c.smooth(Word.SQRT, x) for x in found.reshape(-1).tolist()], found.shape)
    if order not in (1, inf):
        raise NoInstructionsError(f"a norm of order {order}")
    sizes = [c.largest([c.add((x, -1)), x], (op, n)) for n, x in enumerate(t.reshape(-1).tolist())]
    total = REDUCED["sum" if order == 1 else "amax"]
    return reduced(total, c, op, _tensor(sizes, t.shape), *where, **named)


def _on_diagonal(c: Cells, _: int, t: Tensor, *where: Any) -> Tensor:
    return torch.diag_embed(t - c.zero, *where) + c.zero


def _scatter_add(c: Cells, _: int, t: Tensor, dim: int, index: Tensor, source: Tensor) -> Tensor:
    if not t.dim():
        raise NoInstructionsError("entries that are added to a single number")
    terms = {
        place: [(cell, 1)]
        for place, cell in zip(_places(t.shape), t.reshape(-1).tolist(), strict=True)
    }
    for place in _places(index.shape):
        to = c.value(int(index[place]))
        if to is None:
            raise NoInstructionsError("a place that varies")
        at = list(place)
        at[dim] = int(to)
        terms[tuple(at)].append((int(source[place]), 1))
    return _tensor([c.add(*own) for own in terms.values()], t.shape)


def _places(shape: Sequence[int]) -> list[tuple[int, ...]]:
    return list(product(*map(range, shape)))


def _index_add(
    c: Cells, op: int, t: Tensor, dim: int, index: Tensor, source: Tensor, alpha: Any = 1
) -> Tensor:
    if alpha != 1:
        raise NoInstructionsError("multiples of entries that are added at places")
    along = [1] * source.dim()
    along[dim] = -1
    return _scatter_add(c, op, t, dim, index.reshape(along).expand(source.shape), source)


def _triangle(kept: Callable[[Tensor, int], Tensor]) -> Whole:
    def meaning(c: Cells, _: int, t: Tensor, diagonal: int = 0) -> Tensor:
        mask = kept(torch.ones(t.shape, dtype=torch.bool), diagonal)
        return torch.where(mask, t, torch.full_like(t, c.zero))

    return meaning


# --- products ------------------------------------------------------------------------------------


def _product(
    c: Cells,
    _: int,
    a: Tensor,
    b: Tensor,
    bias: Tensor | None = None,
    beta: Any = 1,
    alpha: Any = 1,
) -> Tensor:
    """Products of matrices, one for each leading index, with a term that is added."""
    shape = (*a.shape[:-1], b.shape[-1])
    extra = None if bias is None else bias.expand(shape).reshape(-1).tolist()
    rows = a.reshape(-1, *a.shape[-2:]).tolist()
    columns = b.transpose(-1, -2).reshape(-1, b.shape[-1], b.shape[-2]).tolist()
    scale, share = c.constant(alpha), c.constant(beta)
    found: list[Cell] = []
    for left, right in zip(rows, columns, strict=True):
        for row, column in product(left, right):
            more = [] if extra is None else [(extra[len(found)], share)]
            pairs = list(zip(row, column, strict=True))
            if alpha != 1:
                pairs = [(c.products(pairs), scale)]
            found.append(c.products([*pairs, *more]))
    return _tensor(found, shape)


def _dot(c: Cells, op: int, a: Tensor, b: Tensor) -> Tensor:
    return _product(c, op, a[None], b[:, None]).reshape([])


def _times_vector(c: Cells, op: int, a: Tensor, b: Tensor) -> Tensor:
    return _product(c, op, a, b[:, None])[:, 0]


def _added_product(
    c: Cells, op: int, t: Tensor, a: Tensor, b: Tensor, *more: Any, **named: Any
) -> Tensor:
    return _product(c, op, a, b, t, *more, **named)


# --- images --------------------------------------------------------------------------------------


def _windows(
    t: Tensor, size: Sequence[int], stride: Any, pad: Any, dilation: Any
) -> tuple[list[int], Tensor]:
    """Shape of the places of a window, and the entries in each: (..., places, entries)."""
    k = len(size)
    stride, pad, dilation = (
        [n] * k if isinstance(n, int) else list(n) * (1 if len(n) == k else k)
        for n in (stride, pad, dilation)
    )
    around = [n for p in reversed(pad) for n in (p, p)]
    wide = padded(t, around, value=_OUTSIDE)
    for i in range(k):  # dimension -k+i becomes places, and entries come last
        dim = t.dim() - k + i
        count = (wide.shape[dim] - dilation[i] * (size[i] - 1) - 1) // stride[i] + 1
        places = torch.arange(count)[:, None] * stride[i] + torch.arange(size[i]) * dilation[i]
        wide = wide.movedim(dim, -1)[..., places].movedim(-2, dim)
    shape = list(wide.shape[t.dim() - k : t.dim()])
    return shape, wide.reshape(*t.shape[:-k], prod(shape), prod(size))


def _max_pool(
    c: Cells,
    op: int,
    t: Tensor,
    size: Sequence[int],
    stride: Sequence[int] = (),
    pad: Any = 0,
    dilation: Any = 1,
    ceil: bool = False,  # noqa: FBT001, FBT002 - as torch passes it
) -> Tensor:
    if ceil:
        raise NoInstructionsError("a pool with ceil_mode")
    size = list(size) * (2 if len(size) == 1 else 1)
    shape, windows = _windows(t, size, stride or size, pad, dilation)
    rows = windows.reshape(-1, windows.shape[-1]).tolist()
    found = [c.largest([x for x in row if x != _OUTSIDE], (op, n)) for n, row in enumerate(rows)]
    return _tensor(found, [*t.shape[:-2], *shape])


def _convolution(
    c: Cells,
    _: int,
    x: Tensor,
    w: Tensor,
    bias: Tensor | None,
    stride: Any,
    pad: Any,
    dilation: Any,
    transposed: Any,
    __: Any,
    groups: int,
) -> Tensor:
    if transposed or x.dim() != w.dim():
        raise NoInstructionsError("a transposed convolution")
    filters = w.reshape(groups, w.shape[0] // groups, -1).tolist()
    offsets = None if bias is None else bias.tolist()
    shape, windows = _windows(x, list(w.shape[2:]), stride, pad, dilation)
    found = []
    for image in windows:  # (channels, places, entries)
        for g, own in enumerate(image.chunk(groups)):
            rows = own.transpose(0, 1).reshape(own.shape[1], -1).tolist()
            for k, kernel in enumerate(filters[g]):
                more = [] if offsets is None else [(offsets[g * len(filters[g]) + k], c.one)]
                for row in rows:
                    pairs = zip(row, kernel, strict=True)
                    found.append(c.products([*((a, b) for a, b in pairs if a != _OUTSIDE), *more]))
    return _tensor(found, [x.shape[0], w.shape[0], *shape])


# --- normalisations and losses --------------------------------------------------------------------


def _normal(c: Cells, cells: Sequence[Cell], eps: float) -> list[Cell]:
    """Cells less their mean, over their standard deviation."""
    mean = c.mean(cells)
    off = [c.subtract(x, mean) for x in cells]
    spread = c.add((c.mean([c.times(x, x) for x in off]), 1), (c.constant(eps), 1))
    over = c.smooth(Word.INVERSE, c.smooth(Word.SQRT, spread))
    return [c.times(x, over) for x in off]


def _affine(c: Cells, t: Tensor, w: Tensor | None, b: Tensor | None) -> Tensor:
    wide = [
        [other] * t.numel() if p is None else p.expand(t.shape).reshape(-1).tolist()
        for p, other in ((w, c.one), (b, c.zero))
    ]
    rows = zip(t.reshape(-1).tolist(), *wide, strict=True)
    return _tensor([c.products([(x, y), (z, c.one)]) for x, y, z in rows], t.shape)


def _batch_norm(
    c: Cells,
    _: int,
    t: Tensor,
    w: Tensor | None,
    b: Tensor | None,
    mean: Tensor | None,
    var: Tensor | None,
    training: Any,
    __: Any,
    eps: float,
) -> Tensor:
    def side(p: Tensor) -> Tensor:
        return p.view(-1, *[1] * (t.dim() - 2))

    if training or mean is None or var is None:
        dims = [d for d in range(t.dim()) if d != 1]
        normed = _along(t, dims, lambda cells: _normal(c, cells, eps))
        for p in (mean, var):
            if p is not None:
                p.fill_(UNKNOWN)  # written to, and not read again in a program that we lower
    else:
        scales = [
            c.smooth(Word.INVERSE, c.smooth(Word.SQRT, c.add((v, 1), (c.constant(eps), 1))))
            for v in var.tolist()
        ]
        offs = [c.add((c.times(m, s), -1)) for m, s in zip(mean.tolist(), scales, strict=True)]
        normed = _affine(c, t, side(_tensor(scales, var.shape)), side(_tensor(offs, var.shape)))
    return _affine(c, normed, *(None if p is None else side(p) for p in (w, b)))


def _layer_norm(
    c: Cells, _: int, t: Tensor, shape: Sequence[int], w: Any, b: Any, eps: float
) -> Tensor:
    dims = range(-len(shape), 0)
    return _affine(c, _along(t, dims, lambda cells: _normal(c, cells, eps)), w, b)


def _loss(c: Cells, cells: Sequence[Cell], how: int, shape: Sequence[int]) -> Tensor:
    """Losses of all entries: as they are, their mean, or their sum."""
    if how == 0:
        return _tensor(cells, shape)
    return _tensor([c.mean(cells) if how == 1 else c.add(*((x, 1) for x in cells))], [])


def _mse(c: Cells, _: int, x: Tensor, y: Tensor, how: int = 1) -> Tensor:
    pairs = zip(x.reshape(-1).tolist(), y.reshape(-1).tolist(), strict=True)
    off = [c.subtract(a, b) for a, b in pairs]
    return _loss(c, [c.times(d, d) for d in off], how, x.shape)


def _nll(
    c: Cells, _: int, t: Tensor, target: Tensor, weight: Any, how: int, ignored: int
) -> Tensor:
    if t.dim() != 2 or weight is not None or how == 0:
        raise NoInstructionsError("a loss with weights, or of another form")
    classes = [c.value(k) for k in target.tolist()]
    if None in classes:
        raise NoInstructionsError("a class that varies")
    rows = zip(t.tolist(), [int(k or 0) for k in classes], strict=True)
    return _loss(c, [c.add((row[k], -1)) for row, k in rows if k != ignored], how, [])


WHOLE: Mapping[str, Whole] = MappingProxyType(
    {
        "mm": _product,
        "bmm": _product,
        "mv": _times_vector,
        "dot": _dot,
        "addmm": _added_product,
        "baddbmm": _added_product,
        "convolution": _convolution,
        "max_pool2d_with_indices": _max_pool,
        "native_batch_norm": _batch_norm,
        "native_layer_norm": _layer_norm,
        "_log_softmax": _log_softmax,
        "_softmax": _softmax,
        "nll_loss_forward": _nll,
        "mse_loss": _mse,
        "cumsum": _cumsum,
        "cumprod": _cumprod,
        "linalg_vector_norm": _norm,
        "diag_embed": _on_diagonal,
        "scatter_add": _scatter_add,
        "index_add": _index_add,
        "triu": _triangle(torch.triu),
        "tril": _triangle(torch.tril),
    }
)
