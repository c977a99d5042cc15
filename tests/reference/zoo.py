"""A program, a point and its verdict for each kind of proof."""

import torch
from torch import nn

from clarke.verdict import Verdict


def leaf(*values, dtype=torch.float64):
    return torch.tensor(values, dtype=dtype, requires_grad=True)


def lemma2(x):
    return (torch.relu(x) - torch.relu(-x)).sum()


def exchanged(w):
    pooled = nn.functional.max_pool1d(torch.stack([w[0], 2 * w[0]])[None], 2)
    return (pooled + 3 * nn.functional.max_pool1d(torch.stack([2 * w[0], w[0]])[None], 2)).sum()


def masked(x):
    return ((x > 0) * x + torch.where(x > 0, 2 * x, x)).sum()


def many(x):
    """More kinks than rows are searched for, all settled by the bias x."""
    return torch.relu(torch.linspace(-1, 1, 81, dtype=x.dtype)[:, None] * 0 + x).sum()


def guarded(function):
    """A function divided by x, with its limit at zero put in by hand."""

    def divided(x):
        safe = torch.where(x == 0, torch.ones_like(x), x)
        return torch.where(x == 0, torch.ones_like(x), function(safe) / safe).sum()

    return divided


ZOO = {
    "smooth": (lambda x: (x * x + 3 * x).sum(), leaf(1.0, -2.0), Verdict.SMOOTH),
    "smooth beside kinks": (lambda x: torch.relu(x).sum(), leaf(1.0, -2.0), Verdict.SMOOTH),
    "null kinks": (lambda x: torch.stack([x, x]).amax(0).sum(), leaf(1.0), Verdict.SMOOTH),
    "one witness": (lambda x: (2 * torch.relu(x)).sum(), leaf(0.0, 0.0), Verdict.BOULIGAND),
    "nested": (lambda x: torch.relu(x + torch.relu(2 * x)).sum(), leaf(0.0), Verdict.BOULIGAND),
    "curved": (lambda x: torch.relu(x[0] + x[1] ** 2), leaf(0.0, 0.0), Verdict.BOULIGAND),
    "float32": (
        lambda x: (3 * torch.relu(x)).sum() + x.square().sum(),
        leaf(0.0, 2.0, dtype=torch.float32),
        Verdict.BOULIGAND,
    ),
    "masks": (masked, leaf(0.0, 1.0), Verdict.BOULIGAND),
    "bias shift": (many, leaf(0.0), Verdict.BOULIGAND),
    "sorted": (
        lambda x: (x.sort().values * torch.arange(3.0, dtype=x.dtype)).sum(),
        leaf(1.0, 1.0, 2.0),
        Verdict.BOULIGAND,
    ),
    "mixture": (
        lambda x: (x.abs() * torch.tensor([1.0, 3.0], dtype=x.dtype)).sum(),
        leaf(0.0, 0.0),
        Verdict.CLARKE,
    ),
    "ties": (lambda x: x.amax(), leaf(1.0, 1.0, 1.0), Verdict.CLARKE),
    "neighbours": (exchanged, leaf(0.0), Verdict.CLARKE),
    "rays": (lambda x: (2 * x).norm() + x[0], leaf(0.0, 0.0), Verdict.CLARKE),
    "eigenvalues": (
        lambda x: torch.linalg.eigvalsh(torch.diag(x) + torch.diag(x).T)[-1],
        leaf(1.0, 1.0),
        Verdict.BOULIGAND,
    ),
    "regular": (lambda x: x.amax(), leaf(*[1.0] * 24), Verdict.CLARKE),
    "norms": (
        lambda p: (
            (p.abs() - 1).clamp(min=0).norm() + torch.minimum((p.abs() - 1).max(), 0 * p.sum())
        ),
        leaf(1.0, 0.25),
        Verdict.NOT_CLARKE,
    ),
    "guard": (guarded(torch.sin), leaf(0.0), Verdict.SMOOTH),
    "wrong guard": (guarded(torch.expm1), leaf(0.0), Verdict.NOT_CLARKE),
    "outside": (lemma2, leaf(*[0.0] * 24), Verdict.NOT_CLARKE),
    "wrong": (lemma2, leaf(0.0), Verdict.NOT_CLARKE),
    "wrong with exclusions": (
        lambda x: 2 * lemma2(x) + lemma2(2 * x[:1]) + x.abs().sum(),
        leaf(0.0, 0.0),
        Verdict.NOT_CLARKE,
    ),
    "wrong maxima": (
        lambda x: (
            torch.stack([x[0] + x[1], x[1]]).max(0).values
            - torch.stack([-x[0] + x[1], x[1]]).max(0).values
        ),
        leaf(0.0, 0.0),
        Verdict.NOT_CLARKE,
    ),
}
