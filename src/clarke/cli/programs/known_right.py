"""Gradients that the paper knows to be right although kinks interact."""

from __future__ import annotations

import torch
from torch.nn import functional as F  # noqa: N812 - the usual name

from clarke.cli.programs.known_wrong import steep_relu
from clarke.cli.programs.model import Example


def agreeing_relus(w: torch.Tensor) -> torch.Tensor:
    """Two kinks at one place, and w < 0 selects at both what autograd chose."""
    return F.relu(w) - F.relu(2 * w)


def empty_p(w: torch.Tensor) -> torch.Tensor:
    """No direction selects all of autograd's pieces, yet what it returns is a limiting gradient."""
    return F.relu(w) + steep_relu(w) - steep_relu(w)


RIGHT = (
    Example("agreeing-relus", "relu(w) - relu(2w)", agreeing_relus, (0.0,), "paper, section 3"),
    Example(
        "empty-p", "g(w) + h(w) - h(w); g'(0)=0, h'(0)=1", empty_p, (0.0,), "paper, after Theorem 8"
    ),
)
