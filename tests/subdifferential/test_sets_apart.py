"""Kinks and pieces of very different sizes beside each other: none is lost for being small."""

import itertools

import numpy as np
import pytest
import torch

import clarke
from clarke import Verdict
from reference.leaves import zeros

SIZES = (1e-9, 1e-11, 1e-14, 1e-20)


def listed(function, size):
    found = clarke.subdifferential(function, (zeros(size),))
    assert found.complete
    return found


@pytest.mark.parametrize("small", SIZES)
@pytest.mark.parametrize(
    ("function", "values"),
    [
        (lambda x, w: torch.where(w * x > 0, x, -x).sum(), (1, -1)),
        (lambda x, w: (x * (w * x > 0)).sum(), (0, 1)),
        (lambda x, w: (torch.relu(w * x) / w).sum(), (0, 1)),
    ],
)
def test_comparisons_of_small_numbers_beside_large_ones(function, values, small):
    """Only two of four elements were listed, and the set was called complete."""
    scales = torch.tensor([1.0, small], dtype=torch.float64)
    found = listed(lambda x: function(x, scales), 2)
    wanted = list(itertools.product(values, repeat=2))
    assert sorted(found.bouligand().round(decimals=9).tolist()) == sorted(map(list, wanted))
    for element in wanted:
        given = [torch.tensor(element, dtype=torch.float64)]
        report = clarke.check(lambda x: function(x, scales), (zeros(2),), gradient=given)
        assert report.verdict is Verdict.BOULIGAND
    outside = found.contains(torch.tensor([values[0], 3.0], dtype=torch.float64))
    assert outside.inside is False
    assert outside.verify()


@pytest.mark.parametrize("small", SIZES[:3])
def test_small_slopes_among_large_ones_are_told_apart(small):
    """Slopes of 1 and -1 beside one of 1e12 were one candidate: the first of them."""
    found = listed(lambda x: torch.stack([-x[0], -small * x[0], small * x[0]]).amax(), 1)
    assert found.bouligand()[:, 0].tolist() == pytest.approx([small, -1], abs=1e-15)
    found = listed(lambda x: torch.stack([-x[0], -small * x[1], small * x[1]]).amax(), 2)
    assert len(found.vertices()) == 3


@pytest.mark.parametrize("offset", [1e4, 1e8])
def test_what_cancels_is_no_curvature(offset):
    """Values that are all rounding bent, so that nothing could be excluded."""

    def function(x):
        far = offset * x.sum()
        near = torch.stack([far + x[0], far + x[1], far - x[0]]) - far
        return torch.relu(near).sum() - near.amax()

    found = listed(function, 2)
    assert len(found.bouligand()) == 4
    inside = found.contains(found.gradient[0])
    assert inside.inside is not None
    assert inside.verify()


def test_curvature_beside_large_values_is_curvature():
    found = clarke.subdifferential(
        lambda x: (1e6 * x[0]).abs() + torch.relu(1e-6 * x[1] - x[2] ** 2) - torch.relu(-x[1]),
        (zeros(3),),
    )
    assert not found._source.live.affine


def test_a_flat_slanted_hull():
    """Members of a hull that is a millionth as thick as long were undecided."""
    generator = np.random.default_rng(0)
    turned = np.linalg.qr(generator.standard_normal((3, 3)))[0]
    rows = torch.tensor(turned * np.array([[1.0], [1e-3], [1e-6]]))
    found = listed(lambda x: (rows @ x).abs().sum() - 0.5 * (rows @ x).sum().abs(), 3)
    elements = found.bouligand()
    for i, j in itertools.combinations(range(len(elements)), 2):
        inside = found.contains((elements[i] + elements[j]) / 2)
        assert inside.inside
    assert inside.verify()
    normal = torch.tensor(turned[2])
    outside = found.contains(elements[0] + 3e-6 * normal * torch.sign(elements[0] @ normal))
    assert outside.inside is False
    assert outside.verify()


def test_a_descent_is_one_along_which_the_function_falls():
    """A linear program's direction just outside of a thin cell was called one."""
    rows = torch.tensor([[4096.0, -1.0], [4095.0, -1.0]], dtype=torch.float64) * 4096
    thin = clarke.subdifferential(
        lambda x: (rows @ x).abs().amax() + 0.1 * x.abs().sum(), (zeros(2),)
    )
    assert thin.is_local_minimum().minimum
    assert thin.is_stationary().descent is None
