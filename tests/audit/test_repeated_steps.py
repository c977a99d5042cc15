"""Calls that got the very decision of the one before are steps and reports like any other."""

from __future__ import annotations

import math

import torch
from torch import nn

from clarke import Verdict, audit
from clarke.audit.history import Again, History


def _losses(net, x):
    return [net(x).square().sum() for _ in range(2)]


def test_each_has_its_own_number_place_and_seconds():
    net, x = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1)), torch.ones(2, 3)
    with audit() as watching:
        for _ in range(6):
            net.zero_grad()
            net(x).square().sum().backward()
        net.zero_grad()
        net(x).square().sum().backward()
    steps, reports = watching.steps, watching.reports
    again = [s for s in watching._history._steps if isinstance(s, Again)]
    assert len(again) >= 4  # else nothing is tested here
    assert [s.number for s in steps] == [*range(1, 8)]
    assert [s.group for s in steps] == [*range(1, 8)]
    assert {s.verdict for s in steps} == {s.joint for s in steps} == {Verdict.SMOOTH}
    assert steps[-1].location.line == steps[0].location.line + 2
    assert [r.seconds for r in reports] == [s.seconds for s in steps]
    assert math.isclose(watching.summary().seconds, sum(s.seconds for s in steps))
    assert watching.summary().verdicts == {Verdict.SMOOTH: 7}
    assert sum(p.steps for p in watching.summary().places if p.operation == "relu") == 7
    assert not any(r.gradient or r.certificate for r in reports)


def test_sums_are_still_counted():
    net, x = nn.Linear(3, 1), torch.ones(2, 3)
    with audit() as watching:
        for _ in range(4):
            net.zero_grad()
            for loss in _losses(net, x):
                loss.backward()
    assert [s.group for s in watching.steps] == [1, 1, 3, 3, 5, 5, 7, 7]
    assert watching.summary().joint == {Verdict.SMOOTH: 4}


def test_a_subscriber_hears_of_every_call_as_before():
    heard = []
    net, x = nn.Linear(3, 1), torch.ones(2, 3)
    with audit() as watching:
        for number in range(5):
            if number == 3:
                watching.subscribe(lambda step, report: heard.append((step.number, report)))
            net.zero_grad()
            net(x).sum().backward()
    assert [number for number, _ in heard] == [4, 5]
    assert all(report.certificate is not None for _, report in heard)


def test_a_bounded_history_lets_them_go():
    net, x = nn.Linear(3, 1), torch.ones(2, 3)
    watching = audit()
    watching._history = History(kept=2)
    with watching:
        for _ in range(6):
            net.zero_grad()
            net(x).sum().backward()
    assert [s.number for s in watching.steps] == [5, 6]
    assert len(watching.reports) == 2
    assert watching.summary().calls == 6
