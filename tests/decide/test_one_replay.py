"""Random signs are turned on the way back: any number of them share one replay."""

from itertools import pairwise

import torch

from clarke.capture import Recorder, collect_trace
from clarke.decide.rounding import Rounding
from clarke.kinks import default_registry
from clarke.steering import Program, analyse, selected_gradient


def program_of(f, *inputs):
    registry = default_registry()
    with Recorder(registry.keeps) as recorder:
        out = f(*inputs)
        trace = collect_trace(recorder, out)
    return Program(analyse(trace, registry), [e.slot for e in trace.leaves()])


def test_random_signs_share_one_replay(monkeypatch):
    x = torch.linspace(-1, 1, 6).requires_grad_()
    program = program_of(lambda x: (x * x - 3 * x).sum(), x)
    own = selected_gradient(program)
    runs = []
    run = Program.run
    monkeypatch.setattr(Program, "run", lambda *a, **k: runs.append(k) or run(*a, **k))
    found = list(Rounding(program, own).terms(6))
    assert len(runs) == 1
    assert len(found) == 7
    for one, two in pairwise(found):  # each only adds
        assert bool((two[0] >= one[0]).all())
    # The gradient is x + x - 3, and the signs of these are turned in all ways.
    most = 2 * x.detach().double().abs() + 3
    assert bool((found[-1][0] <= most + 1e-12).all())
    assert bool((found[-1][0] > found[0][0]).any())


def test_turned_signs_leave_terms_of_formulas_as_they_are():
    """Where an operation's own derivative leaves errors, those of one pass are no other's."""
    x = torch.linspace(-1, 1, 8).reshape(2, 4).requires_grad_()
    c = torch.arange(8.0).reshape(2, 4)
    program = program_of(lambda x: (x.softmax(1) * c).sum(), x)
    own = selected_gradient(program)
    most = [t[0] for t in Rounding(program, own).terms(24)]
    s = x.detach().double().softmax(1)
    terms = s * c.abs() + s * (s * c.abs()).sum(1, keepdim=True)
    assert bool((most[-1] <= 4 * terms + 1e-12).all())
