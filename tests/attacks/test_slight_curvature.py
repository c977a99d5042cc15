"""Kinks that curvature parts: where it is slight, or shows in a product of two coordinates only."""

import pytest
import torch

import clarke
from clarke import Verdict


def zeros(size):
    return torch.zeros(size, dtype=torch.float64, requires_grad=True)


def parted(big, product, size):
    """Between both kinks lies a region in which AD's gradient, zero, is the function's."""

    def function(x):
        line = big * x[0] + x[1]
        return torch.relu(line) - torch.relu(-line - product * x[size - 1] * x[size - 2])

    return function


@pytest.mark.parametrize("size", [6, 30])
@pytest.mark.parametrize(("big", "product"), [(1.0, 1e-3), (1e10, 1e-3)])
def test_a_region_between_two_kinks_is_not_overlooked(size, big, product):
    function = parted(big, product, size)
    # The gradient is zero there, so that zero is a limit of gradients at the origin
    beside = torch.zeros(size, dtype=torch.float64)
    beside[-1] = beside[-2] = 2.0**-10
    beside[1] = -product * 2.0**-21
    beside.requires_grad_()
    (gradient,) = torch.autograd.grad(function(beside), beside)
    assert not gradient.any()
    found = clarke.check(function, (zeros(size),), seconds=60)
    assert found.verdict is not Verdict.NOT_CLARKE
    # So too of somebody else's gradient
    given = clarke.check(function, (zeros(size),), gradient=torch.zeros(size).double(), seconds=60)
    assert given.verdict is not Verdict.NOT_CLARKE


@pytest.mark.parametrize("size", [14])
@pytest.mark.parametrize("big", [1e10])
def test_without_the_region_it_is_wrong(size, big):
    found = clarke.check(parted(big, 0.0, size), (zeros(size),), seconds=60)
    assert found.verdict is Verdict.NOT_CLARKE
    assert found.certificate.verify(seconds=60)


@pytest.mark.parametrize(("big", "product"), [(1e6, 1e-7)])
def test_many_kinks_parted_by_a_product(big, product):
    """No estimate for many kinks may take them for one either."""
    factors = torch.arange(1.0, 41.0, dtype=torch.float64)

    def function(x, product=product):
        lines = big * x[0] + x[1] * factors
        return (torch.relu(lines) - torch.relu(-lines - product * x[-1] * x[-2])).sum()

    found = clarke.check(function, (zeros(20),), seconds=20)
    assert found.verdict is not Verdict.NOT_CLARKE
    same = clarke.check(lambda x: function(x, 0.0), (zeros(20),), seconds=60)
    assert same.verdict is Verdict.NOT_CLARKE
