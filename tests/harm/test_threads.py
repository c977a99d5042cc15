"""clarke, training and the user's own forward mode in several threads at once."""

import threading
import time

import pytest
import torch
import torch.autograd.forward_ad as fwd
import torch.nn.modules.module as torch_module
from torch import nn

import clarke
from clarke import Verdict
from clarke.torch_private import forward_mode, make_dual, unpack_dual

SECONDS = 4.0


def checks(_stop):
    for _ in range(2):
        x = torch.zeros(2, dtype=torch.float64, requires_grad=True)
        found = clarke.check(lambda x: (torch.relu(x) - torch.relu(-x)).sum(), (x,))
        assert found.verdict is Verdict.NOT_CLARKE
        assert clarke.check(lambda x: torch.relu(x).sum(), (x,)).verdict is Verdict.BOULIGAND


def sets(_stop):
    x = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    assert len(clarke.subdifferential(lambda x: x.abs().sum(), (x,)).vertices()) == 4


def train():
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1))
    with torch.no_grad():
        for i, p in enumerate(net.parameters()):
            p.copy_(torch.linspace(-1, 1, p.numel()).reshape(p.shape) + i)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        net(torch.ones(2, 3)).square().mean().backward()
        optimizer.step()
    return torch.cat([p.detach().reshape(-1) for p in net.parameters()])


def trains(stop):
    while not stop.is_set():
        assert torch.equal(train(), WANTED)


WANTED = train()


def audits(_stop):
    for _ in range(3):
        with clarke.audit() as watching:
            assert torch.equal(train(), WANTED)
        assert all(s.verdict.correct for s in watching.steps)


def duals(stop):
    x = torch.ones(3)
    while not stop.is_set():
        with fwd.dual_level():
            dual = fwd.make_dual(x, x)
            slope = fwd.unpack_dual(dual.sin() * dual).tangent
        assert torch.equal(slope, x.cos() * x + x.sin())


def transforms(stop):
    x = torch.ones(3)
    while not stop.is_set():
        assert torch.equal(torch.func.jvp(torch.sin, (x,), (x,))[1], x.cos())


def reads(stop):
    while not stop.is_set():
        assert torch.ones(3).numpy().sum() == 3
        assert torch.ones(3).tolist() == [1.0] * 3


def at_once(*jobs):
    stop, failures = threading.Event(), []

    def run(job):
        try:
            while not stop.is_set():
                job(stop)
        except BaseException as error:  # noqa: BLE001 - told by the test's own thread
            failures.append((job.__name__, error))

    threads = [threading.Thread(target=run, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    stop.wait(SECONDS)
    stop.set()
    for thread in threads:
        thread.join(60)
    assert not any(t.is_alive() for t in threads)
    assert failures == []
    assert "numpy" not in torch.Tensor.__dict__
    assert not torch_module._global_forward_hooks


def test_eight_threads():
    at_once(checks, checks, sets, audits, trains, trains, duals, reads)


@pytest.mark.slow
def test_beside_transforms():
    # torch's own counter of nested transforms is the same for all threads: one of them only.
    at_once(checks, checks, checks, transforms, trains)


def test_the_users_level_is_shared_in_the_same_thread():
    x = torch.ones(2)
    with fwd.dual_level():
        dual = fwd.make_dual(x, x)
        y = torch.zeros(2, dtype=torch.float64, requires_grad=True)
        assert clarke.check(lambda y: torch.relu(y).sum(), (y,)).verdict is Verdict.BOULIGAND
        assert fwd.unpack_dual(3 * dual).tangent.tolist() == [3.0, 3.0]


def test_a_thread_that_closes_its_level_waits_for_clarke():
    opened, close, closed = threading.Event(), threading.Event(), threading.Event()

    def user():
        with fwd.dual_level():
            opened.set()
            close.wait(10)
        closed.set()

    thread = threading.Thread(target=user)
    thread.start()
    assert opened.wait(10)
    x = torch.ones(2)
    with forward_mode():
        dual = make_dual(x, x)
        close.set()
        time.sleep(0.2)
        assert not closed.is_set()
        assert unpack_dual(2 * dual)[1].tolist() == [2.0, 2.0]
    thread.join(10)
    assert closed.is_set()
