"""What was recorded on a device is judged on the processor, with the same outcome.

Without a device at hand everything counts as away, so that all of it is copied and judged from the
copies; `tests/device` does the same on a real one.
"""

import pytest
import torch
from torch import nn

import clarke


class Tripled(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx, gradient):
        return 3 * gradient * ctx.saved_tensors[0]


def written(w):
    out = torch.zeros(4)
    out[:2] = torch.relu(w[:2])
    out[2:] = -torch.relu(-w[2:])
    return out.abs().sum()


def in_place(w):
    y = w * 1
    y.relu_()
    return (y - torch.relu(-w)).sum()


def dropped(w):
    return nn.functional.dropout(torch.relu(w) - torch.relu(-w), 0.5, training=True).sum()


PROGRAMS = {
    "wrong": (lambda w: (torch.relu(w) - torch.relu(-w)).sum(), 0),
    "right": (lambda w: torch.relu(w).sum(), 0),
    "smooth": (lambda w: (w * w).exp().sum(), 1),
    "made there": (lambda w: torch.maximum(w, torch.zeros(4, device=w.device)).sum(), 0),
    "cast": (lambda w: torch.relu(w).to(torch.float64).sum(), 0),
    "written": (written, 0),
    "in place": (in_place, 0),
    "dropped": (dropped, 0),
    "sorted": (lambda w: (w.sort().values * torch.arange(4.0)).sum(), 0),
    "Function": (lambda w: Tripled.apply(w).sum(), 1),
    "detached": (lambda w: (w + (w.round() - w).detach()).sum(), 1),
    "branch": (lambda w: w.sum() if bool((w > -1).all()) else -w.sum(), 0),
}


def judged(function, at):
    torch.manual_seed(0)
    x = torch.full((4,), float(at), requires_grad=True)
    report = clarke.check(function, (x,), seconds=30)
    torch.manual_seed(0)
    x.grad = None
    with clarke.audit("repair", seconds=30) as audit:
        function(x).backward()
    found = [report.verdict, audit.steps[0].verdict]
    return found, [report.reason, audit.steps[0].reason], x.grad


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.filterwarnings("ignore::clarke.WrongGradientWarning")
def test_as_if_it_had_been_here(name, monkeypatch):
    function, at = PROGRAMS[name]
    here = judged(function, at)
    copies = []
    brought = clarke.capture.home.brought

    def counted(tensor):
        copies.append(tensor)
        return brought(tensor)

    monkeypatch.setattr(clarke.capture.home, "is_away", lambda t: t.device.type == "cpu")
    monkeypatch.setattr(clarke.capture.home, "brought", counted)
    away = judged(function, at)
    assert here[0] == away[0], (here[1], away[1])
    assert torch.equal(here[2], away[2])
    assert copies


def test_what_was_changed_since_is_judged_as_it_was_read(monkeypatch):
    monkeypatch.setattr("clarke.capture.home.is_away", lambda t: t.device.type == "cpu")
    w = torch.zeros(3, requires_grad=True)
    with clarke.audit() as audit:
        y = torch.relu(w).sum()  # autograd saves the result alone
        with torch.no_grad():
            w.add_(1)
        y.backward()
    assert audit.steps[0].verdict is clarke.Verdict.BOULIGAND
    assert not w.grad.any()
