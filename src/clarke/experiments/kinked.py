"""A loss that goes wrong at a kink: found, explained and repaired in one audited step.

Binary cross entropy with logits, written so that it does not overflow. It is smooth; but at logits
of zero, where a linear layer that starts at zero puts every image, autograd finds another slope.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits

from clarke import OnWrong, Report, audit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from clarke.experiments.digits import Digits

_IMAGES = 4  # at each one two kinks: enough to see it, few enough to go through all selections
_SECONDS = 40.0


@dataclass(frozen=True, eq=False)
class Kinked:
    """What came of the step.

    Attributes:
        report: On the gradient that autograd returned.
        error: The largest error of its entries, by the built-in function's gradient.
        left: The same of what stands in ``.grad`` after the audited call.
        repaired: The audit put another gradient there.
    """

    report: Report
    error: float
    left: float
    repaired: bool


def bce_with_logits(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """Binary cross entropy with logits as it is written by hand."""
    return (torch.clamp(x, min=0) - x * t + torch.log1p(torch.exp(-torch.abs(x)))).mean()


def judge_at_a_kink(data: Digits) -> Kinked:
    """The first step of telling the digits below five from the others, audited with repair."""
    layer = nn.Linear(data.train_images[0].numel(), 1)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    images = data.train_images[:_IMAGES].flatten(1)
    labels = (data.train_labels[:_IMAGES] >= 5).to(images.dtype)[:, None]
    variables = list(layer.parameters())
    right = torch.autograd.grad(binary_cross_entropy_with_logits(layer(images), labels), variables)
    wrong = torch.autograd.grad(bce_with_logits(layer(images), labels), variables)
    with audit(OnWrong.REPAIR, seconds=_SECONDS) as watch:
        bce_with_logits(layer(images), labels).backward()
    left = [p.grad for p in variables if p.grad is not None]
    repaired = watch.steps[0].repaired
    return Kinked(watch.reports[0], _apart(wrong, right), _apart(left, right), repaired)


def _apart(found: Sequence[torch.Tensor], right: Sequence[torch.Tensor]) -> float:
    return max(float((a - b).abs().max()) for a, b in zip(found, right, strict=True))
