"""Hunts over torch's own losses, activations and layers: `make field` writes docs/field.md.

Every find is confirmed here by sampling, apart from what `clarke.check` proves: the gradient that
autograd returned is not finite, or no mixture of those at 200 points nearby.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.optimize import linprog
from torch.nn import functional as F  # noqa: N812 - as users write it

import clarke
from clarke.hunt.model import in_words

SIGNS = torch.tensor([1.0, -1.0, 1.0, -1.0], dtype=torch.float64)
CLASSES = torch.tensor([2, 0])
# What a find means for those who use the function, by its name; written by hand.
MATTERS: dict[str, str] = {}


@dataclass(frozen=True)
class Entry:
    """A function with the shapes of its inputs, all of which are variables."""

    name: str
    function: Callable[..., torch.Tensor]
    shapes: tuple[tuple[int, ...], ...] = ((4,),)
    positive: bool = False

    def example(self) -> tuple[torch.Tensor, ...]:
        """Inputs on no kink."""
        generator = torch.Generator().manual_seed(1)
        made = [torch.randn(s, generator=generator, dtype=torch.float64) for s in self.shapes]
        if self.positive:
            made = [0.1 + 0.8 * torch.sigmoid(x) for x in made]
        return tuple(x.requires_grad_() for x in made)


def _entries() -> tuple[Entry, ...]:
    pair, rows, table = ((4,), (4,)), ((2, 3), (2, 3)), ((2, 3),)
    image = ((1, 1, 4, 4),)
    alone = (
        *("relu", "relu6", "elu", "selu", "celu", "leaky_relu", "gelu", "silu", "mish"),
        *("softplus", "softsign", "tanhshrink", "hardtanh", "hardswish", "hardsigmoid"),
        *("hardshrink", "softshrink", "logsigmoid"),
    )
    found = [Entry(n, _summed(getattr(F, n))) for n in alone]
    found += [Entry(n, getattr(F, n), pair) for n in ("l1_loss", "mse_loss", "smooth_l1_loss")]
    found += [
        Entry("threshold", lambda x: F.threshold(x, 0.1, 0.0).sum()),
        Entry("prelu", lambda x, w: F.prelu(x, w).sum(), ((4,), (1,))),
        Entry("rrelu", lambda x: F.rrelu(x, training=False).sum()),
        Entry("glu", lambda x: F.glu(x).sum()),
        Entry("softmax", lambda x: (F.softmax(x, -1) ** 2).sum(), table),
        Entry("normalize", lambda x: (F.normalize(x, dim=-1) ** 3).sum(), table),
        Entry("normalize(p=1)", lambda x: (F.normalize(x, p=1, dim=-1) ** 3).sum(), table),
        Entry("huber_loss", F.huber_loss, pair),
        Entry("poisson_nll_loss", F.poisson_nll_loss, pair),
        Entry("poisson_nll_loss(full)", lambda x, t: F.poisson_nll_loss(x, t, full=True), pair),
        Entry("gaussian_nll_loss", F.gaussian_nll_loss, ((4,), (4,), (4,)), positive=True),
        Entry("kl_div", lambda x, t: F.kl_div(x, t, reduction="sum"), pair, positive=True),
        Entry("binary_cross_entropy", F.binary_cross_entropy, pair, positive=True),
        Entry("binary_cross_entropy_with_logits", F.binary_cross_entropy_with_logits, pair),
        Entry("soft_margin_loss", lambda x: F.soft_margin_loss(x, SIGNS)),
        Entry("hinge_embedding_loss", lambda x: F.hinge_embedding_loss(x, SIGNS)),
        Entry(
            "margin_ranking_loss",
            lambda a, b: F.margin_ranking_loss(a, b, SIGNS, margin=0.5),
            pair,
        ),
        Entry("cross_entropy", lambda x: F.cross_entropy(x, CLASSES), table),
        Entry("multi_margin_loss", lambda x: F.multi_margin_loss(x, CLASSES), table),
        Entry(
            "multilabel_margin_loss",
            lambda x: F.multilabel_margin_loss(x, torch.tensor([[1, -1, 0], [0, 2, -1]])),
            table,
        ),
        Entry("multilabel_soft_margin_loss", F.multilabel_soft_margin_loss, rows),
        Entry(
            "cosine_embedding_loss",
            lambda a, b: F.cosine_embedding_loss(a, b, torch.tensor([1.0, -1.0])),
            rows,
        ),
        Entry("triplet_margin_loss", F.triplet_margin_loss, ((2, 3), (2, 3), (2, 3))),
        Entry("pairwise_distance", lambda a, b: F.pairwise_distance(a, b).sum(), rows),
        Entry(
            "pairwise_distance(eps=0)", lambda a, b: F.pairwise_distance(a, b, eps=0).sum(), rows
        ),
        Entry("cosine_similarity", lambda a, b: F.cosine_similarity(a, b).sum(), rows),
        Entry("pdist", lambda x: F.pdist(x).sum(), ((3, 2),)),
        Entry("cdist", lambda a, b: torch.cdist(a, b).sum(), ((2, 2), (2, 2))),
        Entry("layer_norm", lambda x: (F.layer_norm(x, (3,)) ** 3).sum(), table),
        Entry("rms_norm", lambda x: (F.rms_norm(x, (3,)) ** 3).sum(), table),
        Entry("lp_pool1d", lambda x: F.lp_pool1d(x, 2.0, 2).sum(), ((1, 1, 4),)),
        Entry("lp_pool2d", lambda x: F.lp_pool2d(x, 2.0, 2).sum(), image),
        Entry("max_pool2d", lambda x: F.max_pool2d(x, 2).sum(), image),
        Entry("adaptive_max_pool2d", lambda x: F.adaptive_max_pool2d(x, 3).sum(), image),
        Entry("local_response_norm", lambda x: F.local_response_norm(x, 2).sum(), image),
        Entry("std", lambda x: x.std(-1).sum(), table),
        Entry("logsumexp", lambda x: torch.logsumexp(x, -1).sum(), table),
        Entry("median", lambda x: x.median(-1).values.sum(), table),
        Entry("norm(p=1)", lambda x: torch.linalg.vector_norm(x, 1, -1).sum(), table),
        Entry("norm(p=2)", lambda x: torch.linalg.vector_norm(x, 2, -1).sum(), table),
        Entry("norm(p=3)", lambda x: torch.linalg.vector_norm(x, 3, -1).sum(), table),
        Entry("norm(p=inf)", lambda x: torch.linalg.vector_norm(x, torch.inf, -1).sum(), table),
        Entry("sinc", lambda x: torch.sinc(x).sum()),
        Entry("atan2", lambda y, x: torch.atan2(y, x).sum(), pair),
        Entry("hypot", lambda y, x: torch.hypot(y, x).sum(), pair),
        Entry("xlogy", lambda x, y: torch.xlogy(x, y).sum(), pair, positive=True),
        Entry("logaddexp", lambda x, y: torch.logaddexp(x, y).sum(), pair),
        Entry("clamp(tensor bounds)", lambda x, a, b: torch.clamp(x, a, b).sum(), ((4,),) * 3),
        Entry("pow", lambda x: (x.abs() ** 1.5).sum()),
        Entry("prod", lambda x: x.prod(-1).sum(), table),
        Entry("cumprod", lambda x: x.cumprod(-1).sum(), table),
    ]
    return tuple(found)


def _summed(function: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    return lambda x: function(x).sum()


def confirmed(entry: Entry, find: Any, count: int = 200) -> bool:
    """Whether gradients sampled beside the point show the fault, too."""
    generator = torch.Generator().manual_seed(5)
    own = _gradient(entry, find.inputs)
    samples = []
    for _ in range(count):
        moved = [
            (x + 1e-6 * torch.randn(x.shape, generator=generator, dtype=x.dtype)).detach()
            for x in find.inputs
        ]
        beside = _gradient(entry, [x.requires_grad_() for x in moved])
        if np.isfinite(beside).all():
            samples.append(beside)
    if len(samples) < count // 8:
        return False
    if not np.isfinite(own).all():
        return True
    columns = np.stack(samples, 1)
    size = len(samples)
    room = 1e-3 * np.maximum(1.0, np.abs(own))
    outcome = linprog(
        np.zeros(size),
        A_ub=np.vstack([columns, -columns]),
        b_ub=np.concatenate([own + room, room - own]),
        A_eq=np.ones((1, size)),
        b_eq=[1.0],
    )
    return outcome.status == 2  # no mixture of them


def _gradient(entry: Entry, inputs: Any) -> np.ndarray:
    found = torch.autograd.grad(entry.function(*inputs), list(inputs), materialize_grads=True)
    return np.concatenate([g.reshape(-1).numpy() for g in found])


def _shown(tensors: Any) -> str:
    return " ".join(f"`{in_words(torch.round(x.detach(), decimals=4) + 0.0)}`" for x in tensors)


def _page(seconds: float, names: list[str]) -> str:
    rows, clean, nowhere, unsure = [], [], [], []
    for entry in _entries():
        if names and entry.name not in names:
            continue
        began = time.process_time()
        found = clarke.hunt(entry.function, entry.example(), seconds=seconds)
        spent = time.process_time() - began
        print(f"{entry.name:36} {len(found.finds)} {found.points:5} {spent:.1f} s", file=sys.stderr)
        for find in found.finds:
            if not confirmed(entry, find):
                unsure.append(f"{entry.name} at {_shown(find.inputs)}")
                continue
            report = find.report
            rows.append(
                f"| `{entry.name}` | {_shown(find.inputs)} | {_shown(report.gradient)} | "
                f"{_shown(report.element)} | {MATTERS.get(entry.name, '')} |"
            )
        if not found.finds:
            clean.append(f"`{entry.name}`")
        nowhere += [f"`{entry.name}` at {_shown(f.inputs)}" for f in found.nowhere[:1]]
    table = ["| function | at | autograd returns | right is | does it matter? |"]
    table += ["|---|---|---|---|---|", *rows]
    parts = [
        "# The field",
        (
            f"What `clarke.hunt` finds in torch {torch.__version__.partition('+')[0]} itself (CPU, "
            f"float64), at most {seconds:g} s each. Made by `make field`. Every find is proved by "
            "`clarke.check` and confirmed by gradients sampled at 200 points nearby: the one that "
            "autograd returns is no mixture of them, or is not finite where they are."
        ),
        "\n".join(table) if rows else "Nothing was found.",
        "**Nothing found:** " + ", ".join(clean) + ". That is no proof.",
        "**Nothing to return**, since the function jumps or is infinitely steep there: "
        + ("; ".join(nowhere) or "nowhere")
        + ".",
    ]
    if unsure:
        parts.append("**Proved, but not confirmed by sampling:** " + "; ".join(unsure) + ".")
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("names", nargs="*")
    given = parser.parse_args()
    print(_page(given.seconds, given.names), end="")
