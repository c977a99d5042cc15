"""Of a smooth program that detaches values, gradients tell what difference quotients would."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import nn

from clarke import Verdict, audit
from clarke.decide import detached
from clarke.steering import Program


def _advantage(x, w, v):
    value = torch.tanh(x @ w).sum(1)
    advantage = x.sum(1) - value
    return -(torch.log_softmax(x @ v, 1)[:, 0] * advantage.detach()).mean() + (advantage**2).mean()


def _shifted(x, w, v):
    scores = torch.tanh(x @ w) @ v.T
    shift = scores.exp().mean().detach()  # cancels
    return ((scores - shift).exp().sum().log() + shift).sum() + v.square().sum()


def _faint(x, w, v):
    loss = torch.tanh(x @ w).sum() + (x @ v).square().sum()
    return loss + 0.01 * loss.detach() * w.cos().mean()


def _kinked(x, w, v):
    value = torch.relu(x @ w).sum(1)
    return (value * (value - 1).abs().detach()).mean() + (x @ v).sum()


def _both_ways(x, w, v):
    value = torch.tanh(x @ w).sum()
    return value * (value - 1).detach() + (x @ v).square().sum()


PROGRAMS = {
    "advantage": (_advantage, Verdict.SURROGATE),
    "both ways": (_both_ways, Verdict.SURROGATE),
    "shift that cancels": (_shifted, Verdict.SMOOTH),
    "faint": (_faint, None),
    "kinks beside the point": (_kinked, Verdict.SURROGATE),
}


def _points(seed):
    generator = torch.Generator().manual_seed(seed)
    x, w, v = (torch.randn(5, 5, generator=generator) for _ in range(3))
    return x, nn.Parameter(w), nn.Parameter(v)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize("seed", range(3))
def test_the_same_as_by_values(name, seed, monkeypatch):
    program, expected = PROGRAMS[name]

    def verdicts():
        x, w, v = _points(seed)
        with audit(seconds=30) as watching:
            for _ in range(2):
                w.grad = v.grad = None
                program(x, w, v).backward()
        return [s.verdict for s in watching.steps]

    by_gradients = verdicts()
    monkeypatch.setattr(sys.modules["clarke.audit.judge"], "opens_kinks", lambda *_: True)
    assert by_gradients == verdicts()
    assert expected is None or by_gradients == [expected] * 2


@pytest.mark.parametrize("name", ["advantage", "both ways", "shift that cancels"])
def test_replays_are_few(name, monkeypatch):
    runs = []
    run = Program.run

    def counted(self, *args, **kwargs):
        runs.append(self)
        return run(self, *args, **kwargs)

    monkeypatch.setattr(Program, "run", counted)
    x, w, v = _points(0)
    with audit(seconds=30):
        PROGRAMS[name][0](x, w, v).backward()
    assert len(runs) <= 4


def test_kinks_behind_what_is_detached_are_left_to_the_values(monkeypatch):
    """Nobody has looked whether these are touched: values tell, not gradients."""
    asked = []
    monkeypatch.setattr(detached, "_apart_by_gradients", lambda *found: asked.append(found))
    x, w, v = _points(1)
    with audit(seconds=30) as watching:
        PROGRAMS["kinks beside the point"][0](x, w, v).backward()
    assert watching.steps[0].verdict is Verdict.SURROGATE
    assert not asked
