"""Witnesses along a ray and its opposite name all kinks that matter under their own selections."""

import torch

import clarke
from clarke import Verdict


def test_kinks_that_matter_under_the_selection_and_not_under_that_of_ad():
    x = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    report = clarke.check(
        lambda x: (torch.relu(torch.relu(x) - torch.relu(-x)) + x.abs()).sum(), (x,), seconds=None
    )
    assert report.verdict is Verdict.CLARKE
    assert report.certificate.defects() == ()
