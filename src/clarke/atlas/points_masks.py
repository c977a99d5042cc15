"""Masks from comparisons, random slopes, complex numbers, segments, at their kinks."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from clarke.kinks.samples import Sample

_ZERO = ((0.0,),)


def _in_box(x: torch.Tensor) -> torch.Tensor:
    return (x > 0) & (x < 2)


def _masks() -> Iterator[Sample]:
    yield Sample("x * ((x > 0) & (x < 2))", "x = 0", lambda x: x * _in_box(x), _ZERO)
    yield Sample("x * ((x > 0) & (x < 2))", "x = 2", lambda x: x * _in_box(x), ((2.0,),))
    yield Sample(
        "masked_fill(x, (x <= 0) | (x >= 2), 0)",
        "x = 0",
        lambda x: x.masked_fill((x <= 0) | (x >= 2), 0.0),
        _ZERO,
    )
    yield Sample("x * ((x > 0) ^ (x > 2))", "x = 0", lambda x: x * ((x > 0) ^ (x > 2)), _ZERO)
    yield Sample("x * ~(x <= 0)", "x = 0", lambda x: x * ~(x <= 0), _ZERO)
    yield Sample(
        "where((x >= 0) & (x <= 0), x, 2 x)",
        "x = 0",
        lambda x: torch.where((x >= 0) & (x <= 0), x, 2 * x),
        _ZERO,
    )
    yield Sample("where(x == 0, x, 2 x)", "x = 0", lambda x: torch.where(x == 0, x, 2 * x), _ZERO)
    yield Sample(
        "max(x) * any(x > 0)", "x = (0, -1)", lambda x: x.max() * (x > 0).any(), ((0.0, -1.0),)
    )
    yield Sample(
        "min(x) * all(x > 0)", "x = (0, 1)", lambda x: x.min() * (x > 0).all(), ((0.0, 1.0),)
    )
    yield Sample("sum(x[x > 0])", "x = (0, 1)", lambda x: x[x > 0].sum(), ((0.0, 1.0),))
    yield Sample("mean(x[x > 0])", "x = (0, 1)", lambda x: x[x > 0].mean(), ((0.0, 1.0),))
    yield Sample(
        "x[x < 0] = 0", "x = 0", lambda x: torch.index_put(x, (x < 0,), x.new_zeros(())), _ZERO
    )


def _complex() -> Iterator[Sample]:
    for point in ((0.0, 0.0), (-1.0, 0.0)):
        kink = f"x + i y = {point[0]:g}"
        values = tuple((p,) for p in point)
        yield Sample("abs(x + i y)", kink, lambda x, y: torch.complex(x, y).abs(), values)
        yield Sample("angle(x + i y)", kink, lambda x, y: torch.complex(x, y).angle(), values)
    yield Sample(
        "imag(log(x + i y))",
        "x + i y = -1",
        lambda x, y: torch.complex(x, y).log().imag,
        ((-1.0,), (0.0,)),
    )


def _groups() -> Iterator[Sample]:
    lengths = torch.tensor([2, 1])
    for reduce in ("max", "min"):
        yield Sample(
            f"segment_reduce(x, {reduce})",
            "two equal",
            lambda x, r=reduce: torch.segment_reduce(x, r, lengths=lengths),
            ((1.0, 1.0, 2.0),),
        )
    for reduce in ("prod", "mean", "sum"):
        yield Sample(
            f"segment_reduce(x, {reduce})",
            "x = 0",
            lambda x, r=reduce: torch.segment_reduce(x, r, lengths=lengths),
            ((0.0, 0.0, 2.0),),
        )
    for reduce in ("prod", "mean"):
        yield Sample(
            f"index_reduce(1, i, x, {reduce})",
            "x = 0",
            lambda x, r=reduce: torch.ones(2, dtype=x.dtype).index_reduce(
                0, torch.tensor([0, 0, 1]), x, r
            ),
            ((0.0, 0.0, 2.0),),
        )


def masks() -> Iterator[Sample]:
    """Points where comparisons tie, and what else masks and groups do."""
    yield from _masks()
    yield from _complex()
    yield from _groups()
    for order, kink, values in (
        (0.0, "x = (0, 2)", ((0.0, 2.0),)),
        (0.0, "x = (2, -2)", ((2.0, -2.0),)),
        (0.5, "x = 0", ((0.0, 0.0),)),
    ):
        yield Sample(
            f"linalg.vector_norm(x, {order:g})",
            kink,
            lambda x, o=order: torch.linalg.vector_norm(x, o),
            values,
        )
