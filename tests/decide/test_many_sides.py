"""Sums of many kinks at which autograd mixes the pieces, against sampled gradients nearby."""

import numpy as np
import pytest
import torch
from scipy.optimize import linprog

import clarke
from clarke.verdict import Verdict

D = torch.float64


def nearby(function, size, count, generator):
    """Gradients at random points around zero, exact where the function is piecewise linear."""
    found = []
    for _ in range(count):
        x = torch.randn(size, dtype=D, generator=generator).requires_grad_()
        found.append(torch.autograd.grad(function(x), x)[0])
    return torch.stack(found).numpy()


def among(points, target):
    """Whether the target is a convex combination of the points, by a linear program."""
    equal = np.vstack([points.T, np.ones(len(points))])
    return linprog(np.zeros(len(points)), A_eq=equal, b_eq=[*target, 1.0]).status == 0


def blocks(x):
    return x.view(4, 5).amax(1).max() - x.abs().sum()


def fused(x):
    return (x[:-1] - x[1:]).abs().sum() - 0.5 * x.abs().sum()


def ranges(x):
    return x.view(5, 4).amax(1).sum() - x.view(4, 5).amin(0).sum() - x.abs().max()


MATRIX = torch.linspace(-1, 1, 240, dtype=D).sin().mul(7).round().view(20, 12)


def rows(x):
    return (MATRIX @ x[:12]).abs().sum() - 3 * torch.maximum(x[:12], -0.5 * x[:12]).sum()


@pytest.mark.parametrize("beside", [False, True], ids=["alone", "beside a relu"])
@pytest.mark.parametrize(
    "function", [blocks, fused, pytest.param(ranges, marks=pytest.mark.slow), rows]
)
def test_a_mean_of_many_sides_is_found(function, beside):
    size = 21

    def whole(x):
        value = function(x[:20])
        return value + torch.relu(x[20] + x[0]) if beside else value

    x = torch.zeros(size, dtype=D, requires_grad=True)
    report = clarke.check(whole, (x,), seconds=10)
    samples = nearby(whole, size, 1200, torch.Generator().manual_seed(0))
    assert among(samples, report.gradient[0].numpy())
    assert report.verdict is Verdict.CLARKE
    assert report.certificate.verify()


def test_what_lies_outside_of_them_is_not():
    def function(x):
        return blocks(x) + 2 * torch.relu(x[0]) - 2 * torch.relu(-x[0])

    x = torch.zeros(20, dtype=D, requires_grad=True)
    report = clarke.check(function, (x,), seconds=10)
    samples = nearby(function, 20, 1200, torch.Generator().manual_seed(0))
    assert not among(samples, report.gradient[0].numpy())
    assert not report.verdict.correct
