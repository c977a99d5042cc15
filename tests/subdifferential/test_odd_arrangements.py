"""Sets of odd arrangements: parallel and repeated planes, zero rows, many rows, extreme numbers."""

import numpy as np
import pytest
import torch

import clarke
from clarke.decide import normal
from reference.leaves import zeros


def integers(*shape, seed=0):
    found = np.random.default_rng(seed).integers(-3, 4, shape).astype(float)
    return torch.tensor(found)


def signs(count):
    return torch.tensor([1.0, -1.0] * count, dtype=torch.float64)[:count]


def beside(function, size, count=2000):
    """The gradients at random points beside zero, all that differ."""
    generator = torch.Generator().manual_seed(0)
    found = []
    for _ in range(count):
        x = 1e-6 * torch.randn(size, dtype=torch.float64, generator=generator)
        x.requires_grad_()
        found.append(torch.autograd.grad(function(x), x)[0].round(decimals=6))
    return {tuple((g + 0.0).tolist()) for g in found}


A = integers(5, 3)
ODD = {
    "parallel planes": (
        lambda x: (x[0] - 1).abs() + x[0].abs() - (2 * x[0] + 2).abs() + (3 * x[0]).abs() + x[1],
        2,
    ),
    "planes repeated at other scales": (
        lambda x: (
            torch.cat([A, 2 * A, -3e4 * A])[:9] @ x @ torch.ones(9).double()
            + (torch.cat([A, 2 * A, -3 * A]) @ x).abs() @ signs(15)
        ),
        3,
    ),
    "rows of zeros": (lambda x: (torch.cat([A, 0 * A]) @ x).abs() @ signs(10), 3),
    "the two largest": (lambda x: (A @ x).abs().topk(2).values.sum(), 3),
    "the third largest": (lambda x: (A @ x).abs().sort().values[2], 3),
    "the fourth smallest": (lambda x: (A @ x).abs().kthvalue(4).values, 3),
}


@pytest.mark.parametrize("name", ODD)
def test_all_elements_are_those_beside_the_point(name):
    function, size = ODD[name]
    found = clarke.subdifferential(function, (zeros(size),))
    own = {tuple((g + 0.0).tolist()) for g in found.bouligand().round(decimals=6)}
    assert found.complete
    assert beside(function, size) == own
    assert found.certificate("vertices").verify()


def test_many_rows_are_differentiated_by_columns(monkeypatch):
    rows = integers(400, 3)
    told = []
    for tall in (16, 10**9):
        monkeypatch.setattr(normal, "_TALL", tall)
        found = clarke.subdifferential(lambda x: (rows @ x).abs().sum(), (zeros(3),))
        told.append(found._source.regular.outer.forms.matrix)
    assert np.array_equal(*told)


@pytest.mark.slow
def test_three_hundred_thousand_rows():
    rows = torch.tensor(np.random.default_rng(0).integers(-50, 51, (300_000, 3)).astype(float))
    found = clarke.subdifferential(lambda x: (rows @ x).abs().sum(), (zeros(3),), seconds=None)
    direction = torch.tensor([1.0, 0.3, -0.2], dtype=torch.float64)
    corner = rows.T @ torch.sign(rows @ direction)
    assert found.contains(corner).inside
    assert found.contains(corner + 1e-3 * direction).inside is False
    assert found.is_stationary().stationary
    assert found.directional(direction) == pytest.approx(float(corner @ direction))


@pytest.mark.parametrize("value", [5e-324, 1e-300, 1e-200, 1e200, 1e300])
def test_vectors_of_extreme_numbers(value):
    found = clarke.subdifferential(lambda x: 0 * x.sum(), (zeros(1),))
    told = found.contains(torch.tensor([value], dtype=torch.float64))
    assert told.inside is False
    assert told.certificate.defects() == ()


def test_a_time_limit_ends_in_a_sentence():
    rows = torch.randn(70, 60, generator=torch.Generator().manual_seed(0)).double()
    with pytest.raises(clarke.OutOfTimeError, match=r"Time ran out \(1e-09 s\) while"):
        clarke.subdifferential(lambda x: (rows @ x).abs() @ signs(70), (zeros(60),), seconds=1e-9)
