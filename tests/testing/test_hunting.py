"""clarke.testing: hunts as assertions, custom backward functions, strategies."""

import pytest
import torch
from hypothesis import given, settings

import clarke
from clarke.testing import assert_no_wrong_gradient, check_backward, kinky

F64 = torch.float64


def test_a_hunt_as_an_assertion(tmp_path):
    example = torch.randn(2, dtype=F64, requires_grad=True)
    found = assert_no_wrong_gradient(lambda x: x.abs().sum(), example, seconds=10)
    assert not found
    with pytest.raises(AssertionError, match="FOUND 1 fault") as caught:
        assert_no_wrong_gradient(
            lambda x: (torch.relu(x) - torch.relu(-x)).sum(), example, corpus=tmp_path
        )
    assert caught.value.report.verdict is clarke.Verdict.NOT_CLARKE
    assert list(tmp_path.rglob("*.pt"))


class Absolute(torch.autograd.Function):
    """Its backward takes the right slope at zero, which is as good as torch's zero."""

    slope = 1.0

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.abs()

    @classmethod
    def backward(cls, ctx, g):
        (x,) = ctx.saved_tensors
        return g * torch.where(x == 0, Absolute.slope, x.sign())


@pytest.mark.parametrize(("slope", "right"), [(1.0, True), (-0.5, True), (1.5, False)])
def test_a_backward_is_held_against_the_set(monkeypatch, slope, right):
    monkeypatch.setattr(Absolute, "slope", slope)
    x = torch.tensor([0.0, 2.0], dtype=F64, requires_grad=True)
    if right:
        reports = check_backward(Absolute, x, torch.abs)
        assert [r.correct for r in reports] == [True, True]
    else:
        with pytest.raises(clarke.WrongGradientError, match="Component 0 of 2"):
            check_backward(Absolute, x, torch.abs)
        reports = check_backward(Absolute, x, torch.abs, raise_exception=False)
        assert [r.correct for r in reports] == [False, True]


def test_another_forward_is_no_reference():
    x = torch.tensor([1.0], dtype=F64, requires_grad=True)
    with pytest.raises(clarke.InputError, match="return different values"):
        check_backward(Absolute, x, lambda x: 2 * x)
    with pytest.raises(clarke.InputError, match="No input requires a gradient"):
        check_backward(Absolute, x.detach(), torch.abs)


@settings(max_examples=15, deadline=None)
@given(kinky((3,)), kinky((3,), requires_grad=False))
def test_maxima_are_right_on_every_kink(x, y):
    assert x.requires_grad
    assert not y.requires_grad
    report = clarke.check(lambda x, y: torch.maximum(x, y).sum(), (x, y))
    assert report.correct, report


def test_strategies_stand_on_kinks():
    zeros, ties = [], []

    @settings(max_examples=60, deadline=None, database=None, derandomize=True)
    @given(kinky((2, 2), values=(6.0,)))
    def draw(x):
        zeros.append(bool((x == 0).any()))
        ties.append(x.unique().numel() < 4)

    draw()
    assert sum(zeros) > 10
    assert sum(ties) > 20
