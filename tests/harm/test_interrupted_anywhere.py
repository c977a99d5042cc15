"""An interrupt at any one step of Python's inside a call: nothing is left behind or lost.

`test_interrupts.py` interrupts by a timer, at the moments at which Python really looks. Here every
instruction of clarke's is such a moment, in the same order in every run.
"""

import copy
import os
import random

import pytest
import torch
from torch import nn
from torch.nn import functional

import clarke
from clarke.verdict import Verdict
from reference.interrupts import Steps, forward_mode_works, places, state, stepped

D = torch.float64
# What opens, closes and puts back: here an interrupt does harm, so half of them strike here.
_EDGES = frozenset(
    name
    for line in (
        "__enter__ __exit__ __get__ _add _end _hand_over _leave _looked_at _moved _stack",
        "_waiting add alone arm aside at_the_end call close end forward_mode leave_mode",
        "listen make prepared recover restore run run_call saving_plainly start stop undo",
    )
    for name in line.split()
)


def zero(n=1):
    return torch.zeros(n, dtype=D, requires_grad=True)


class Training:
    """A network with dropout and momentum, hooks of the user's own, and two steps from there."""

    def __init__(self):
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Dropout(0.5), nn.Linear(3, 1))
        self.net.to(D)
        self.optimizer = torch.optim.SGD(self.net.parameters(), lr=0.1, momentum=0.5)
        self.inputs = torch.zeros(4, 2, dtype=D)
        self.seen = []
        for p in self.net.parameters():
            p.register_hook(lambda _: self.seen.append(1))
        self.hooks = [dict(p._backward_hooks) for p in self.net.parameters()]
        self.start = copy.deepcopy((self.net.state_dict(), self.optimizer.state_dict()))

    def reset(self):
        """As at the start; what hooks there are is left as it is."""
        self.net.load_state_dict(self.start[0])
        self.optimizer.load_state_dict(copy.deepcopy(self.start[1]))
        self.optimizer.zero_grad()
        torch.manual_seed(1)

    def steps(self):
        for _ in range(2):
            self.optimizer.zero_grad()
            functional.relu(self.net(self.inputs) - 0.1).sum().backward()
            self.optimizer.step()
        return torch.cat([p.detach().reshape(-1) for p in self.net.parameters()])


def wrong(x):
    return (torch.relu(x) - torch.relu(-x)).sum()


def audited(training, **options):
    def call():
        training.reset()
        with clarke.audit(lambda _: None, **options) as watch:
            training.steps()
        return watch

    return call


def calls(training):
    x = zero()
    proof = clarke.check(wrong, (zero(),)).certificate
    bare = copy.deepcopy(training.net)  # without the user's hooks
    return {
        "check": lambda: clarke.check(lambda x: torch.relu(x).sum(), (x,)),
        "check of a network": lambda: clarke.check(
            lambda: torch.relu(training.net(training.inputs)).sum()
        ),
        "wrong": lambda: clarke.check(wrong, (x,)),
        "grad": lambda: clarke.grad(wrong, (x,)),
        "subdifferential": lambda: clarke.subdifferential(wrong, (x,)).vertices(),
        "explain": lambda: clarke.explain(bare, training.inputs),
        "hunt": lambda: clarke.hunt(wrong, (x,), seconds=0.3),
        "verify": proof.verify,
        "audit": audited(training),
        "audit on the ladder": audited(training, settings=clarke.Settings(quick=False)),
        "audit that confirms": audited(training, confirm_every=1),
    }


def struck_at(seen, count, seed):
    """Numbers of steps: half on the edges, half anywhere; each the first or last of its place."""
    generator = random.Random(seed)  # noqa: S311 - no secret
    edges = [k for k in seen if k[1] in _EDGES or k[3] < 0]
    chosen = [
        *generator.sample(edges, min((count + 1) // 2, len(edges))),
        *generator.sample(list(seen), min(count // 2, len(seen))),
    ]
    return [generator.choice(seen[k]) for k in chosen]


@pytest.fixture(scope="module")
def training():
    return Training()


NAMES = (
    "check",
    "check of a network",
    "wrong",
    "grad",
    "subdifferential",
    "explain",
    "hunt",
    "verify",
    "audit",
    "audit on the ladder",
    "audit that confirms",
)


def interrupt(name, training, count, seed=0):
    call = calls(training)[name]
    training.reset()
    plain = training.steps()
    training.reset()
    call()  # what is loaded on first use is no part of it
    struck = 0
    before = state()
    for number in struck_at(places(call), count, seed):
        training.reset()
        drawn = torch.get_rng_state()
        steps = Steps(number)
        error = stepped(call, steps)
        at = f"{name}: {steps.struck}"
        assert state() == before, at
        if not name.startswith("audit"):
            assert torch.equal(torch.get_rng_state(), drawn), at
        forward_mode_works()
        kept = [dict(p._backward_hooks) for p in training.net.parameters()]
        assert kept == training.hooks, at
        if error is not None:
            struck += 1
            error.__traceback__ = None  # what its frames held is let go
            assert state() == before, f"later, {at}"
        training.reset()
        assert torch.equal(training.steps(), plain), at
    assert state() == before
    report = clarke.check(wrong, (zero(),))
    assert report.verdict is Verdict.NOT_CLARKE
    assert report.certificate.verify()
    watch = audited(training)()
    assert all(s.verdict.correct for s in watch.steps)
    return struck


LONG = ("check of a network", "wrong", "verify", "audit that confirms")


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n in LONG)) for n in NAMES]
)
def test_a_few(name, training):
    assert interrupt(name, training, 12) > 0


@pytest.mark.fuzz
@pytest.mark.parametrize("name", NAMES)
def test_many(name, training):
    count = max(20, int(os.environ.get("CLARKE_FUZZ", "500")) // 5)
    print(interrupt(name, training, count, seed=1), "of", count, "interrupts:", name)  # noqa: T201
