"""Beside a point at which a slope is infinite, a value may be constant by rounding only."""

import math

import pytest
import torch
from torch.nn import functional as F  # noqa: N812 - as users write it

import clarke
from clarke import Verdict
from reference.leaves import leaf

UNIT = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)


def arcface(x):
    """The margin loss of a feature that points exactly to its class."""
    cosine = (F.normalize(x, dim=-1) * UNIT).sum().clamp(-1, 1)
    return -torch.cos(torch.acos(cosine) + 0.5)


def test_the_limit_is_found_where_the_cosine_is_one_beside_the_point_too():
    report = clarke.check(arcface, leaf(1.0, 0.0, 0.0))
    assert report.verdict is Verdict.NONFINITE
    assert report.element is not None
    # -cos(angle + 0.5) grows with the angle by sin(0.5), whichever the direction.
    assert math.isclose(float(report.element[0][1:].norm()), math.sin(0.5), rel_tol=1e-4)
    assert abs(float(report.element[0][0])) < 1e-4


def test_a_plateau_of_the_function_is_none_of_rounding():
    def flat(x):
        """Constant within a thousandth of the point, and steep beyond: no slope is infinite."""
        far = torch.relu((x * x).sum() - 1e-6)
        return torch.acos(torch.cos(far)) + 0 * x.sum()

    report = clarke.check(flat, leaf(0.0, 0.0))
    assert report.element is None or float(report.element[0].abs().max()) < 1e-6


def test_an_entry_that_is_rounding_of_the_others_does_not_hide_the_limit():
    """A logit that a mask takes away afterwards: p * log(p) of a probability that is always 0."""
    legal = torch.tensor([1.0, 1.0, 0.0], dtype=torch.float64)

    def entropy(logits):
        p = torch.softmax(logits, -1) * legal
        p = p / p.sum()
        return (p * torch.where(p > 0, p.log(), torch.zeros_like(p))).sum()

    report = clarke.check(entropy, leaf(1.0, 2.0, 0.0))
    assert report.verdict is Verdict.NONFINITE
    assert report.element is not None
    p = torch.softmax(torch.tensor([1.0, 2.0], dtype=torch.float64), 0)
    slope = float(p[0] * p[1])  # of the entropy of two, by the logit: p q (log p - log q)
    expected = torch.tensor([-slope, slope, 0.0], dtype=torch.float64)
    assert torch.allclose(report.element[0], expected, rtol=1e-6, atol=0)
    assert "torch.where(mask, log(torch.where(mask, x, 1)), other)" in report.cures[0]


@pytest.mark.parametrize("large", [1e8, 1e14, 1e16, 1e20])
def test_an_entry_that_settles_is_a_slope_however_large_the_others_are(large):
    def function(x):
        return large * x[0] + x[1] + x[2] ** 2 + torch.sqrt(x[3] ** 2) * x[3]

    report = clarke.check(function, leaf(1.0, 0.5, 1.0, 0.0))
    assert report.verdict is Verdict.NONFINITE
    assert report.element is not None
    assert report.element[0].tolist() == [large, 1.0, 2.0, 0.0]
