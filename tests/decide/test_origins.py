"""Ties of rounding and ties of the function, told apart; and for which program a verdict holds."""

import pytest
import torch
from torch import nn
from torch.nn.functional import relu

import clarke
from clarke.verdict import Verdict

TYPES = [torch.bfloat16, torch.float16]


def third(count=1, dtype=torch.bfloat16):
    """Numbers of which thrice is one, but for rounding."""
    return torch.full((count,), 1 / 3, dtype=dtype, requires_grad=True)


def by_origin(report):
    return sum(k.relevant or 0 for k in report.kinks), report.rounded


@pytest.mark.parametrize("dtype", TYPES)
def test_a_tie_of_rounding_is_counted_as_one(dtype):
    x = third(dtype=dtype)
    value = (x.detach() * 3 - 1).item()
    exact = (x.detach().double() * 3 - 1).item()
    report = clarke.check(lambda x: relu(x * 3 - 1).sum(), (x,))
    assert value == 0
    assert exact != 0
    assert report.verdict is Verdict.BOULIGAND
    assert by_origin(report) == (1, 1)
    assert report.certificate.verify()
    assert "1 of the 1 ties that matter exist by rounding alone" in report.notes[0]
    # autograd's 0 is the exact slope where the exact value is negative
    same = "that of the exact program, too" in report.notes[0]
    assert same is (exact < 0)


@pytest.mark.parametrize("dtype", TYPES)
def test_a_tie_of_the_function_is_none_of_rounding(dtype):
    w = torch.zeros(3, dtype=dtype, requires_grad=True)
    report = clarke.check(lambda w: relu(w).sum(), (w,))
    assert by_origin(report) == (3, 0)
    assert report.notes == ()
    assert report.to_dict()["rounded"] == 0


def test_both_in_one_program():
    def function(x, w):
        return relu(x * 3 - 1).sum() + relu(w).sum()

    w = torch.zeros(2, dtype=torch.bfloat16, requires_grad=True)
    report = clarke.check(function, (third(), w))
    assert by_origin(report) == (3, 1)
    assert "(1 by rounding alone)" in str(report)


def test_wide_types_are_not_looked_at():
    report = clarke.check(lambda w: relu(w).sum(), (torch.zeros(2, requires_grad=True),))
    assert all(k.rounded is None for k in report.kinks)


@pytest.mark.parametrize("count", [1, pytest.param(100, marks=pytest.mark.slow)])
def test_one_rounded_value_has_one_sign(count):
    """Both ReLUs read the same rounding: no other rounding makes their slopes right."""

    def function(x):
        z = x * 3 - 1
        return (relu(z) - relu(-z)).sum()

    report = clarke.check(function, (third(count),))
    assert report.correct is not True
    assert count > 1 or report.verdict is Verdict.NOT_CLARKE


@pytest.mark.parametrize("count", [1, 100])
def test_a_value_that_is_computed_twice_has_one_sign(count):
    def function(x):
        return (relu(x * 3 - 1) - relu(1 - x * 3)).sum()

    report = clarke.check(function, (third(count),))
    assert report.correct is not True
    assert count > 1 or report.verdict is Verdict.NOT_CLARKE


def digits(size, dtype):
    """Smooth blobs, between which a narrow type finds many ties."""
    torch.manual_seed(0)
    x = torch.linspace(-1, 1, 14)
    centers = torch.randn(size, 2, 1) / 2
    rows, columns = (torch.exp(-((x - centers[:, i]) ** 2) * 4) for i in range(2))
    return (rows[:, :, None] * columns[:, None, :])[:, None].to(dtype)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.first, self.norm = nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.last = nn.Linear(4 * 49, 5)

    def forward(self, x):
        x = torch.relu(self.norm(self.first(x)))
        return self.last(nn.functional.max_pool2d(x, 2).flatten(1))


def audited_step(dtype, size=24):
    net = Net().to(dtype)
    with clarke.audit(seconds=60) as audit:
        subscribed = []
        audit.subscribe(lambda step, report: subscribed.append((step, report)))
        scores = net(digits(size, dtype)).float()
        nn.functional.cross_entropy(scores, torch.arange(size) % 5).backward()
    return subscribed[0]


def test_a_step_with_many_ties_of_rounding_is_decided():
    step, report = audited_step(torch.bfloat16)
    assert step.verdict is Verdict.BOULIGAND
    assert step.theorem == "witness beside roundings"
    assert "programs that round otherwise" in report.reason
    relevant, rounded = by_origin(report)
    assert relevant >= rounded > 64
    assert report.certificate.verify()
    assert "by rounding alone" in str(report)


def test_summaries_count_by_origin():
    net = Net().bfloat16()
    with clarke.audit(seconds=60) as audit:
        scores = net(digits(16, torch.bfloat16)).float()
        nn.functional.cross_entropy(scores, torch.arange(16) % 5).backward()
    places = audit.summary().places
    assert sum(p.rounded for p in places) == sum(k.rounded or 0 for k in audit.steps[0].kinks) > 0
