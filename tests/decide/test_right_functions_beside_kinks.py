"""A custom Function whose backward is right excuses no wrong kink elsewhere in the program."""

import pytest
import torch

import clarke
from clarke import Verdict
from reference.functions import square

TYPES = [torch.float64, torch.float32, torch.bfloat16]
Right = square()


class Lossy(torch.autograd.Function):
    """Twice x, with a backward that has few digits left in narrow types."""

    @staticmethod
    def forward(_ctx, x):
        return 2 * x

    @staticmethod
    def backward(_ctx, g):
        return (g + 1000) * 2 - 2000


def judged(kink, function, dtype):
    x = torch.tensor([0.3, -0.7, 1.1], dtype=dtype, requires_grad=True)
    w = torch.zeros(3, dtype=dtype, requires_grad=True)
    return clarke.check(lambda x, w: (function.apply(x + 1) * kink(w)).sum(), (x, w))


@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_wrong_is_wrong(dtype):
    report = judged(lambda w: torch.relu(w) - torch.relu(-w), Right, dtype)
    assert report.verdict is Verdict.NOT_CLARKE, report.reason
    assert report.certificate.verify()
    assert {c.operation for c in report.culprits} == {"relu"}


@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_right_is_right(dtype):
    report = judged(lambda w: torch.relu(w) - 2 * w, Right, dtype)
    assert report.verdict is Verdict.BOULIGAND, report.reason


@pytest.mark.parametrize("dtype", TYPES[1:], ids=str)
def test_digits_that_a_backward_loses_are_no_proof(dtype):
    report = judged(lambda w: torch.relu(w) + 1.7, Lossy, dtype)
    assert report.verdict is not Verdict.NOT_CLARKE
