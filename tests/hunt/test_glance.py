"""Plain runs tell which points are recorded and judged; nobody's values change by them."""

import sys
import time
from dataclasses import replace

import pytest
import torch

import clarke
from clarke.hunt.glance import Glances
from clarke.hunt.subject import Subject
from reference.faults import CASES

F64 = torch.float64


def bce():
    case = next(c for c in CASES if c.name == "bce")
    return case.wrong, case.example()


def glances(function, *inputs):
    subject = Subject(function, inputs, None)
    return Glances(subject, subject.look(subject.example).outer)


def test_few_points_are_recorded(monkeypatch):
    looks = []
    look = Subject.look
    monkeypatch.setattr(Subject, "look", lambda self, point: looks.append(0) or look(self, point))
    found = clarke.hunt(*bce(), seconds=None)
    assert found
    assert len(looks) < found.points / 5


def test_what_is_odd():
    x = torch.ones(1, dtype=F64, requires_grad=True)
    leaky = glances(lambda x: (torch.relu(x) - 0.1 * torch.relu(-x)).sum(), x)
    at = lambda v: leaky.glance((torch.tensor([v], dtype=F64),))  # noqa: E731
    assert (at(0.0).odd, at(0.0).finite) == (True, True)
    assert not at(1.0).odd
    assert at(0.0).coincidences - at(1.0).coincidences
    assert at(float("inf")) is None  # no point
    assert not leaky.glance((torch.zeros(1, dtype=F64),), {at(0.0).key}).odd  # not asked again
    right = glances(lambda x: x.abs().sum(), x)
    assert not right.glance((torch.zeros(1, dtype=F64),)).odd
    root = glances(lambda x: (x * x).sum().sqrt(), x)
    assert not root.glance((torch.zeros(1, dtype=F64),)).finite


def test_faults_in_parameters_are_found_and_the_module_is_as_it_was():
    class Layer(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(2, dtype=F64))
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, x):
            self.calls += 1
            return (torch.relu(self.weight) - torch.relu(-self.weight)) @ x

    layer = Layer()
    state, x = torch.get_rng_state(), torch.ones(2, dtype=F64)
    found = clarke.hunt(lambda x: layer(x).sum(), x, seconds=None)
    assert [f.report.verdict for f in found.finds] == [clarke.Verdict.NOT_CLARKE]
    assert layer.calls == 0
    assert not layer.weight.any()
    assert layer.weight.grad is None
    assert torch.equal(state, torch.get_rng_state())


def test_what_had_too_little_time_is_judged_again(monkeypatch):
    """On a busy machine the first verdicts may come too late; they are no verdicts."""
    judge, calls = Subject.judge, []

    def hurried(self, point, seconds):
        calls.append(seconds)
        report = judge(self, point, None)
        if len(calls) > 3:
            return report
        return replace(report, verdict=clarke.Verdict.UNDECIDED, out_of_time=True)

    monkeypatch.setattr(Subject, "judge", hurried)
    assert clarke.hunt(*bce(), seconds=None)
    assert max(calls) > calls[0]


def test_a_find_is_told_even_if_it_could_not_be_made_simple(monkeypatch):
    monkeypatch.setattr(sys.modules["clarke.hunt.search"], "shrunk", lambda point, *_: point)
    assert clarke.hunt(*bce(), seconds=None)


@pytest.mark.slow
def test_time_is_kept_with_a_slow_function():
    def slow(x):
        time.sleep(0.02)
        return (torch.relu(x) - torch.relu(-x)).sum()

    found = clarke.hunt(slow, torch.ones(1, dtype=F64, requires_grad=True), seconds=5)
    assert found.seconds < 20  # of a busy machine
    assert found
