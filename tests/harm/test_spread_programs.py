"""Programs on tensors that are spread over processes: unchanged, and each operator named.

Tensor parallel layers, losses that are computed of sharded parameters, clipping, FSDP1, optimizers
that hold parts of the state.
"""

from contextlib import nullcontext
from functools import partial

import pytest
import torch
import torch.distributed as dist
from torch import nn

from .test_joint_verdicts import (
    POST,
    audited,
    pytestmark,  # noqa: F401 - as there
    serve,
    told,
    told_by_both,
)

STEPS = 2


def mlp():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))


def mesh():
    from torch.distributed.device_mesh import init_device_mesh

    return init_device_mesh("cpu", (dist.get_world_size(),))


def tensor_parallel():
    from torch.distributed.tensor.parallel import (
        ColwiseParallel,
        RowwiseParallel,
        parallelize_module,
    )

    return parallelize_module(mlp(), mesh(), {"0": ColwiseParallel(), "2": RowwiseParallel()})


def distributed_loss(net):
    """The whole network computes with DTensors, and so does its loss."""
    from torch.distributed.tensor import Shard, distribute_tensor

    def loss(x):
        return net(distribute_tensor(x, mesh(), [Shard(0)])).square().mean()

    return loss


def distributed():
    from torch.distributed.tensor import distribute_module

    return distribute_module(mlp(), mesh())


def fully_sharded():
    from torch.distributed.fsdp import fully_shard

    net = mlp()
    for part in (net[0], net[2], net):
        fully_shard(part, mesh=mesh())
    return net


def penalized(net):
    """A loss of the sharded parameters themselves, as weight decay is written by hand."""

    def loss(x):
        decay = sum(p.square().sum() for p in net.parameters())
        return net(x).square().mean() + 0.01 * decay.full_tensor()

    return loss


def flat():
    from torch.distributed.fsdp import FullyShardedDataParallel

    return FullyShardedDataParallel(mlp(), device_id=torch.device("cpu"))


def replicated():
    return nn.parallel.DistributedDataParallel(mlp())


def in_parts(parameters):
    from torch.distributed.optim import ZeroRedundancyOptimizer

    return ZeroRedundancyOptimizer(parameters, torch.optim.SGD, lr=0.1)


def whole(parameters):
    return torch.optim.SGD(parameters, lr=0.1)


def plainly(net):
    return lambda x: net(x).square().mean()


# By name: the model, its loss, the optimizer, whether it clips, whether all have the same batch.
KINDS = {
    "tensor parallel": (tensor_parallel, plainly, whole, False, True),
    "distributed loss": (distributed, distributed_loss, whole, False, True),
    "penalized": (fully_sharded, penalized, whole, False, False),
    "clipped": (fully_sharded, plainly, whole, True, False),
    "flat": (flat, plainly, whole, False, False),
    "optimizer in parts": (replicated, plainly, in_parts, True, False),
}


def train(kind, audit):
    make, loss_of, optimizer, clips, same = KINDS[kind]
    net = make()
    loss, opt = loss_of(net), optimizer(net.parameters())
    torch.manual_seed(0 if same else dist.get_rank())
    losses = []
    with audit:
        for _ in range(STEPS):
            opt.zero_grad()
            value = loss(torch.randn(4, 4))
            value.backward()
            if clips:
                nn.utils.clip_grad_norm_(net.parameters(), 0.5)
            opt.step()
            losses.append(value.detach())
        with torch.no_grad():
            losses.append(net(torch.ones(2, 4)).sum() if kind != "distributed loss" else value)
    found = [*losses, *(p.detach() for p in net.parameters())]
    return [f.to_local() if hasattr(f, "to_local") else f for f in found]


def compared(kind):
    """Whether an audit changes nothing, and what it says."""
    try:
        bare = train(kind, nullcontext())
        audit = audited()
        seen = train(kind, audit)
        return all(torch.equal(a, b) for a, b in zip(bare, seen, strict=True)), told(audit)[0]
    except Exception as error:  # noqa: BLE001 - shown by the test
        return repr(error), []


def work(kinds, rank, port, queue):
    serve({k: partial(compared, k) for k in kinds}, rank, port, queue, post=POST, wait=60)


@pytest.fixture(scope="module")
def found():
    return told_by_both(work, SOME)


@pytest.fixture(scope="module")
def all_found():
    return told_by_both(work, tuple(KINDS))


SOME = ("tensor parallel", "penalized")


# What is said of each step; of what is not followed, with words of it.
SAID = {
    "tensor parallel": ("UNDECIDED", "DTensor"),
    "distributed loss": ("UNDECIDED", "DTensor"),
    "penalized": ("UNDECIDED", "DTensor"),
    "clipped": ("SMOOTH", ""),
    "flat": ("UNDECIDED", "Several processes train together"),
    "optimizer in parts": ("SMOOTH", ""),
}


def nothing_changes_and_one_thing_is_said(kind, same, steps):
    verdict, words = SAID[kind]
    assert same is True
    assert [v for v, _, _ in steps] == [verdict] * STEPS
    assert all(words in why for _, _, why in steps)


@pytest.mark.parametrize("kind", SOME)
@pytest.mark.parametrize("rank", [0, 1])
def test_some(found, kind, rank):
    nothing_changes_and_one_thing_is_said(kind, *found[kind][rank])


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rank", [0, 1])
def test_all(all_found, kind, rank):
    nothing_changes_and_one_thing_is_said(kind, *all_found[kind][rank])


def test_an_operation_is_named_with_its_place(found):
    _, steps = found["tensor parallel"][0]
    assert "first aten::t.default at 0 (" in steps[0][2]
    assert "test_spread_programs.py" in steps[0][2]
