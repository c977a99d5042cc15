"""Operators that take a number and a mask for two masks compare the number with zero."""

import torch

import clarke
from clarke import Verdict
from reference.leaves import leaf


def test_a_number_among_masks_is_no_crash():
    """Of what is not known, the name is told."""

    def f(x):
        return torch.where(torch.logical_xor(x, x > 1), x, x * x).sum()

    report = clarke.check(f, (leaf(0.0, 1.0, 0.5),))
    assert report.verdict is Verdict.UNDECIDED
    assert "logical_xor" in report.reason
