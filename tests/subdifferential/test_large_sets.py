"""Sets with tens of thousands of elements: lists, streams, counts, verification."""

import itertools
import math

import numpy as np
import pytest
import torch

import clarke
from clarke.decide.limits import Limits
from reference.leaves import zeros


def reflection(n):
    units = np.eye(n)
    rows = [*units, *(units[i] - units[j] for i, j in itertools.combinations(range(n), 2))]
    return torch.tensor(np.array(rows))


def bent_both_ways(matrix):
    """Sums of absolute values with either sign: nothing but a list tells its set."""
    signs = torch.tensor([1.0, -1.0, 0.5], dtype=torch.float64).repeat(len(matrix))[: len(matrix)]
    return lambda x: (signs * (matrix @ x).abs()).sum()


def test_a_reflection_arrangement_streamed_and_listed():
    matrix = reflection(6)
    found = clarke.subdifferential(lambda x: (matrix @ x).abs().sum(), (zeros(6),))
    assert found.count() == math.factorial(7)
    blocks = list(found.stream(1000))
    assert [len(b) for b in blocks] == [1000] * 5 + [40]
    listed = found.bouligand()
    assert {tuple(g) for g in torch.cat(blocks).tolist()} == {tuple(g) for g in listed.tolist()}
    assert len(found.vertices()) == math.factorial(7)
    assert str(found.rank) == "rank 6, exactly"
    # Every permutohedron's vertex is a permutation of one of them, in the right coordinates.
    signs = torch.sign(matrix @ torch.randn(6, dtype=torch.float64))
    assert (matrix.T @ signs).tolist() in listed.tolist()


def test_counting_lists_nothing():
    matrix = reflection(9)
    found = clarke.subdifferential(lambda x: (matrix @ x).abs().sum(), (zeros(9),))
    assert found.count() == math.factorial(10)
    assert "not listed" in repr(found)
    with pytest.raises(clarke.BudgetError, match="3628800 combinations of pieces, too many"):
        found.bouligand()


def test_both_ways_of_bending():
    """Twelve kinks of either sign: cell by cell, and all at once, the set is the same."""
    matrix = torch.tensor(np.random.default_rng(0).integers(-2, 3, (13, 4)).astype(float))
    function = bent_both_ways(matrix)
    found = clarke.subdifferential(function, (zeros(4),))
    one_by_one = clarke.subdifferential(
        function, (zeros(4),), limits=Limits(10**6, 10**6, 300), exact=True
    )
    assert found.complete
    mine = {tuple(np.round(g, 9)) for g in found.bouligand().numpy()}
    # By sampling: gradients at random points beside zero.
    sampled = set()
    generator = torch.Generator().manual_seed(0)
    for _ in range(3000):
        x = torch.randn(4, dtype=torch.float64, generator=generator).requires_grad_()
        (gradient,) = torch.autograd.grad(function(x), x)
        sampled.add(tuple(np.round(gradient.numpy(), 9)))
    assert sampled <= mine
    assert mine == {tuple(np.round(g, 9)) for g in one_by_one.bouligand().numpy()}
    inside = found.contains(found.gradient)
    assert inside.inside is not None
    assert inside.verify()
    far = found.contains(10 * torch.ones(4, dtype=torch.float64) + 50)
    assert far.inside is False
    assert far.verify()


def test_kinks_that_cancel_do_not_count_twice():
    matrix = reflection(4)

    def function(x):
        h = matrix @ x
        return (torch.relu(h) - torch.relu(-h)).sum() + x.abs().sum()

    found = clarke.subdifferential(function, (zeros(4),))
    assert len(found.bouligand()) == 2**4
    assert len(found.vertices()) == 2**4


def test_time_ends_with_what_was_reached():
    matrix = reflection(8)
    found = clarke.subdifferential(lambda x: (matrix @ x).abs().sum(), (zeros(8),))
    with pytest.raises(clarke.OutOfTimeError, match=r"chambers of the first \d+ of 36 hyperplanes"):
        found.bouligand(seconds=3)
    # What ended in one call is no matter of the next.
    assert found.min_norm()[0].abs().max() < 1e-9


def test_no_direction_of_descent_is_missed_among_many_cells():
    """A saddle: zero is in the set, and the function falls in some cells only."""
    matrix = reflection(5)
    signs = torch.ones(len(matrix), dtype=torch.float64)
    signs[5:9] = -2.5
    found = clarke.subdifferential(lambda x: (signs * (matrix @ x).abs()).sum(), (zeros(5),))
    answer = found.is_stationary()
    assert answer.stationary
    slopes = found.bouligand() @ torch.randn(5, 2000, dtype=torch.float64)
    assert answer.descent is not None
    assert answer.slope < 0
    assert slopes.shape[0] > 100


@pytest.mark.parametrize("scale", [1e-300, 1e-30, 1e30, 1e300])
def test_elements_of_any_size_are_told_apart(scale):
    matrix = torch.tensor([[1.0, 0], [0, 1], [1, 1], [1, -1]], dtype=torch.float64)
    signs = torch.tensor([1.0, -1, 1, 1], dtype=torch.float64) * scale

    def function(x):
        return (signs * (matrix @ x[:2]).abs()).sum() + 0 * x[2]

    found = clarke.subdifferential(function, (zeros(3),))
    assert len(found.bouligand()) == 8
    assert float(found.bouligand()[:, 2].abs().max()) == 0
