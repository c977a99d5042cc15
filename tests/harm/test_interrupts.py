"""KeyboardInterrupt at any moment: nothing of clarke's stays behind, and forward mode works on."""

import gc
import random
import signal
import sys
from contextlib import nullcontext

import pytest
import torch
import torch.autograd.forward_ad as fwd
from torch import nn

import clarke
from clarke.torch_private import forward_mode, make_dual
from reference.interrupts import forward_mode_works, state

pytestmark = pytest.mark.skipif(
    not hasattr(signal, "setitimer"), reason="this system has no timer that interrupts"
)


class Timer:
    """Interrupts what runs inside once, after a random time."""

    def __init__(self, seed):
        self._generator = random.Random(seed)  # noqa: S311 - no secret
        self._armed = False

    def __enter__(self):
        self._before = signal.signal(signal.SIGALRM, self._strike)
        return self

    def __exit__(self, *exc):
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, self._before)

    def _strike(self, *_):
        if self._armed:
            self._armed = False
            raise KeyboardInterrupt

    def interrupts(self, function, longest):
        """Whether the function was interrupted."""
        try:
            self._armed = True
            signal.setitimer(signal.ITIMER_REAL, self._generator.uniform(1e-6, longest))
            function()
        except KeyboardInterrupt as error:
            self.error = error  # its frames stay, as in an interactive session
            return True
        finally:
            self._armed = False
        return False


def hit(timer, function, longest, times):
    count = 0
    for _ in range(10 * times):
        before = state()
        count += timer.interrupts(function, longest)
        assert state() == before
        forward_mode_works()
        if count == times:
            return
    # A call that is quicker than the timer thinks is struck less often.
    assert count, "the timer never struck"


def level():
    x = torch.ones(2)
    for _ in range(5):
        with forward_mode():
            make_dual(x, x)


def test_forward_mode_at_every_step():
    with Timer(0) as timer:
        hit(timer, level, 300e-6, 400)


def test_forward_mode_whose_frames_somebody_keeps():
    """What runs at a collection of garbage sees the frames, keeps them, and so their variables."""
    kept = []

    def look(phase, info):
        kept.append(sys._getframe())

    threshold = gc.get_threshold()
    gc.callbacks.append(look)
    try:
        for allocations in range(1, 60):
            gc.set_threshold(allocations)
            level()
            gc.set_threshold(*threshold)
            forward_mode_works()
    finally:
        gc.callbacks.remove(look)
        gc.set_threshold(*threshold)
    assert {frame.f_back.f_code.co_name for frame in kept} >= {"forward_mode", "_at_end"}


def test_forward_mode_shared_with_the_users():
    x = torch.ones(2)
    with Timer(1) as timer, fwd.dual_level():
        dual = fwd.make_dual(x, x)
        for _ in range(200):
            timer.interrupts(level, 300e-6)
            assert fwd.unpack_dual(2 * dual).tangent.tolist() == [2.0, 2.0]


def kinks(x):
    return (torch.relu(x) - torch.relu(-x) + torch.maximum(x, 0.5 * x)).sum()


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(3, 4), nn.ReLU(), nn.BatchNorm1d(4), nn.Dropout(0.3), nn.Linear(4, 1)
    ).double()


@pytest.mark.parametrize("call", [clarke.check, clarke.grad, clarke.subdifferential])
def test_calls(call):
    x = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    call(kinks, (x,))
    with Timer(2) as timer:
        hit(timer, lambda: call(kinks, (x,)), 0.1, 15)
    assert x.tolist() == [0.0, 0.0]
    assert x.grad is None
    assert clarke.check(kinks, (x,)).verdict is clarke.Verdict.NOT_CLARKE


@pytest.mark.parametrize("what", ["check", "explain"])
def test_modules_and_random_numbers_are_as_before(network, what):
    inputs = torch.zeros(6, 3, dtype=torch.float64)
    calls = {
        "check": lambda: clarke.check(lambda: torch.relu(network(inputs)).sum()),
        "explain": lambda: clarke.explain(network, inputs),
    }
    calls[what]()
    values = {name: value.clone() for name, value in network.state_dict().items()}
    random_state = torch.get_rng_state()
    with Timer(3) as timer:
        hit(timer, calls[what], 0.05, 15)
    assert torch.equal(torch.get_rng_state(), random_state)
    assert all(torch.equal(value, values[name]) for name, value in network.state_dict().items())
    assert all(p.grad is None for p in network.parameters())
    assert network.training


def test_audits(network):
    inputs = torch.zeros(6, 3, dtype=torch.float64)

    def steps(watching):
        with watching:
            for _ in range(2):
                torch.relu(network(inputs)).sum().backward()
                network.zero_grad(set_to_none=True)

    steps(nullcontext())
    with Timer(4) as timer:
        hit(timer, lambda: steps(clarke.audit(on_wrong=lambda _: None)), 0.1, 15)
    assert all(p._backward_hooks is None for p in network.parameters())
