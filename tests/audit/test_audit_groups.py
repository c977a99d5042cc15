"""Gradients that add up in ``.grad`` are one gradient, and judged as one too."""

import importlib

import pytest
import torch
from torch import nn

import clarke
from clarke import Verdict


@pytest.fixture
def w():
    return torch.zeros((), requires_grad=True)


def joints(watch):
    return [s.joint for s in watch.steps]


def groups(watch):
    return [s.group for s in watch.steps]


def test_parts_that_agree_are_certified_together(w):
    with clarke.audit() as watch:
        torch.relu(w).backward()
        (2 * torch.relu(w)).backward()
        torch.relu(3 * w + w * w).backward()
    assert groups(watch) == [1, 1, 1]
    assert joints(watch) == [Verdict.BOULIGAND] * 3
    assert "all 3" in watch.steps[2].joint_reason


def test_parts_that_contradict_are_not_called_correct(w):
    # relu(w) and -relu(-w) are each fine at 0, their sum is the identity with gradient 1, not 0.
    with clarke.audit() as watch:
        torch.relu(w).backward()
        with pytest.warns(clarke.WrongGradientWarning, match=r"sum that \.grad holds .* is wrong"):
            (-torch.relu(-w)).backward()
    assert w.grad == 0
    assert [s.verdict for s in watch.steps] == [Verdict.BOULIGAND] * 2
    assert joints(watch) == [Verdict.BOULIGAND, Verdict.NOT_CLARKE]
    assert "judged together" in watch.steps[1].joint_reason
    assert [c.location.module for c in watch.steps[1].culprits] == ["call 1", "call 2"]
    summary = watch.summary()
    assert summary.joint == {Verdict.NOT_CLARKE: 1}
    assert summary.correct is False


def test_one_kinked_part_keeps_its_verdict(w):
    with clarke.audit(lambda report: None) as watch:
        (w * 2).backward()
        (w * w + w).backward()
        torch.relu(w).backward()
        w.sin().backward()
        w.grad = None
        (w * 2).backward()
        (torch.relu(w) - torch.relu(-w)).backward()
        w.grad = None
        torch.abs(w).backward()
        w.exp().backward()
    assert groups(watch) == [1, 1, 1, 1, 5, 5, 7, 7]
    assert joints(watch) == [
        Verdict.SMOOTH,
        Verdict.SMOOTH,
        Verdict.BOULIGAND,
        Verdict.BOULIGAND,
        Verdict.SMOOTH,
        Verdict.NOT_CLARKE,
        Verdict.CLARKE,
        Verdict.CLARKE,
    ]


def test_mixtures_are_judged_as_one_program(w):
    with clarke.audit() as watch:
        torch.abs(w).backward()
        (-torch.abs(w)).backward()  # their sum is 0 everywhere
    assert [s.verdict for s in watch.steps] == [Verdict.CLARKE] * 2
    assert joints(watch)[1] is Verdict.BOULIGAND


@pytest.mark.parametrize("to_none", [True, False])
def test_zero_grad_begins_anew(w, to_none):
    optimizer = torch.optim.SGD([w], 0.0)
    with clarke.audit() as watch:
        for sign in (1, -1):
            (sign * torch.relu(sign * w)).backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=to_none)
    assert groups(watch) == [1, 2]
    assert joints(watch) == [Verdict.BOULIGAND] * 2


def test_a_step_between_the_parts_leaves_the_sum_open(w):
    with clarke.audit() as watch:
        (w * w + w).backward()
        with torch.no_grad():
            w -= 0.1
        (w * w + w).backward()
    assert joints(watch) == [Verdict.SMOOTH, Verdict.UNDECIDED]
    assert "changed" in watch.steps[1].joint_reason


def test_foreign_values_in_grad_leave_the_sum_open(w):
    w.grad = torch.tensor(2.0)
    with clarke.audit() as watch:
        (w * 2).backward()
        w.grad.mul_(0.5)
        (w * 2).backward()
    # The first sum was used by nobody, the second is left to whoever comes.
    assert joints(watch) == [Verdict.SMOOTH, Verdict.UNDECIDED]
    assert "judged when it is used" in watch.steps[0].joint_reason
    assert [s.verdict for s in watch.steps] == [Verdict.SMOOTH] * 2


def test_clearing_some_gradients_only_leaves_the_sum_open(w):
    v = torch.zeros((), requires_grad=True)
    with clarke.audit() as watch:
        (w + v).backward()
        v.grad = None
        (w + v).backward()
    assert joints(watch) == [Verdict.SMOOTH, Verdict.UNDECIDED]


def test_grad_does_not_accumulate(w):
    with clarke.audit() as watch:
        torch.autograd.grad(torch.relu(w), w)
        torch.autograd.grad(-torch.relu(-w), w)
    assert groups(watch) == [1, 2]
    assert joints(watch) == [Verdict.BOULIGAND] * 2


def test_microbatches_of_a_network():
    net = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 1))
    with torch.no_grad():
        net[0].weight.zero_()
        net[0].bias.zero_()
    optimizer = torch.optim.SGD(net.parameters(), 0.0)
    with clarke.audit() as watch:
        for _ in range(2):
            for _ in range(3):
                net(torch.randn(4, 3)).pow(2).mean().backward()
            optimizer.step()
            optimizer.zero_grad()
    assert len(set(groups(watch))) == 2
    # All ReLUs of the layer off: the bias shift is a direction for every microbatch. The first
    # call was judged by its layer, without rows, since nothing said that more would follow; its
    # program was kept.
    assert joints(watch) == [Verdict.BOULIGAND] * 6
    assert "judged together" in watch.steps[1].joint_reason
    assert "One direction" in watch.steps[-1].joint_reason


def test_rows_of_different_parameters_are_put_side_by_side():
    a, b = (torch.zeros((), requires_grad=True) for _ in range(2))
    with clarke.audit() as watch:
        torch.relu(a).backward()
        torch.relu(b - a).backward()
        torch.relu(-a - b).backward()  # a < 0, b < a, a + b > 0: contradiction
    assert joints(watch) == [*[Verdict.BOULIGAND] * 2, Verdict.CLARKE]


def test_parts_too_large_to_keep_leave_the_sum_open(w, monkeypatch):
    monkeypatch.setattr(importlib.import_module("clarke.audit.groups"), "ALWAYS", 0)
    with clarke.audit() as watch:
        for _ in range(2):
            torch.relu(w).backward()
            torch.relu(2 * w).backward()
            w.grad = None
    # The first group could not know; from then on rows are kept.
    assert joints(watch) == [
        Verdict.BOULIGAND,
        Verdict.UNDECIDED,
        Verdict.BOULIGAND,
        Verdict.BOULIGAND,
    ]


def test_endless_accumulation_does_not_grow(w, monkeypatch):
    monkeypatch.setattr(importlib.import_module("clarke.audit.groups"), "_PARTS", 6)
    watch = clarke.audit()
    with watch:
        for _ in range(12):
            torch.relu(w).backward()
    assert [s.joint for s in watch.steps] == [Verdict.BOULIGAND] * 6 + [Verdict.UNDECIDED] * 6
    assert "more than 6" in watch.steps[-1].joint_reason
    assert watch._accumulation._held.get(w).group.parts == []
