"""`clarke.grad` beside `torch.autograd.grad` on ResNet18: `python benchmarks/grad.py`.

One forward and one gradient of the cross-entropy for a batch of images with flat regions, so that
maxima tie. The calls take turns; medians are compared. The figure to reach is a ratio of 2.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import nn

import clarke
from clarke.experiments.models import resnet18


def images(batch: int, generator: torch.Generator) -> torch.Tensor:
    """Random 32 x 32 images of 4 x 4 blocks, a third of them black: equal patches everywhere."""
    blocks = torch.rand(batch, 3, 8, 8, generator=generator)
    blocks = blocks * (torch.rand(batch, 1, 8, 8, generator=generator) > 1 / 3)
    return blocks.repeat_interleave(4, -1).repeat_interleave(4, -2)


def seconds(call: Callable[[], object]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    model = resnet18(width=options.width)
    x = images(options.batch, generator)
    y = torch.randint(0, 10, (options.batch,), generator=generator)
    parameters = list(model.parameters())

    def loss() -> torch.Tensor:
        return nn.functional.cross_entropy(model(x), y)

    def plain() -> object:
        return torch.autograd.grad(loss(), parameters)

    def ours() -> object:
        return clarke.grad(loss, wrt=parameters)

    def along() -> object:
        return clarke.grad(loss, wrt=parameters, generator=torch.Generator().manual_seed(0))

    calls = {"torch": plain, "clarke": ours, "direction": along}
    times: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(options.repeats + 1):
        for name, call in calls.items():
            taken = seconds(call)
            if turn:  # the first warms up
                times[name].append(taken)
    base, own, slow = (statistics.median(t) for t in times.values())
    out, _ = nn.functional.max_pool2d(
        torch.relu(model.bn1(model.conv1(x))), 3, 2, 1, return_indices=True
    )
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, batch {options.batch}")
    print(f"maxpool outputs: {out.numel()}, of value zero: {int((out == 0).sum())}")
    print(f"forward and torch.autograd.grad: {base:.2f} s")
    print(f"clarke.grad:                     {own:.2f} s, {own / base:.2f} times as long")
    print(f"with a random direction:         {slow:.2f} s, {slow / base:.2f} times as long")


if __name__ == "__main__":
    main()
