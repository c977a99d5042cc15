"""Comparisons whose sides agree at the point but not along the tie."""

import pytest
import torch

import clarke
from clarke import Verdict


def at(*values):
    return torch.tensor(values, dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize(
    "function",
    [
        lambda v: v[1] * (v[0] > 0),
        lambda v: (v[0] + v[1] ** 2) * (v[0] > 0),
        lambda v: torch.where(v[0] >= v[1] ** 2, v[1] ** 3, v[0] * 0),
    ],
    ids=["first order", "second order", "curved surface"],
)
def test_a_jump_beside_the_point_is_never_called_correct(function):
    report = clarke.check(function, (at(0.0, 0.0),))
    assert report.correct is None
    assert report.verdict in (Verdict.UNDECIDED, Verdict.NOT_LIPSCHITZ)


@pytest.mark.parametrize(
    "function",
    [
        lambda v: v[0] * (v[0] >= 0) + v[1],
        lambda v: (v[0] - v[1] ** 2) * (v[0] > v[1] ** 2),
        lambda v: torch.where(v[0] > 0, torch.expm1(v[0]) * v[1], v[0] * v[1]),
    ],
    ids=["relu", "curved surface", "both analytic"],
)
def test_sides_that_meet_along_the_tie_are_judged(function):
    assert clarke.check(function, (at(0.0, 0.0),)).correct is True
