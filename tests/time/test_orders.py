"""Many overlapping windows: a direction by ordering what is tied, where rows are too many."""

import pytest
import torch
from torch.nn import functional

import clarke
from clarke.verdict import Verdict
from reference.leaves import zeros


@pytest.mark.parametrize(("kernel", "stride", "padding"), [(3, 1, 1), (5, 2, 2), (2, 1, 0)])
@pytest.mark.parametrize("sign", [1, -1])
def test_maxpools_of_constants(kernel, stride, padding, sign):
    def function(x):
        return sign * functional.max_pool2d(sign * x, kernel, stride, padding).sum()

    report = clarke.check(function, (zeros(1, 2, 20, 20),))
    assert report.verdict is Verdict.BOULIGAND
    assert report.relevant > 64
    assert report.certificate.verify()


def test_a_smallest_of_overlapping_windows():
    def function(x):
        return x.unfold(0, 4, 1).min(dim=1).values.sum()

    report = clarke.check(function, (zeros(400),))
    assert report.verdict is Verdict.BOULIGAND
    assert report.certificate.verify()


def test_two_pools_behind_each_other():
    def function(x):
        return functional.max_pool1d(functional.max_pool1d(x, 3, 1, 1), 3, 1, 1).sum()

    report = clarke.check(function, (zeros(1, 1, 300),))
    assert report.verdict is Verdict.BOULIGAND
    assert report.certificate.verify()


def test_two_pools_of_one_image():
    def function(x):
        high, low = functional.max_pool2d(x, 3, 1, 1), -functional.max_pool2d(-x, 2, 1)
        return high.sum() + 2 * low.sum()

    report = clarke.check(function, (zeros(1, 1, 20, 20),), seconds=3)
    # The greatest and the least of overlapping windows, both the first: no order suits both.
    assert report.verdict in (Verdict.CLARKE, Verdict.UNDECIDED)


def test_choices_that_go_round_have_no_order():
    def function(x):
        pairs = torch.stack([x, x.roll(-1, 1)], 2)  # AD takes x0 over x1 over x2 over x0
        return pairs.max(dim=2).values.sum()

    report = clarke.check(function, (zeros(250, 3),), seconds=2)
    assert report.verdict in (Verdict.CLARKE, Verdict.UNDECIDED)
