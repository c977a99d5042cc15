"""What a function writes while gradients are off: its own values decide whether AD is right."""

import pytest
import torch
from torch.nn import functional

import clarke
from clarke import Verdict


def leaf(*values):
    return torch.tensor(values, dtype=torch.float64, requires_grad=True)


def clamped(x):
    y = x * 1.0
    with torch.no_grad():
        y.clamp_(min=0.25)
    return y.log().sum()


def tripled(x):
    y = x * 2
    with torch.no_grad():
        y.mul_(3)
    return y.square().sum()


def nll(m, v):
    return functional.gaussian_nll_loss(m, torch.zeros_like(m), v)


CASES = {
    "above the bound": (clamped, (leaf(0.5, 1.0),), Verdict.SMOOTH),
    "at the bound": (clamped, (leaf(0.25, 1.0),), Verdict.BOULIGAND),
    "below it": (clamped, (leaf(0.125, 1.0),), Verdict.SURROGATE),
    "another factor": (tripled, (leaf(1.0, 2.0),), Verdict.SURROGATE),
    "a variance above eps": (nll, (leaf(0.0, 1.0), leaf(0.5, 1.0)), Verdict.SMOOTH),
    "a variance below eps": (nll, (leaf(0.0, 1.0), leaf(1e-7, 1.0)), Verdict.SURROGATE),
}


@pytest.mark.parametrize("name", CASES)
def test_verdict(name):
    function, inputs, verdict = CASES[name]
    report = clarke.check(function, inputs)
    assert report.verdict is verdict
    if verdict is Verdict.SURROGATE:
        assert "while gradients were switched off" in report.reason
        assert "Write out of place" in report.reason
