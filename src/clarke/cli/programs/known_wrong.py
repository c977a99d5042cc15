"""The wrong gradients of Park, Chun and Lee (ICLR 2024)."""

from __future__ import annotations

import torch
from torch.nn import functional as F  # noqa: N812 - the usual name

from clarke.cli.programs.model import Example


def steep_relu(x: torch.Tensor) -> torch.Tensor:
    """ReLU whose derivative at zero is 1, whatever the version of torch."""
    return x * (x >= 0)


def lemma_2(w: torch.Tensor) -> torch.Tensor:
    """Equal to w, so its derivative is 1; both ReLUs return slope 0 at their common kink."""
    return F.relu(w) - F.relu(-w)


def lemma_3(b: torch.Tensor) -> torch.Tensor:
    """Slope 1/6 on both sides: one sample leaves its kink as the other enters; autograd says 0."""
    batch = torch.tensor([3.0, -3.0], dtype=b.dtype)
    return F.hardsigmoid(batch + b).sum()


def lemma_7(u: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Equal to u, but the first of two tied elements is taken in both maxima, as at no point."""
    left = torch.stack([u + b, b]).max(0).values
    right = torch.stack([-u + b, b]).max(0).values
    return left - right


def two_conventions(w: torch.Tensor) -> torch.Tensor:
    """Identically zero; two spellings of ReLU have different slopes at the kink they share."""
    return F.relu(w) - steep_relu(w)


def nested_relus(w: torch.Tensor) -> torch.Tensor:
    """Identically zero; the outer kink sees the derivative that the inner one has on one side."""
    return steep_relu(-steep_relu(w))


WRONG = (
    Example("lemma-2", "relu(w) - relu(-w)", lemma_2, (0.0,), "paper, Lemma 2 and App. H, f1"),
    Example("lemma-3", "hardsigmoid(3+b) + hardsigmoid(-3+b)", lemma_3, (0.0,), "paper, Lemma 3"),
    Example("lemma-7", "max(u+b, b) - max(-u+b, b)", lemma_7, (0.0, 0.0), "paper, Lemma 7"),
    Example(
        "two-conventions",
        "g(w) - h(w); g'(0)=0, h'(0)=1",
        two_conventions,
        (0.0,),
        "paper, App. H, f2",
    ),
    Example("nested-relus", "h(-h(w)), h'(0)=1", nested_relus, (0.0,), "paper, App. H, f3"),
)
