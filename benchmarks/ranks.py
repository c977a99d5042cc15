"""What a joint verdict adds to a step of several processes where no kink is touched.

    python benchmarks/ranks.py [--fsdp] [RANKS ...]

DistributedDataParallel, or FSDP2 with every layer wrapped.

Times one process of each gloo group, plain and audited steps in turn, and counts the bytes that
clarke sends for one step.
"""

from __future__ import annotations

import os
import socket
import statistics
import sys
import time

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

import clarke
from clarke.audit.post import Post

STEPS = 30


def wrapped(net: nn.Sequential, world: int, *, sharded: bool) -> nn.Module:
    """The network as it is trained."""
    if not sharded:
        return DistributedDataParallel(net)
    mesh = init_device_mesh("cpu", (world,))
    for part in (*(m for m in net if isinstance(m, nn.Linear)), net):
        fully_shard(part, mesh=mesh)
    return net


def work(rank: int, world: int, port: int, sharded: bool) -> None:  # noqa: FBT001 - by position
    """One process: alternate plain and audited rounds, then print."""
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=world)
    torch.manual_seed(0)
    layers = (nn.Linear(256, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10))
    net = wrapped(nn.Sequential(*layers), world, sharded=sharded)
    optimizer = torch.optim.SGD(net.parameters(), 0.01)
    torch.manual_seed(rank)
    sent = [0]
    send = Post.send

    def counted(post: Post, name: str, content: bytes) -> None:
        sent[0] += len(name) + len(content)
        send(post, name, content)

    Post.send = counted  # type: ignore[method-assign]

    def step() -> tuple[float, float]:
        inputs, labels = torch.randn(128, 256), torch.randint(10, (128,))
        started, used = time.perf_counter(), time.process_time()
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(inputs), labels).backward()
        optimizer.step()
        return time.perf_counter() - started, time.process_time() - used

    times: tuple[list[tuple[float, float]], list[tuple[float, float]]] = ([], [])
    for _ in range(5):
        step()
    for _ in range(5):
        times[0].extend(step() for _ in range(STEPS // 5))
        with clarke.audit(seconds=30) as audit:
            step()
            sent[0] = 0
            times[1].extend(step() for _ in range(STEPS // 5))
        smooth = all(s.verdict is clarke.Verdict.SMOOTH for s in audit.steps)
        if not smooth:
            raise SystemExit(f"a step was not smooth: {[s.reason for s in audit.steps]}")
    if rank <= 1:
        (plain, plain_cpu), (audited, audited_cpu) = (
            [1000 * statistics.median(column) for column in zip(*t, strict=True)] for t in times
        )
        print(
            f"{world} ranks, rank {rank}: plain {plain:.1f} ms ({plain_cpu:.1f} of the processor), "
            f"audited {audited:.1f} ({audited_cpu:.1f}), "
            f"{sent[0] // (STEPS // 5)} bytes sent a step",
            flush=True,
        )
    dist.barrier()
    dist.destroy_process_group()


def main() -> None:
    """Run each size of group."""
    sharded = "--fsdp" in sys.argv
    for world in [int(a) for a in sys.argv[1:] if a != "--fsdp"] or [2, 4]:
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            port = s.getsockname()[1]
        mp.spawn(work, args=(world, port, sharded), nprocs=world)


if __name__ == "__main__":
    main()
