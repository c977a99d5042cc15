"""The paper's networks, made small, on two ranks: every step decided, by one verdict of both."""

import importlib
import warnings
from functools import partial

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from clarke.experiments.models import Activation, fnn, resnet18, vgg11, vgg11_bn

from .test_joint_verdicts import (
    POST,
    audited,
    pytestmark,  # noqa: F401 - as there
    serve,
    told_by_both,
)


def digits(size):
    """Pictures with empty borders, where kinks are touched; others on each rank."""
    data = importlib.import_module("sklearn.datasets").load_digits()
    first = dist.get_rank() * size * STEPS
    x = torch.tensor(data.images[first : first + size * STEPS], dtype=torch.float32) / 16
    y = torch.tensor(data.target[first : first + size * STEPS])
    return x[:, None].split(size), y.split(size)


STEPS = 3


def enlarged(x, to):
    return nn.functional.pad(nn.functional.interpolate(x, to // 2), [to // 4] * 4)


NETWORKS = {
    "fnn-relu6": (lambda: fnn(Activation.RELU6, inputs=64, hidden=(24, 12)), 8),
    "fnn-hardtanh": (lambda: fnn(Activation.HARDTANH, inputs=64, hidden=(24, 12)), 8),
    "fnn-hardsigmoid": (lambda: fnn(Activation.HARDSIGMOID, inputs=64, hidden=(24, 12)), 8),
    "vgg11": (lambda: vgg11(shrink=32, channels=1), 32),
    "vgg11-bn": (lambda: vgg11_bn(shrink=32, channels=1), 32),
    "resnet18": (lambda: resnet18(width=4, channels=1), 32),
}


def trained(name):
    make, side = NETWORKS[name]
    torch.manual_seed(0)
    model = DistributedDataParallel(make())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    with warnings.catch_warnings(), audited(on_wrong=lambda _: None) as audit:
        warnings.simplefilter("ignore")
        for x, y in zip(*digits(6), strict=True):
            pictures = x if side == 8 else enlarged(x, side)
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(pictures), y).backward()
            optimizer.step()
    steps = [(s.verdict.name, s.reason if s.correct is None else "") for s in audit.steps]
    places = [(p.operation, p.module, p.touched) for p in audit.summary().places if p.touched]
    return steps, places, [s.seconds for s in audit.steps]


def work(names, rank, port, queue):
    serve({n: partial(trained, n) for n in names}, rank, port, queue, post=POST, wait=60)


@pytest.fixture(scope="module")
def found():
    return told_by_both(work, list(NETWORKS))


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_every_step_is_decided(found, name):
    first, second = found[name]
    assert first[0] == second[0]
    assert [reason for _, reason in first[0]] == [""] * STEPS
    assert {verdict for verdict, _ in first[0]} <= {"SMOOTH", "BOULIGAND", "CLARKE", "NOT_CLARKE"}
