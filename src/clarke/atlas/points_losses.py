"""Losses at their kinks."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.nn import functional as F  # noqa: N812 - the usual name

from clarke.kinks.samples import Sample


def _zeros(x: torch.Tensor) -> torch.Tensor:
    return torch.zeros_like(x)


def _ones(x: torch.Tensor) -> torch.Tensor:
    return torch.ones_like(x)


def losses() -> Iterator[Sample]:
    """Residuals at zero, margins reached exactly, bounds of probabilities."""
    yield Sample("l1_loss(x, 0)", "x = 0", lambda x: F.l1_loss(x, _zeros(x)), ((0.0,),))
    yield Sample("mse_loss(x, 0)", "x = 0", lambda x: F.mse_loss(x, _zeros(x)), ((0.0,),))
    for point in (-1.0, 0.0, 1.0):
        kink = f"x = {point:g}"
        yield Sample(
            "smooth_l1_loss(x, 0)", kink, lambda x: F.smooth_l1_loss(x, _zeros(x)), ((point,),)
        )
        yield Sample("huber_loss(x, 0)", kink, lambda x: F.huber_loss(x, _zeros(x)), ((point,),))
    yield Sample(
        "smooth_l1_loss(x, 0, beta=0)",
        "x = 0",
        lambda x: F.smooth_l1_loss(x, _zeros(x), beta=0.0),
        ((0.0,),),
    )
    yield Sample(
        "hinge_embedding_loss(x, -1)",
        "x = 1",
        lambda x: F.hinge_embedding_loss(x, -_ones(x)),
        ((1.0,),),
    )
    yield Sample(
        "margin_ranking_loss(x, y, 1)",
        "x = y",
        lambda x, y: F.margin_ranking_loss(x, y, _ones(x)),
        ((1.0,), (1.0,)),
    )
    target = torch.tensor([1])
    yield Sample(
        "multi_margin_loss(x, 1)",
        "x[0] + 1 = x[1]",
        lambda x: F.multi_margin_loss(x[None], target),
        ((1.0, 2.0, 0.0),),
    )
    yield Sample(
        "multi_margin_loss(x, 1, p=2)",
        "x[0] + 1 = x[1]",
        lambda x: F.multi_margin_loss(x[None], target, p=2),
        ((1.0, 2.0, 0.0),),
    )
    yield Sample(
        "multilabel_margin_loss(x, (1, -1))",
        "x[0] + 1 = x[1]",
        lambda x: F.multilabel_margin_loss(x, torch.tensor([1, -1])),
        ((1.0, 2.0),),
    )
    yield Sample(
        "soft_margin_loss(x, 1)", "x = 0", lambda x: F.soft_margin_loss(x, _ones(x)), ((0.0,),)
    )
    yield Sample(
        "multilabel_soft_margin_loss(x, 1)",
        "x = 0",
        lambda x: F.multilabel_soft_margin_loss(x[None], _ones(x)[None]),
        ((0.0, 0.0),),
    )
    yield Sample(
        "triplet_margin_loss(x, y, z)",
        "x = y, inactive",
        lambda x, y, z: F.triplet_margin_loss(x[None], y[None], z[None]),
        ((1.0, 2.0), (1.0, 2.0), (9.0, 9.0)),
    )
    yield Sample(
        "triplet_margin_loss(x, y, z), eps 0",
        "x = y, active",
        lambda x, y, z: F.triplet_margin_loss(x[None], y[None], z[None], eps=0.0),
        ((1.0, 2.0), (1.0, 2.0), (1.5, 2.0)),
    )
    yield Sample(
        "cosine_embedding_loss(x, y, -1)",
        "orthogonal",
        lambda x, y: F.cosine_embedding_loss(x[None], y[None], torch.tensor([-1.0])),
        ((1.0, 0.0), (0.0, 1.0)),
    )
    yield Sample(
        "clamp(x, min=0) - x t + log1p(exp(-|x|))",
        "x = 0, t = 0",
        lambda x: x.clamp(min=0) - x * 0.0 + torch.log1p(torch.exp(-x.abs())),
        ((0.0,),),
    )
    yield Sample(
        "binary_cross_entropy_with_logits(x, 0)",
        "x = 0",
        lambda x: F.binary_cross_entropy_with_logits(x, _zeros(x)),
        ((0.0,),),
    )
    for point in (0.0, 1.0):
        yield Sample(
            "binary_cross_entropy(x, 1)",
            f"x = {point:g}",
            lambda x: F.binary_cross_entropy(x, _ones(x)),
            ((point,),),
        )
    yield Sample("kl_div(x, 0)", "target 0", lambda x: F.kl_div(x, _zeros(x)), ((-1.0,),))
    yield Sample(
        "gaussian_nll_loss(x, 0, v)",
        "v = eps",
        lambda x, v: F.gaussian_nll_loss(x, _zeros(x), v, eps=0.5),
        ((1.0,), (0.5,)),
    )
    yield Sample(
        "min(r a, clamp(r, 0.8, 1.2) a)",
        "r = 1 (clipped policy objective)",
        lambda r: torch.min(r * 2, r.clamp(0.8, 1.2) * 2),
        ((1.0,),),
    )
