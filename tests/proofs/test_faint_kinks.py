"""Kinks at which nothing changes but what cancelled before them left roundings."""

import pytest
import torch
from torch.nn.functional import relu

import clarke
from clarke import Verdict

F64 = torch.float64


def cancelled(x):
    """The last relu is of zero wherever a > 0 and 3 b > -2.5 a, by way of larger numbers."""
    a, b = x
    slope = relu(0.5 * a) - relu(-0.5 * a)
    u = 0.5 * a + 3 * slope + 3 * b
    least = u - relu(u + 0.5 * a)
    return a + relu(-least + slope - a) + a


@pytest.mark.parametrize("scale", [1.0, 0.3, 1e8, 1e-8])
def test_a_witness_among_roundings_verifies(scale):
    x = torch.zeros(2, dtype=F64, requires_grad=True)
    report = clarke.check(lambda y: scale * cancelled(y), (x,))
    assert report.verdict is Verdict.BOULIGAND
    assert report.certificate.defects() == ()


@pytest.mark.parametrize("size", [1e-6, 1e-8, 1e-10, 1e-12])
def test_small_slopes_are_no_roundings(size):
    """``size * (relu(w) - relu(-w))`` beside slopes of size 1: its gradient is size, not zero."""

    def function(x):
        return relu(x[0]) + x[0] + relu(size * x[1]) - relu(-size * x[1])

    x = torch.tensor([0.0, 0.0], dtype=F64, requires_grad=True)
    report = clarke.check(function, (x,))
    assert report.verdict is Verdict.NOT_CLARKE
    assert report.element[0][1].item() == pytest.approx(size)
