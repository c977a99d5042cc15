"""The paper's networks, made small, on two ranks: every step decided, by one verdict of both."""

import importlib
import os
import warnings
from datetime import timedelta
from functools import partial

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from clarke.experiments.models import Activation, fnn, resnet18, vgg11, vgg11_bn

from .test_joint_verdicts import (
    answer,
    audited,
    pair_of,
    plain,
    pytestmark,  # noqa: F401 - as there
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
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=2)
    for name in names:
        try:
            result = plain(trained(name))
        except Exception as error:  # noqa: BLE001 - shown by the test
            result = repr(error)
        queue.put((rank, name, result))
        dist.monitored_barrier(timeout=timedelta(seconds=60))
    dist.destroy_process_group()


def told_by_both(names):
    with pair_of(partial(work, names)) as (ranks, queue):
        found = {(r, n): f for r, n, f in (answer(ranks, queue) for _ in names for _ in ranks)}
        for process in ranks:
            process.join(60)
    assert [p.exitcode for p in ranks] == [0, 0]
    return {n: (found[0, n], found[1, n]) for n in names}


@pytest.fixture(scope="module")
def found():
    return told_by_both(list(NETWORKS))


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_every_step_is_decided(found, name):
    first, second = found[name]
    assert first[0] == second[0]
    assert [reason for _, reason in first[0]] == [""] * STEPS
    assert {verdict for verdict, _ in first[0]} <= {"SMOOTH", "BOULIGAND", "CLARKE", "NOT_CLARKE"}
