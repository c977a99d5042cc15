"""Norms and distances: at zero, at zero entries, at ties, at coincident points."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.nn import functional as F  # noqa: N812 - the usual name

from clarke.kinks.samples import Sample

_INF = float("inf")


def _vectors() -> Iterator[Sample]:
    zero, entry, tie = ((0.0, 0.0),), ((0.0, 2.0),), ((2.0, -2.0),)
    for order in (1.0, 1.5, 2.0, 3.0, _INF, -_INF):
        for kink, values in (("x = 0", zero), ("x = (0, 2)", entry), ("x = (2, -2)", tie)):
            if order == 2.0 and kink == "x = 0":
                continue  # among the samples of vector_norm
            yield Sample(
                f"linalg.vector_norm(x, {order:g})",
                kink,
                lambda x, o=order: torch.linalg.vector_norm(x, o),
                values,
            )
    yield Sample(
        "linalg.vector_norm(x, 0.5)",
        "x = (0, 2)",
        lambda x: torch.linalg.vector_norm(x, 0.5),
        entry,
    )
    yield Sample("norm(x)", "x = 0", torch.norm, zero)
    yield Sample("norm(x) ** 2", "x = 0", lambda x: torch.norm(x) ** 2, zero)
    yield Sample("sqrt(sum(x ** 2))", "x = 0", lambda x: (x * x).sum().sqrt(), zero)
    yield Sample("sqrt(sum(x ** 2)) ** 2", "x = 0", lambda x: (x * x).sum().sqrt() ** 2, zero)
    yield Sample("normalize(x)", "x = 0", lambda x: F.normalize(x, dim=0), zero)
    yield Sample(
        "cosine_similarity(x, (1, 2))",
        "x = 0",
        lambda x: F.cosine_similarity(x, torch.tensor([1.0, 2.0], dtype=x.dtype), dim=0),
        zero,
    )
    yield Sample("std(x)", "constant", torch.std, ((1.0, 1.0, 1.0),))
    yield Sample("var(x)", "constant", torch.var, ((1.0, 1.0, 1.0),))
    yield Sample("std_mean(x)", "constant", lambda x: torch.stack(torch.std_mean(x)), ((1.0, 1.0),))
    yield Sample(
        "renorm(x, 2, 0, 1)", "norm 1", lambda x: x.reshape(1, 2).renorm(2, 0, 1), ((1.0, 0.0),)
    )
    yield Sample("logsumexp(x)", "all equal", lambda x: x.logsumexp(0), ((1.0, 1.0),))
    yield Sample("softmax(x)", "all equal", lambda x: x.softmax(0), ((1.0, 1.0),))


def _distances() -> Iterator[Sample]:
    same = ((1.0, 2.0), (1.0, 2.0))
    tied = ((1.0, 2.0), (0.0, 1.0))
    for order in (1.0, 2.0, _INF):
        for kink, values in (("x = y", same), ("|x - y| = (1, 1)", tied)):
            if order == 2.0 and values is tied:
                continue
            yield Sample(
                f"cdist(x, y, {order:g})",
                kink,
                lambda x, y, o=order: torch.cdist(x[None], y[None], p=o),
                values,
            )
            yield Sample(
                f"pdist((x, y), {order:g})",
                kink,
                lambda x, y, o=order: F.pdist(torch.stack([x, y]), p=o),
                values,
            )
            yield Sample(
                f"dist(x, y, {order:g})", kink, lambda x, y, o=order: torch.dist(x, y, p=o), values
            )
            yield Sample(
                f"pairwise_distance(x, y, {order:g})",
                kink,
                lambda x, y, o=order: F.pairwise_distance(x[None], y[None], p=o),
                values,
            )


def _matrices() -> Iterator[Sample]:
    identity = ((1.0, 0.0, 0.0, 1.0),)
    zero = ((0.0, 0.0, 0.0, 0.0),)
    rank_one = ((1.0, 1.0, 1.0, 1.0),)

    def square(x: torch.Tensor) -> torch.Tensor:
        return x.reshape(2, 2)

    yield Sample(
        "linalg.matrix_norm(x, 2)",
        "x = I",
        lambda x: torch.linalg.matrix_norm(square(x), 2),
        identity,
    )
    yield Sample(
        "linalg.matrix_norm(x, 'nuc')",
        "x = I",
        lambda x: torch.linalg.matrix_norm(square(x), "nuc"),
        identity,
    )
    yield Sample(
        "linalg.matrix_norm(x, 'nuc')",
        "rank 1",
        lambda x: torch.linalg.matrix_norm(square(x), "nuc"),
        rank_one,
    )
    yield Sample(
        "linalg.matrix_norm(x, 'fro')", "x = 0", lambda x: torch.linalg.matrix_norm(square(x)), zero
    )
    yield Sample(
        "linalg.matrix_norm(x, 1)",
        "x = I",
        lambda x: torch.linalg.matrix_norm(square(x), 1),
        identity,
    )
    yield Sample(
        "linalg.matrix_norm(x, inf)",
        "x = I",
        lambda x: torch.linalg.matrix_norm(square(x), _INF),
        identity,
    )
    yield Sample("linalg.svdvals(x)", "x = I", lambda x: torch.linalg.svdvals(square(x)), identity)
    yield Sample(
        "linalg.eigvalsh(x + x.T)",
        "x = I",
        lambda x: torch.linalg.eigvalsh(square(x) + square(x).T),
        identity,
    )


def norms() -> Iterator[Sample]:
    """Points where norms and distances have kinks."""
    yield from _vectors()
    yield from _distances()
    yield from _matrices()
