"""Order statistics, running and grouped maxima."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.nn import functional as F  # noqa: N812 - the usual name

from clarke.kinks.samples import Sample

_PAIR = ((1.0, 1.0, 2.0),)
_TRIPLE = ((1.0, 1.0, 1.0, 2.0),)
_TOP = ((2.0, 1.0, 2.0, 2.0),)
_TWO = "two equal"
_THREE = "three equal"


def _orders() -> Iterator[Sample]:
    for kink, values in ((_TWO, _PAIR), (_THREE, _TRIPLE)):
        yield Sample("sort(x)", kink, lambda x: x.sort().values, values)
        yield Sample("sort(x, descending)", kink, lambda x: x.sort(descending=True).values, values)
        yield Sample("sort(x, stable)", kink, lambda x: x.sort(stable=True).values, values)
        yield Sample("msort(x)", kink, torch.msort, values)
        yield Sample("kthvalue(x, 1)", kink, lambda x: x.kthvalue(1).values, values)
        yield Sample("kthvalue(x, 2)", kink, lambda x: x.kthvalue(2).values, values)
        yield Sample("median(x)", kink, torch.median, values)
        yield Sample("median(x, 0)", kink, lambda x: x.median(0).values, values)
        yield Sample("nanmedian(x)", kink, torch.nanmedian, values)
        yield Sample("nanmedian(x, 0)", kink, lambda x: x.nanmedian(0).values, values)
        yield Sample("quantile(x, 0.3)", kink, lambda x: x.quantile(0.3), values)
        yield Sample(
            "topk(x, 2, smallest)", kink, lambda x: x.topk(2, largest=False).values, values
        )
        yield Sample("cummax(x, 0)", kink, lambda x: x.cummax(0).values, values)
        yield Sample("cummin(x, 0)", kink, lambda x: x.cummin(0).values, values)
        yield Sample("mode(x)", kink, lambda x: x.mode().values, values)
    for k in (1, 2, 3):
        yield Sample(f"topk(x, {k})", "three equal on top", lambda x, k=k: x.topk(k).values, _TOP)
    yield Sample("aminmax(x)", "all equal", lambda x: torch.stack(torch.aminmax(x)), ((1.0, 1.0),))
    yield Sample(
        "max(x, 0)", "a repeated point", lambda x: x[[0, 0, 1]].max(0).values, ((1.0, 1.0),)
    )
    yield Sample("amax(x)", "(1, 2, 2, 2)", lambda x: x.amax(0), ((1.0, 2.0, 2.0, 2.0),))
    yield Sample("argmax(x) as index", "two equal", lambda x: x[x.argmax()], ((1.0, 1.0),))


def _fractional(x: torch.Tensor) -> torch.Tensor:
    """The largest of four numbers, as a fractional maxpool (its only window is the whole)."""
    return F.fractional_max_pool2d(x.reshape(1, 1, 2, 2), 2, 1)


def _groups() -> Iterator[Sample]:
    where = torch.tensor([0, 0, 1])
    for word in ("amax", "amin"):
        yield Sample(
            f"scatter_reduce(0, i, x, {word})",
            _TWO,
            lambda x, w=word: torch.zeros(2, dtype=x.dtype).scatter_reduce(
                0, where, x, w, include_self=False
            ),
            _PAIR,
        )
        yield Sample(
            f"scatter_reduce(0, i, x, {word}), include_self",
            "equal to the start",
            lambda x, w=word: torch.ones(2, dtype=x.dtype).scatter_reduce(0, where, x, w),
            ((1.0, 1.0, 1.0),),
        )
        yield Sample(
            f"index_reduce(0, i, x, {word})",
            _TWO,
            lambda x, w=word: torch.zeros(2, dtype=x.dtype).index_reduce(
                0, where, x, w, include_self=False
            ),
            _PAIR,
        )
    yield Sample(
        "embedding_bag(i, x, max)",
        _TWO,
        lambda x: F.embedding_bag(torch.tensor([[0, 1, 2]]), x.reshape(3, 1), mode="max"),
        ((2.0, 2.0, 1.0),),
    )
    yield Sample(
        "fractional_max_pool2d(x, 2, 1)",
        "four equal",
        _fractional,
        ((1.0, 1.0, 1.0, 1.0),),
    )
    yield Sample(
        "fractional_max_pool2d(x, 2, 1) - fractional_max_pool2d(reversed x, 2, 1)",
        "four equal",
        lambda x: _fractional(x) - _fractional(x.flip(0)),
        ((1.0, 1.0, 1.0, 1.0),),
    )
    yield Sample(
        "fractional_max_pool2d(x, 2, 2) of 3 x 3",
        "two equal in four windows",
        lambda x: F.fractional_max_pool2d(x.reshape(1, 1, 3, 3), 2, 2),
        ((0.0, 1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0),),
    )
    yield Sample(
        "fractional_max_pool3d(x, (1, 2, 2), 1)",
        _THREE,
        # The kernel wants more room than one window; the only one is the last.
        lambda x: F.fractional_max_pool3d(
            F.pad(x.reshape(1, 1, 1, 2, 2), (1, 0, 1, 0, 1, 0)), (1, 2, 2), 1
        ),
        ((2.0, 1.0, 2.0, 2.0),),
    )
    yield Sample(
        "max_pool2d(x, 2, stride 1, padding 1)",
        "zeros beside padding",
        lambda x: F.max_pool2d(x.reshape(1, 1, 2, 2), 2, 1, 1),
        ((0.0, 0.0, 0.0, 0.0),),
    )
    yield Sample(
        "adaptive_max_pool3d(x, 1)",
        _TWO,
        lambda x: F.adaptive_max_pool3d(x.reshape(1, 1, 1, 1, 3), 1),
        ((2.0, 1.0, 2.0),),
    )


def choices() -> Iterator[Sample]:
    """Points where several elements tie."""
    yield from _orders()
    yield from _groups()
