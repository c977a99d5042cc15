"""Comparisons of detached values decide pieces that autograd does not see."""

import pytest
import torch

import clarke
from clarke import Verdict


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("factor", [1.0, 0.5])
def test_a_tie_of_a_detached_value_is_never_taken_for_smooth(dtype, factor):
    x = torch.zeros(1, dtype=dtype, requires_grad=True)
    report = clarke.check(lambda x: (x * (factor * x.detach() > 0)).sum(), (x,))
    assert report.verdict is Verdict.UNDECIDED
    assert "detached" in report.reason


def test_away_from_the_tie_the_mask_is_constant():
    x = torch.ones(1, requires_grad=True)
    report = clarke.check(lambda x: (x * (0.5 * x.detach() > 0)).sum(), (x,))
    assert report.correct
