"""Small compositions, among them the known failures and the commonest harmless ties."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.nn import functional as F  # noqa: N812 - the usual name

from clarke.kinks.samples import Sample


def _listed_abs(x: torch.Tensor) -> torch.Tensor:
    return getattr(torch, "_foreach_abs")([x])[0]  # type: ignore[no-any-return]  # noqa: B009


def programs() -> Iterator[Sample]:
    """Compositions at points where their kinks meet."""
    zero = ((0.0,),)
    yield Sample("relu(x) - relu(-x)", "x = 0", lambda x: F.relu(x) - F.relu(-x), zero)
    yield Sample("relu(x) - relu(2 x)", "x = 0", lambda x: F.relu(x) - F.relu(2 * x), zero)
    yield Sample(
        "hardsigmoid(3 + x) + hardsigmoid(-3 + x)",
        "x = 0",
        lambda x: F.hardsigmoid(3 + x) + F.hardsigmoid(-3 + x),
        zero,
    )
    yield Sample(
        "max(u + b, b) - max(-u + b, b)",
        "u = b = 0",
        lambda w: (
            torch.stack([w[0] + w[1], w[1]]).max(0).values
            - torch.stack([-w[0] + w[1], w[1]]).max(0).values
        ),
        ((0.0, 0.0),),
    )
    yield Sample("abs(x) - abs(2 x)", "x = 0", lambda x: x.abs() - (2 * x).abs(), zero)
    yield Sample("relu(abs(x))", "x = 0", lambda x: F.relu(x.abs()), zero)
    yield Sample("maximum(x, -x)", "x = 0", lambda x: torch.maximum(x, -x), zero)
    yield Sample("x * relu(x)", "x = 0", lambda x: x * F.relu(x), zero)
    yield Sample("relu(x) ** 2", "x = 0", lambda x: F.relu(x) ** 2, zero)
    yield Sample(
        "max_pool1d(relu(x), 2)",
        "both negative",
        lambda x: F.max_pool1d(F.relu(x)[None, None], 2),
        ((-1.0, -2.0),),
    )
    yield Sample(
        "relu(x * mask)",
        "a dropped entry",
        lambda x: F.relu(x * torch.tensor([0.0, 2.0], dtype=x.dtype)),
        ((1.0, 1.0),),
    )
    yield Sample(
        "clamp(round(8 x) / 8, 0, 1)",
        "x = 1 (a bound of a quantiser)",
        lambda x: x.clamp(0.0, 1.0),
        ((1.0,),),
    )
    yield Sample(
        "min over distances |x - c|",
        "halfway between two centres",
        lambda x: (x - torch.tensor([0.0, 2.0], dtype=x.dtype)).abs().min(),
        ((1.0,),),
    )
    yield Sample(
        "sort(x)[0] + sort(x)[1]", "two equal", lambda x: x.sort().values.sum(), ((1.0, 1.0),)
    )
    yield Sample(
        "scaled_dot_product_attention(x, x, x)",
        "equal rows",
        lambda x: F.scaled_dot_product_attention(*(x.reshape(1, 2, 1),) * 3),
        ((1.0, 1.0),),
    )
    yield Sample("_foreach_abs((x,))", "x = 0", _listed_abs, zero)
