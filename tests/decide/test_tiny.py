"""Kinks whose slopes are tiny beside others of the same tensor count, if they are no rounding."""

import pytest
import torch

import clarke
from clarke.verdict import Verdict

ATTEMPTS = (clarke.check, "audit", "audit without the quick judge")


def verdict(attempt, function, x):
    if callable(attempt):
        return attempt(function, (x,)).verdict
    settings = clarke.Settings(quick=attempt == "audit")
    with clarke.audit(on_wrong=lambda _: None, settings=settings) as audit:
        function(x).backward()
    return audit.reports[-1].verdict


@pytest.mark.parametrize("attempt", ATTEMPTS, ids=["check", "audit", "audit, whole ladder"])
@pytest.mark.parametrize("size", [1e-14, 1e-20, 1e-60])
def test_a_slope_that_is_scaled_back_up(attempt, size):
    def program(x):
        h = torch.stack([x[0] * size, x[1]])
        line = torch.relu(h) - torch.relu(-h)
        return line[0] / size + h[1]  # x[0] + x[1], but AD says x[1]

    x = torch.tensor([0.0, 1.0], dtype=torch.float64, requires_grad=True)
    assert verdict(attempt, program, x) is Verdict.NOT_CLARKE


@pytest.mark.parametrize("size", [1e-14, 1e-20])
def test_three_tied_elements_of_tiny_slopes(size):
    def program(x):
        h = torch.stack([x[0] * size, x[1] * size, x[0] * 0, x[2]])
        return h[:3].max(0).values / size + h[3]

    x = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64, requires_grad=True)
    found = clarke.subdifferential(program, (x,)).vertices()
    assert {tuple(round(float(e), 9) for e in v) for v in found} == {
        (1, 0, 1),
        (0, 1, 1),
        (0, 0, 1),
    }


def test_rounding_is_still_no_slope():
    weight = torch.tensor([0.1, 0.2, -0.3], dtype=torch.float64)

    def program(x):
        # Zero up to rounding, in different orders of summation, beside large tangents.
        one = (x[:3] * weight).sum()
        two = x[2] * weight[2] + x[1] * weight[1] + x[0] * weight[0]
        return torch.stack([one, two, x[3] - 5]).max() + x[3]

    x = torch.tensor([1.0, 1.0, 1.0, 1.0], dtype=torch.float64, requires_grad=True)
    report = clarke.check(program, (x,))
    assert report.correct
