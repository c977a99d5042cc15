"""Several processes that train together: bits unchanged, and no verdict of one process's own."""

import os
import socket
from contextlib import nullcontext

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

import clarke

pytestmark = pytest.mark.skipif(
    not (dist.is_available() and dist.is_gloo_available()),
    reason="torch was built without gloo, by which the two processes would speak",
)
STEPS = 3


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def network(kind):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
    with torch.no_grad():
        net[0].bias.zero_()
    if kind == "ddp":
        return nn.parallel.DistributedDataParallel(net)
    if kind == "fsdp2":
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        mesh = init_device_mesh("cpu", (dist.get_world_size(),))
        for module in (net[0], net[2], net):
            fully_shard(module, mesh=mesh)
    return net


def train(kind, rank, watching):
    net = network(kind)
    opt = torch.optim.Adam(net.parameters(), lr=0.05)
    torch.manual_seed(rank)
    with watching:
        for _ in range(STEPS):
            opt.zero_grad()
            inputs = torch.randn(5, 4)
            inputs[0] = 0  # every ReLU stands at a kink
            net(inputs).square().mean().backward()
            if kind == "by hand":
                for p in net.parameters():
                    dist.all_reduce(p.grad)
            opt.step()
    local = [p.to_local() if hasattr(p, "to_local") else p for p in net.parameters()]
    return [p.detach().clone() for p in local]


def work(rank, world, kind, port, queue):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=world)
    plain = train(kind, rank, nullcontext())
    audit = clarke.audit()
    seen = train(kind, rank, audit)
    same = all(torch.equal(a, b) for a, b in zip(plain, seen, strict=True))
    queue.put((same, [(s.verdict.name, s.reason) for s in audit.steps]))
    dist.barrier()
    dist.destroy_process_group()


def run(kind, world):
    context = mp.get_context("spawn")
    queue = context.Queue()
    port = free_port()
    ranks = [context.Process(target=work, args=(r, world, kind, port, queue)) for r in range(world)]
    for process in ranks:
        process.start()
    try:
        found = [queue.get(timeout=120) for _ in ranks]
        for process in ranks:
            process.join(60)
    finally:
        for process in ranks:
            process.kill()
    assert [p.exitcode for p in ranks] == [0] * world
    return found


@pytest.mark.parametrize("kind", ["fsdp2", "ddp", pytest.param("by hand", marks=pytest.mark.slow)])
def test_two_processes(kind):
    for same, steps in run(kind, 2):
        assert same
        if kind != "by hand":  # of all together: test_joint_verdicts.py, test_sharded_verdicts.py
            assert {name for name, _ in steps} <= {"SMOOTH", "BOULIGAND", "CLARKE"}
            continue
        assert [name for name, _ in steps] == ["UNDECIDED"] * STEPS
        reasons = {reason for _, reason in steps}
        assert len(reasons) == 1  # one sentence for the program
        assert "Several processes train together" in reasons.pop()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["fsdp2", "ddp"])
def test_one_process_alone(kind):
    """Nothing is put together, but sharding frees memory all the same."""
    [(same, steps)] = run(kind, 1)
    assert same
    assert len(steps) == STEPS
    assert "NOT_CLARKE" not in {name for name, _ in steps}
