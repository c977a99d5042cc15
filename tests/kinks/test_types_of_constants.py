"""What a lowering or a measured weight adds in the program's own type holds in float64 too."""

import pytest
import torch
from torch.nn import functional

import clarke
from clarke.verdict import Verdict

TYPES = [torch.float64, torch.float32, torch.bfloat16]


def leaf(*values, dtype):
    return torch.tensor(values, dtype=dtype, requires_grad=True)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("ties", [2, 3, 5, 6, 7])
@pytest.mark.parametrize("name", ["median", "nanmedian", "amax", "min"])
def test_equal_shares_are_mixtures_in_any_type(name, ties, dtype):
    x = leaf(*[1.0] * ties, *[3.0] * (ties - 1) if "median" in name else (), dtype=dtype)
    report = clarke.check(lambda x: getattr(x, name)(), (x,))
    assert report.verdict is Verdict.CLARKE
    assert report.certificate.verify()


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("reduce", ["sum", "mean", "max", "min"])
def test_segments(reduce, dtype):
    def reduced(x):
        lengths = torch.tensor([2, 1])
        return torch.segment_reduce(x, reduce, lengths=lengths).relu().sum()

    for values in ((0.0, 0.0, 1.0), (1.0, 2.0, -3.0)):
        assert clarke.check(reduced, (leaf(*values, dtype=dtype),)).correct


@pytest.mark.parametrize("dtype", TYPES[:2])
@pytest.mark.parametrize("classes", [3, 5])
def test_margin_losses(classes, dtype):
    x = torch.zeros(2, classes, dtype=dtype)
    x[:, 0] = 1
    x.requires_grad_()
    labels = torch.full((2, classes), -1)
    labels[:, 0] = 0
    for loss in (
        lambda x: functional.multilabel_margin_loss(x, labels),
        lambda x: functional.multi_margin_loss(x, torch.tensor([0, 0])),
    ):
        assert clarke.check(loss, (x,)).verdict is Verdict.BOULIGAND


@pytest.mark.parametrize("dtype", TYPES)
def test_bags_and_signs(dtype):
    w = torch.zeros(3, 1, dtype=dtype, requires_grad=True)
    at, starts = torch.tensor([0, 1, 2, 1]), torch.tensor([0, 3])
    for mode in ("sum", "mean", "max"):
        bag = clarke.check(
            lambda w, m=mode: functional.embedding_bag(at, w, starts, mode=m).relu().sum(), (w,)
        )
        assert bag.correct
    x = leaf(1.0, -2.0, dtype=dtype)
    signed = clarke.check(lambda x: torch.copysign(x, torch.ones(2, dtype=dtype)).sum(), (x,))
    assert signed.verdict is Verdict.SMOOTH
