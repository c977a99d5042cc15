"""Long smooth programs with custom Functions: SMOOTH from a few replays, and wrong where wrong."""

import pytest
import torch
from torch import nn

import clarke
from clarke.steering import Program
from clarke.verdict import Verdict
from reference.functions import square


class _Flow(torch.autograd.Function):
    """Euler's steps whose backward is the adjoint equation, not what autograd would do."""

    @staticmethod
    def forward(ctx, start, rate):
        path = [start]
        for _ in range(30):
            path.append(path[-1] + 0.05 * torch.tanh(path[-1] @ rate))
        ctx.save_for_backward(rate, *path)
        return path[-1]

    @staticmethod
    def backward(ctx, grad):
        rate, *path = ctx.saved_tensors
        total = torch.zeros_like(rate)
        for y in reversed(path[:-1]):
            slope = grad * 0.05 * (1 - torch.tanh(y @ rate) ** 2)
            total += y.t() @ slope
            grad = grad + slope @ rate.t()
        return grad, total


def _deep(layers, factor=1.0):
    own = square(factor)
    torch.manual_seed(0)
    parts = [m for _ in range(layers) for m in (nn.Linear(16, 16), nn.Tanh(), nn.LayerNorm(16))]
    net = nn.Sequential(*parts, nn.Linear(16, 3))
    x = torch.randn(8, 16)
    return list(net.parameters()), lambda: own.apply(net(x)).mean()


def _recurrent(steps, factor=1.0):
    own = square(factor)
    torch.manual_seed(0)
    cell = nn.RNNCell(8, 16)
    x = torch.randn(steps, 4, 8)

    def loss():
        h = torch.zeros(4, 16)
        for t in range(steps):
            h = cell(x[t], h)
        return own.apply(h).mean()

    return list(cell.parameters()), loss


def _solver(_):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 12), nn.SiLU(), nn.Linear(12, 12))
    x = torch.randn(16, 4)
    rate = nn.Parameter(torch.randn(12, 12) * 0.3)
    return [rate, *net.parameters()], lambda: _Flow.apply(net(x), rate).pow(2).mean()


@pytest.fixture
def noisy(monkeypatch):
    """How many replays with random errors there were."""
    runs = []
    run = Program.run

    def counted(self, *args, **kwargs):
        if kwargs.get("errors") is not None:
            runs.append(kwargs["errors"])
        return run(self, *args, **kwargs)

    monkeypatch.setattr(Program, "run", counted)
    return runs


@pytest.mark.parametrize(("make", "size"), [(_deep, 30), (_recurrent, 60), (_solver, 0)])
def test_what_its_own_formulas_explain_needs_no_samples(make, size, noisy):
    parameters, loss = make(size)
    reports = []
    with clarke.audit(seconds=None) as audit:
        audit.subscribe(lambda _, report: reports.append(report))
        loss().backward()
    assert audit.steps[0].verdict is Verdict.SMOOTH
    # Of zeros by structure, as a bias's in front of a norm, signs tell the size.
    assert len(noisy) <= 4
    assert not [e for e in noisy if not e.signs]
    assert all(p.grad is not None for p in parameters)


@pytest.mark.slow
@pytest.mark.parametrize("factor", [1 + 1e-3, 1 - 1e-5, -1.0, 1e-9])
@pytest.mark.parametrize("make", [_deep, _recurrent])
def test_a_backward_that_is_off_is_told(make, factor):
    parameters, loss = make(10, factor)
    with clarke.audit(lambda _: None, seconds=None) as audit:
        loss().backward()
    assert audit.steps[0].verdict is Verdict.NOT_CLARKE
    assert parameters


@pytest.mark.parametrize("off", [1e-2, 1e-4])
def test_one_entry_among_many_that_is_off_is_told(off):
    parameters, loss = _deep(4)
    gradient = [g.clone() for g in torch.autograd.grad(loss(), parameters)]
    gradient[0].view(-1)[gradient[0].abs().argmax()] *= 1 + off
    report = clarke.check(lambda *_: loss(), tuple(parameters), gradient=tuple(gradient))
    assert report.verdict is Verdict.NOT_CLARKE


def test_its_certificate_verifies():
    torch.manual_seed(0)
    net = nn.Sequential(*[m for _ in range(6) for m in (nn.Linear(8, 8), nn.Tanh())])
    x = torch.randn(4, 8)
    report = clarke.check(lambda *_: net(x).pow(2).mean(), tuple(net.parameters()))
    assert report.verdict is Verdict.SMOOTH
    assert report.certificate is not None
    assert report.certificate.verify()
