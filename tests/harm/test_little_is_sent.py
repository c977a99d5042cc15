"""Where no kink is touched, processes send a few numbers and no program, however they train."""

import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from clarke.audit.post import Post

from .test_joint_verdicts import (
    audited,
    by_name,
    names_of,
    pytestmark,  # noqa: F401 - as there
    serve,
    told,
    told_by_both,
)
from .test_sharded_verdicts import sharded


def sent_by(wrap):
    """Verdicts of three steps, and the largest number of bytes that one of them sent."""
    torch.manual_seed(0)
    net = wrap(nn.Sequential(nn.Linear(5, 64), nn.ReLU(), nn.Linear(64, 3)))
    sizes, send = [0], Post.send

    def counted(post, name, content):
        sizes[-1] += len(content)
        send(post, name, content)

    Post.send = counted
    try:
        with audited() as audit:
            for _ in range(3):
                net.zero_grad()
                net(torch.randn(4, 5)).square().mean().backward()
                sizes.append(0)
    finally:
        Post.send = send
    return [v for v, *_ in told(audit)[0]], max(sizes)


def replicated():
    return sent_by(DistributedDataParallel)


def unused_parameters_looked_for():
    return sent_by(lambda net: DistributedDataParallel(net, find_unused_parameters=True))


def static_graph():
    return sent_by(lambda net: DistributedDataParallel(net, static_graph=True))


def in_parts():
    return sent_by(sharded)


PROGRAMS = replicated, unused_parameters_looked_for, static_graph, in_parts


def work(names, rank, port, queue):
    serve(by_name(PROGRAMS, names), rank, port, queue, post=30, wait=60)


@pytest.fixture(scope="module")
def found():
    return told_by_both(work, names_of(PROGRAMS))


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda p: p.__name__)
def test_no_program_is_sent(found, program):
    for verdicts, most in found[program.__name__]:
        assert verdicts == ["SMOOTH"] * 3
        assert 0 < most < 400
