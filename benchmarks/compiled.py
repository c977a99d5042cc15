"""What an audit adds to the steps of compiled programs: those that it judges, and the others.

``python benchmarks/compiled.py [BACKEND] [BLOCKS]``, by default ``inductor 20``. Blocks of steps
without and with an audit take turns, on one thread (clarke compiles loops of its own on another);
given are medians of the processor time of a step, and of the ratios of neighbouring blocks.
"""

from __future__ import annotations

import sys
import time
import warnings
from statistics import median
from typing import TYPE_CHECKING

import torch
from torch import nn

import clarke

if TYPE_CHECKING:
    from collections.abc import Callable

_STEPS = 30  # of a block
_JUDGED = 6


def perceptron(backend: str) -> Callable[[], None]:
    """Three layers, batches of 128, the loss outside of what is compiled."""
    net = nn.Sequential(
        *(nn.Linear(256, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10))
    )
    x, y = torch.randn(128, 256), torch.randint(0, 10, (128,))
    return _training(net, lambda run: nn.functional.cross_entropy(run(x), y), backend)


def transformer(backend: str) -> Callable[[], None]:
    """Two layers of an encoder, 8 sequences of 32 vectors of 64 numbers."""
    layer = nn.TransformerEncoderLayer(64, 4, 128, dropout=0.0, batch_first=True)
    net = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    x = torch.randn(8, 32, 64)
    return _training(net, lambda run: run(x).square().mean(), backend)


def convolutions(backend: str) -> Callable[[], None]:
    """Two convolutions with BatchNorm and pooling, 32 images of 16 x 16."""
    net = nn.Sequential(
        *(nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(512, 10)),
    )
    x, y = torch.randn(32, 3, 16, 16), torch.randint(0, 10, (32,))
    return _training(net, lambda run: nn.functional.cross_entropy(run(x), y), backend)


def _training(
    net: nn.Module, loss: Callable[[Callable[..., torch.Tensor]], torch.Tensor], backend: str
) -> Callable[[], None]:
    run = torch.compile(net, backend=backend)
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3)

    def step() -> None:
        optimizer.zero_grad()
        loss(run).backward()
        optimizer.step()

    for _ in range(3):
        step()
    return step


def _time(step: Callable[[], None], steps: int) -> float:
    started = time.thread_time()
    for _ in range(steps):
        step()
    return (time.thread_time() - started) / steps * 1e3


def _measured(step: Callable[[], None], blocks: int) -> tuple[list[float], list[float]]:
    """Milliseconds of a step without an audit, and in one that leaves it out, block by block."""
    plain, left_out = [], []
    for _ in range(blocks):
        plain.append(_time(step, _STEPS))
        with clarke.audit(every=10**6, on_wrong=lambda _: None):
            step()  # the one that is judged
            left_out.append(_time(step, _STEPS))
    return plain, left_out


def main(backend: str = "inductor", blocks: int = 20) -> None:
    """Print a table."""
    warnings.simplefilter("ignore")
    print(f"| backend {backend} | plain | not judged | ratio | judged | ratio | verdicts |")
    print("|---|---|---|---|---|---|---|")
    torch.set_num_threads(1)
    for make in (perceptron, transformer, convolutions):
        torch.manual_seed(0)
        step = make(backend)
        plain, left_out = _measured(step, blocks)
        ratio = median(b / a for a, b in zip(plain, left_out, strict=True))
        with clarke.audit(seconds=None, on_wrong=lambda _: None) as watching:
            step()
            judged = _time(step, _JUDGED)
        found = sorted({s.verdict.name for s in watching.steps if s.verdict is not None})
        base = median(plain)
        print(
            f"| {make.__name__} | {base:.2f} ms | {median(left_out):.2f} ms | {ratio:.3f} "
            f"| {judged:.1f} ms | {judged / base:.1f} | {', '.join(found)} |"
        )


if __name__ == "__main__":
    main(*sys.argv[1:2], *map(int, sys.argv[2:3]))
