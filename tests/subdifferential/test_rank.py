"""Gradients of switching functions that depend on each other but for rounding."""

import itertools
import math

import numpy as np
import pytest
import torch

import clarke
from clarke.decide.dependent import made_dependent
from reference.leaves import zeros


def gaussian(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def mixed_signs(matrix):
    """Neither convex nor concave: the set is listed."""
    signs = torch.ones(len(matrix), dtype=torch.float64)
    signs[::3] = -0.5
    return lambda x: (signs * (matrix @ x).abs()).sum()


def generic(m, r):
    """Chambers of m hyperplanes in general position in r dimensions (Schlaefli)."""
    return 2 * sum(math.comb(m - 1, i) for i in range(r))


@pytest.mark.parametrize(("m", "rank", "n"), [(12, 4, 6), (9, 3, 9), (7, 2, 5), (16, 3, 80)])
def test_products_of_gaussian_matrices_are_answered(m, rank, n):
    matrix = gaussian(m, rank) @ gaussian(rank, n, seed=1)
    found = clarke.subdifferential(mixed_signs(matrix), (zeros(n),))
    assert found.complete
    assert found.rank.rank == rank
    assert 0 < found.rank.off < 1e-13
    assert str(found.rank).startswith(f"rank {rank} within ")
    assert found.count() == generic(m, rank)
    assert len(found.bouligand()) == generic(m, rank)
    inside = found.contains(found.bouligand().mean(0))
    assert inside.inside
    assert inside.verify()
    outside = found.contains(100 * matrix[0] + 1)
    assert outside.inside is False
    assert outside.verify()


def test_the_floats_themselves_are_not_so():
    matrix = gaussian(7, 2) @ gaussian(2, 4, seed=1)
    found = clarke.subdifferential(mixed_signs(matrix), (zeros(4),), exact=True)
    declared = clarke.subdifferential(mixed_signs(matrix), (zeros(4),))
    assert declared.complete
    assert not found.complete
    proved = found.found()
    for element in declared.bouligand():
        assert bool(((proved - element).abs().max(1).values < 1e-12).any())


def test_dependence_within_the_rank():
    """A rotated reflection arrangement: full rank, but for rounding many rows depend on others."""
    units = np.eye(4)
    rows = [*units, *(units[i] - units[j] for i, j in itertools.combinations(range(4), 2))]
    turned, _ = np.linalg.qr(np.random.default_rng(0).standard_normal((4, 4)))
    sizes = np.random.default_rng(1).uniform(0.1, 10, (10, 1))
    matrix = torch.tensor(sizes * (np.array(rows) @ turned))
    found = clarke.subdifferential(mixed_signs(matrix), (zeros(4),))
    assert found.complete
    assert found.rank.rank == 4
    assert len(found.bouligand()) == math.factorial(5)


def test_integers_and_general_floats_are_taken_as_they_are():
    rows = torch.tensor([[3.0, 1], [1, 3], [4, 4], [1, -1]], dtype=torch.float64)
    found = clarke.subdifferential(mixed_signs(rows), (zeros(2),))
    assert str(found.rank) == "rank 2, exactly"
    assert found.count() == 8
    general = clarke.subdifferential(mixed_signs(gaussian(8, 3)), (zeros(3),))
    assert str(general.rank) == "rank 3, exactly"
    assert general.count() == generic(8, 3)


def test_rows_that_depend_in_no_simple_way_are_left_alone():
    noise = 1e-6 * np.random.default_rng(0).standard_normal((6, 4))
    rows = np.random.default_rng(1).integers(-3, 4, (6, 2)) @ np.ones((2, 4)) + noise
    found = made_dependent(rows, lambda: np.zeros_like(rows))
    assert found is None or found.rank.rank == 4
