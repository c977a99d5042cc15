"""Sets of programs that pick the middle of three and more that tie, and of what is curved or flat.

Elements are held against gradients at points nearby, and against what each function is by hand.
"""

import itertools

import numpy as np
import pytest
import torch

import clarke
from clarke import Verdict


def zeros(size):
    return torch.zeros(size, dtype=torch.float64, requires_grad=True)


def nearby(function, size, count=120):
    """Gradients at random points beside zero, each once."""
    generator = torch.Generator().manual_seed(0)
    found = set()
    for _ in range(count):
        x = 1e-6 * torch.randn(size, dtype=torch.float64, generator=generator)
        x.requires_grad_()
        (own,) = torch.autograd.grad(function(x), x)
        found.add(tuple(own.round(decimals=9).tolist()))
    return found


WEIGHTS = torch.tensor([1.0, 2.0, 4.0, 8.0], dtype=torch.float64)
FUNCTIONS = {
    "median of 3": (3, lambda x: x.median()),
    "median of 4": (4, lambda x: x.median()),
    "median along a dimension": (3, lambda x: (2 * x).median(0).values),
    "nanmedian": (3, lambda x: x.nanmedian()),
    "kthvalue": (5, lambda x: x.kthvalue(2).values),
    "sort": (3, lambda x: x.sort().values @ WEIGHTS[:3]),
    "sort downwards": (3, lambda x: x.sort(descending=True)[0] @ WEIGHTS[:3]),
    "topk": (4, lambda x: x.topk(2).values @ WEIGHTS[:2]),
    "quantile": (4, lambda x: x.quantile(0.4)),
    "trimmed mean": (5, lambda x: x.sort().values[1:4].mean()),
    "sum of sorted": (4, lambda x: x.sort().values.sum()),
    "dependent entries": (2, lambda x: torch.stack([x[0], x[1], x[0] + x[1]]).median()),
    "equal entries": (2, lambda x: torch.stack([x[0], x[0], x[1], x[1], -x[0]]).median()),
    "nested below": (3, lambda x: (x.abs() - x).median()),
    "nested above": (3, lambda x: (x.median() - x[0]).abs()),
    "absolute value of a sum": (3, lambda x: (x.sort().values @ WEIGHTS[:3]).abs()),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_middle_places_among_ties(name):
    size, function = FUNCTIONS[name]
    found = clarke.subdifferential(function, (zeros(size),))
    assert found.complete
    listed = {tuple(np.round(e, 9) + 0.0) for e in found.bouligand().numpy()}
    assert listed == {tuple(np.array(e) + 0.0) for e in nearby(function, size)}
    outside = found.vertices().mean(0) + 10 * (found.vertices()[0] - found.vertices().mean(0))
    centre = found.contains(found.vertices().mean(0))
    assert centre.inside
    assert centre.verify()
    if len(listed) > 1:
        away = found.contains(outside)
        assert away.inside is False
        assert away.verify()


def test_orders_of_seven_give_seven_elements():
    found = clarke.subdifferential(lambda x: x.median(), (zeros(7),))
    assert sorted(found.vertices().tolist()) == sorted(torch.eye(7).tolist())
    assert found.count() == 7 * 20  # for each, three of the six others are greater
    assert found.is_stationary().stationary is False
    assert found.is_local_minimum().minimum is False


@pytest.mark.parametrize("name", ["median of 4", "kthvalue", "trimmed mean", "nested above"])
def test_verdicts_at_middle_places(name):
    size, function = FUNCTIONS[name]
    for own in clarke.subdifferential(function, (zeros(size),)).vertices()[:2]:
        report = clarke.check(function, (zeros(size),), gradient=[own])
        assert report.correct
        assert report.certificate.verify()
    far = clarke.check(function, (zeros(size),), gradient=[own + 3])
    assert far.verdict is Verdict.NOT_CLARKE
    assert far.certificate.verify()


def test_a_witness_in_another_order_than_that_of_the_entries():
    """Rows of a middle place were those of the entries' own order, whatever the direction."""
    function = FUNCTIONS["median of 3"][1]
    for i in range(3):
        own = torch.eye(3, dtype=torch.float64)[i]
        report = clarke.check(lambda x: function(2 * x) / 2, (zeros(3),), gradient=[own])
        assert report.correct
        assert report.certificate.verify()


@pytest.mark.parametrize("unit", [1.0, 1e8])
@pytest.mark.parametrize(
    "function",
    [
        lambda x: torch.stack([torch.sin(x[0]), x[1] + x[0] ** 2, -x[0] - x[1]]).amax(),
        lambda x: torch.relu(torch.sin(x[0] + x[1] ** 2)) - 3 * torch.relu(-(x[0] + x[1] ** 2)),
        lambda x: torch.stack([x.tanh().sum(), (x**2).sum() + x[0], -x[1].sinh()]).median(),
    ],
)
def test_curved_conditions_that_vanish_together_exclude(function, unit):
    """These were known from below only."""
    found = clarke.subdifferential(lambda x: function(x / unit), (zeros(2),))
    assert not found._source.live.affine
    assert found.complete
    listed = {tuple((unit * e).round(decimals=4).tolist()) for e in found.bouligand()}
    beside = {tuple(np.round(e, 4) + 0.0) for e in nearby(function, 2)}
    assert {tuple(np.array(e) + 0.0) for e in listed} == beside


@pytest.mark.parametrize(
    "function",
    [
        lambda v: torch.relu(v[1] ** 2 - torch.relu(v[0])),
        lambda v: torch.relu(v[0] + 1e-9 * v[1] ** 2) + 2 * torch.relu(-v[0] + 1e-9 * v[1] ** 2),
        lambda v: torch.relu(v[0] + v[1] ** 4) + 2 * torch.relu(-v[0] + v[1] ** 4),
        lambda v: torch.relu(1e8 * v[0] + v[1] ** 2) + 2 * torch.relu(-1e8 * v[0] + v[1] ** 2),
        lambda v: torch.relu(v[0] + v[1].cosh() - 1) + 2 * torch.relu(-v[0] + v[1].cosh() - 1),
    ],
)
def test_what_lives_between_curves_is_not_excluded(function):
    assert not clarke.subdifferential(function, (zeros(2),)).complete


def test_cells_that_are_flat_but_for_rounding():
    """In units of 1e-8 a row that depends on others does so but for rounding; it left a cell."""
    rows = torch.tensor([[2.0, 1.0, 1.0], [0.0, 2.0, 1.0], [-2.0, 1.0, 0.0]], dtype=torch.float64)

    def function(x, unit):
        h = (rows @ (x / unit)).cummin(0).values.abs()
        return h.relu().amax() - h.amin() + (x / unit).abs().sum()

    counts = set()
    for unit in (1.0, 1e-8):
        found = clarke.subdifferential(lambda x, unit=unit: function(x, unit), (zeros(3),))
        assert found.complete
        counts.add(len(found.bouligand()))
    assert len(counts) == 1


def test_a_hull_thinner_than_floating_point_sees():
    """The mean of two elements was neither inside nor outside."""
    rows = torch.tensor(
        [[-1.7, -8388626.0], [-1.9, 6.8710957e10], [4.0, -8388642.0], [3.7, -8388639.0]],
        dtype=torch.float64,
    )
    found = clarke.subdifferential(lambda x: (rows @ x).amax() - (rows @ x).amin(), (zeros(2),))
    elements = found.vertices()
    for i, j in itertools.combinations(range(len(elements)), 2):
        told = found.contains((elements[i] + elements[j]) / 2)
        assert told.inside
    assert told.verify()
