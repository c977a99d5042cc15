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


SURROGATES = {
    "held factor": (lambda w: (w * w.detach()).sum(), (0.7, 0.7, 0.7)),
    "rounded to tenths": (
        lambda x: (x + ((x / 0.1).round() * 0.1 - x).detach()).pow(2).sum(), (0.3141, 1.7271)
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SURROGATES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_surrogates_in_single_and_double_precision(name, dtype):
    function, at = SURROGATES[name]
    x = torch.tensor(at, dtype=dtype, requires_grad=True)
    assert clarke.check(function, (x,)).verdict is Verdict.SURROGATE


@pytest.mark.parametrize("grid", [1e-2, 1e-3, 1e-4])
def test_a_fine_rounding_is_a_surrogate_too(grid):
    x = torch.tensor([0.31415, 1.72713], dtype=torch.float64, requires_grad=True)
    report = clarke.check(lambda x: (x + ((x / grid).round() * grid - x).detach()).sum(), (x,))
    assert report.verdict is Verdict.SURROGATE


def shifted(w):
    """What is subtracted is detached, and all of it cancels."""
    own = w.detach()
    return torch.nn.functional.dropout(w * w + own.max() - own.max(), 0.5).sum()


def standing_still(w):
    return (torch.nn.functional.dropout(torch.softmax(w, 0), 0.3) - w.detach() + w.detach()).sum()


@pytest.mark.parametrize("function", [shifted, standing_still])
def test_a_mask_that_got_its_shape_from_a_variable_is_a_constant(function):
    """Computed again, it would be whatever the memory holds: SURROGATE every now and then."""
    for seed in range(4):
        torch.manual_seed(seed)
        w = torch.randn(5, requires_grad=True)
        with clarke.audit() as watch:
            function(w).backward()
        assert watch.steps[0].verdict is clarke.check(function, (w,)).verdict is Verdict.SMOOTH
