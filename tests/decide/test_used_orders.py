"""Tied orders whose index goes into other operations: the order that ran has its own side."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest
import torch

import clarke
from clarke import Verdict

if TYPE_CHECKING:
    from collections.abc import Callable

    Function = Callable[[torch.Tensor], torch.Tensor]

LABELS = torch.tensor([1.0, 0.0, 1.0, 0.0, 0.0], dtype=torch.float64)


def at(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64, requires_grad=True)


def lovasz_hinge(x: torch.Tensor) -> torch.Tensor:
    errors, order = torch.sort(1 - x * (2 * LABELS - 1), descending=True)
    labels = LABELS[order]
    inside = labels.sum() - labels.cumsum(0)
    losses = 1 - inside / (labels.sum() + (1 - labels).cumsum(0))
    return torch.dot(torch.relu(errors), torch.cat([losses[:1], losses[1:] - losses[:-1]]))


def middle(x: torch.Tensor) -> torch.Tensor:
    return x[x.sort().indices[len(x) // 2]]


def of_the_best_two(x: torch.Tensor) -> torch.Tensor:
    best = x.topk(2)
    return x[best.indices].sum() + best.values[0]


def weighted(x: torch.Tensor) -> torch.Tensor:
    return (x[x.sort().indices] * torch.arange(1.0, len(x) + 1)).sum()


def looked_up_labels(x: torch.Tensor) -> torch.Tensor:
    """Jumps where the order of two changes that have different labels."""
    return (LABELS[x.sort().indices] * torch.arange(5.0)).sum() * (1 + x.sum())


@pytest.mark.parametrize("function", [lovasz_hinge, middle, of_the_best_two, weighted])
def test_the_order_that_ran(function: Function) -> None:
    for value in (0.0, 1.0):
        report = clarke.check(function, (at(*[value] * 5),), seconds=30)
        assert report.verdict is Verdict.BOULIGAND
        assert report.certificate is not None
        assert report.certificate.verify()


def test_a_jump_between_orders_is_told() -> None:
    report = clarke.check(looked_up_labels, (at(0, 0, 0, 0, 0),), seconds=30)
    assert report.verdict is Verdict.NOT_LIPSCHITZ


def test_a_gradient_of_no_order_is_not_proved() -> None:
    report = clarke.check(
        middle, (at(0, 0, 0, 0, 0),), gradient=torch.full((5,), 0.2).double(), seconds=30
    )
    assert report.correct is not False


def _program(rng: random.Random) -> Function:
    signs = torch.tensor([rng.choice([-1.0, 1.0, 2.0]) for _ in range(5)], dtype=torch.float64)
    weights = torch.tensor([rng.choice([0.0, 1.0, -2.0]) for _ in range(5)], dtype=torch.float64)
    kind = rng.choice(["sort", "topk", "max", "pair"])

    def program(x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(x * signs) if kind == "pair" else x * signs
        match kind:
            case "sort" | "pair":
                order = y.sort(descending=True).indices
                return (x[order] * weights).sum()
            case "topk":
                return (y[y.topk(3).indices] * weights[:3]).sum()
        best = y.max(0)
        return x[best.indices] + best.values

    return program


def _sampled(function: Function, point: torch.Tensor) -> torch.Tensor:
    """(s, n) gradients beside a point."""
    draw = torch.Generator().manual_seed(0)
    found = []
    for _ in range(400):
        aside = torch.randn(point.shape, dtype=torch.float64, generator=draw)
        near = (point.detach() + 1e-6 * aside).requires_grad_()
        found.append(torch.autograd.grad(function(near), near)[0])
    return torch.stack(found)


@pytest.mark.parametrize("seed", range(10))
def test_what_is_right_is_seen_beside(seed: int) -> None:
    function = _program(random.Random(seed))  # noqa: S311 - no secrets
    point = at(0, 0, 0, 0, 0)
    report = clarke.check(function, (point,), seconds=30)
    if report.verdict is Verdict.BOULIGAND:
        gaps = (_sampled(function, point) - report.gradient[0]).abs().amax(1)
        assert float(gaps.min()) < 1e-4
