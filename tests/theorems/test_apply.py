"""The bias shift at one point: used by `check` where many kinks are relevant, and confirmed."""

import pytest
import torch
from torch import nn

import clarke
from clarke.capture import Recorder, collect_trace
from clarke.check import check
from clarke.constraints import find_relevant
from clarke.kinks import default_registry
from clarke.steering import Program, analyse
from clarke.theorems import bias_shift
from clarke.verdict import Verdict


def prepared(loss):
    registry = default_registry()
    recorder = Recorder(registry.keeps)
    with recorder:
        trace = collect_trace(recorder, loss())
    program = Program(analyse(trace, registry), [e.slot for e in trace.leaves()])
    relevance = find_relevant(program, torch.Generator().manual_seed(0))
    return program, relevance.relevant


def flat_net(width, depth, activation=nn.ReLU, *, bias=True):
    """All biases zero and all inputs zero: every kink of the first layers is touched."""
    layers = []
    for _ in range(depth):
        layers += [nn.Linear(width, width, bias=bias), activation()]
    net = nn.Sequential(*layers, nn.Linear(width, 1)).double()
    with torch.no_grad():
        for p in net.parameters():
            if p.dim() == 1:
                p.zero_()
    return net


@pytest.mark.parametrize(("samples", "depth"), [(1, 1), (5, 1), (3, 2)])
def test_every_row_is_positive_and_the_direction_moves_biases_only(samples, depth):
    net = flat_net(6, depth, nn.LeakyReLU)
    x = torch.zeros(samples, 6, dtype=torch.float64)
    program, relevant = prepared(lambda: net(x).sum())
    assert int(relevant.sum()) == samples * 6 * depth
    found = bias_shift(program, default_registry(), relevant)
    assert found is not None
    assert found.rows.numel() == samples * 6 * depth
    assert bool((found.rows > 0).all())
    for d, p in zip(found.direction, program.point, strict=True):
        assert p.dim() == 1 or not d.any()


def test_no_shift_where_the_same_entry_would_have_to_go_both_ways():
    b = torch.zeros(4, dtype=torch.float64, requires_grad=True)

    def loss():
        return (torch.relu(b) - torch.relu(-b)).sum()

    program, relevant = prepared(loss)
    assert int(relevant.sum()) == 8
    assert bias_shift(program, default_registry(), relevant) is None


def test_no_shift_without_biases_and_for_ties():
    x = torch.zeros(2, 4, dtype=torch.float64)
    net = flat_net(4, 1, bias=False)
    assert check(lambda: net(x).sum()).correct
    w = torch.zeros(4, dtype=torch.float64, requires_grad=True)

    def largest():
        return 1.0 * w.max()

    program, relevant = prepared(largest)
    assert bool(relevant.any())
    assert bias_shift(program, default_registry(), relevant) is None


def test_check_says_that_it_used_the_shift():
    net = flat_net(64, 1)
    x = torch.zeros(16, 64, dtype=torch.float64)
    report = check(lambda: net(x).sum())
    assert report.verdict is Verdict.BOULIGAND
    assert report.theorem == "bias shift"
    assert report.relevant == 16 * 64
    assert report.certificate.verify()


def test_a_network_under_theorem_6_is_audited_without_rows(monkeypatch):
    """Every kink is touched, at every step; nothing may build or solve rows."""

    def refuse(*arguments, **named):
        raise AssertionError("rows were built")

    monkeypatch.setattr("clarke.decide.search.build_rows", refuse)
    monkeypatch.setattr("clarke.theorems.apply.build_rows", refuse)
    monkeypatch.setattr("clarke.decide.rungs.witness_selection", refuse)
    net = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 2, 3))
    net.append(nn.ReLU())
    x = torch.zeros(2, 1, 8, 8)
    assert clarke.explain(net, x).theorem is clarke.theorems.Theorem.SIX
    with torch.no_grad():
        for p in net.parameters():
            if p.dim() == 1:
                p.zero_()
    with clarke.audit() as audit:
        for _ in range(2):
            (net(x) - 1).pow(2).sum().backward()
            net.zero_grad()
    assert len(audit.reports) == 2
    assert all(step.correct for step in audit.reports)
    assert all(step.touched > 0 for step in audit.reports)
    assert all("Theorem 6" in step.theorem for step in audit.reports)


def test_bounds_that_broadcast_or_move():
    """A clamp's kinks have the shape of its result, and lie where its bound is."""
    x = torch.zeros(5, 1, 10, dtype=torch.float64, requires_grad=True)
    bound = torch.zeros(1, 8, 1, dtype=torch.float64, requires_grad=True)
    factor = torch.arange(400.0, dtype=torch.float64).reshape(5, 8, 10) - 100

    def program():
        return (torch.clamp_max(x, bound) * factor).sum()

    report = clarke.check(program)
    assert report.correct is not False
    assert report.touched == 400
    # Raising x raises the bound twice as much: not the kink's side that raising x alone suggests.
    structure = clarke.explain(lambda b: torch.clamp_max(b, 2 * b).sum(), (bound,))
    assert structure.theorem is None
