"""Cells that overwrite parts of their gates are judged from recorded values, at every length."""

import pytest
import torch
from torch import nn

import clarke
from clarke.fast import Declined, QuickJudge
from clarke.verdict import Verdict


@pytest.fixture
def declined(monkeypatch):
    """What the quick judge declined."""
    found = []
    decide = QuickJudge.decide

    def noted(self, *args, **kwargs):
        result = decide(self, *args, **kwargs)
        if isinstance(result, Declined):
            found.append(result)
        return result

    monkeypatch.setattr(QuickJudge, "decide", noted)
    return found


def _unrolled(cell, steps):
    x = torch.randn(steps, 3, 4)
    h = torch.zeros(3, 5)
    c = torch.zeros(3, 5)
    for t in range(steps):
        if isinstance(cell, nn.LSTMCell):
            h, c = cell(x[t], (h, c))
        else:
            h = cell(x[t], h)
    return h.pow(2).mean()


@pytest.mark.parametrize("kind", [nn.LSTMCell, nn.GRUCell, nn.RNNCell])
def test_a_cell_takes_no_replay(kind, declined):
    torch.manual_seed(0)
    cell = kind(4, 5)
    with clarke.audit() as audit:
        for steps in (1, 4, 4):
            _unrolled(cell, steps).backward()
            cell.zero_grad()
    assert [s.verdict for s in audit.steps] == [Verdict.SMOOTH] * 3
    assert not declined


def _read_twice(x):
    parts = torch.unsafe_chunk(x * 1.0, 2)
    kept = parts[0] + 1.0
    return kept.sum() + parts[0].sigmoid_().sum() + parts[1].sum()


def _whole_read_later(x):
    whole = x * 1.0
    first, second = torch.unsafe_chunk(whole, 2)
    return first.sigmoid_().sum() + second.sum() + (whole.detach() * x).sum()


@pytest.mark.parametrize("program", [_read_twice, _whole_read_later])
def test_a_part_that_others_read_is_judged_as_by_the_replay(program, declined):
    x = torch.tensor([0.0, 1.0, -2.0, 3.0], requires_grad=True)
    found = []
    for settings in (None, clarke.Settings(quick=False)):
        with clarke.audit(lambda _: None, settings=settings) as audit:
            program(x).backward()
        found.append(audit.steps[0].verdict)
    assert found[0] is found[1] is not Verdict.UNDECIDED
    assert not declined
