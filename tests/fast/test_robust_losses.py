"""Huber's loss and its kin are judged by their elements, without running their parts again."""

import importlib

import pytest
import torch

import clarke
from clarke.verdict import Verdict

LOSSES = [torch.nn.functional.huber_loss, torch.nn.functional.smooth_l1_loss]


def step_of(loss, x, *, quick=True, **kwargs):
    target = torch.tensor([0.0, 1.0, 2.0, 3.0])
    with clarke.audit(seconds=20, settings=clarke.Settings(quick=quick)) as watching:
        for _ in range(3):  # unknown, and known
            x.grad = None
            loss(x, target, **kwargs).backward()
    assert len({s.verdict for s in watching.steps}) == 1
    return watching.steps[-1]


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_nothing_of_them_runs_again(loss, reduction, monkeypatch):
    look = importlib.import_module("clarke.fast.look")
    lowered = []
    monkeypatch.setattr(look, "lower", lambda *a: lowered.append(a))
    x = torch.tensor([0.3, 2.0, 2.5, -1.0], requires_grad=True)  # one at the threshold
    step = step_of(loss, x, reduction=reduction)
    assert step.verdict is Verdict.SMOOTH
    assert [(k.operation, k.elements, k.touched) for k in step.kinks] == [(loss.__name__, 4, 1)]
    assert not lowered


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("bound", [0.5, 1.0])
def test_they_get_the_verdict_of_the_whole_ladder(loss, reduction, bound):
    name = "delta" if loss is LOSSES[0] else "beta"
    x = torch.tensor([0.5, 2.0, 2.0, -1.0], requires_grad=True)
    options = {"reduction": reduction, name: bound}
    quick, ladder = (step_of(loss, x, quick=q, **options) for q in (True, False))
    assert quick.verdict is ladder.verdict
    assert [k.touched for k in quick.kinks] == [k.touched for k in ladder.kinks]


def test_without_a_square_part_it_is_a_sum_of_magnitudes():
    x = torch.tensor([0.0, 2.0, 2.5, -1.0], requires_grad=True)
    step = step_of(torch.nn.functional.smooth_l1_loss, x, beta=0.0)
    assert step.verdict is step_of(LOSSES[1], x, beta=0.0, quick=False).verdict
    assert step.verdict is not Verdict.SMOOTH
