"""What `clarke.audit(only_nonfinite=True)` adds to a step, beside torch's `detect_anomaly`.

`python benchmarks/only_nonfinite.py`; the processor's seconds of interleaved rounds, one thread.
"""

from __future__ import annotations

import contextlib
import time
import warnings
from statistics import median
from typing import Any

import torch
from torch import nn

import clarke

ROUNDS = 15


def perceptron(width: int) -> tuple[nn.Module, torch.Tensor]:
    """Three linear layers, and a batch as large as they are wide."""
    layers = (nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU())
    return nn.Sequential(*layers, nn.Linear(width, 10)), torch.randn(width, width)


def stepper(model: nn.Module, x: torch.Tensor) -> Any:
    """A function that makes one step."""
    optimizer, target = torch.optim.SGD(model.parameters(), lr=1e-3), torch.arange(len(x)) % 10

    def step() -> None:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), target).backward()
        optimizer.step()

    return step


def timed(step: Any, around: Any, steps: int) -> float:
    """Seconds of a step, after one that is not counted."""
    with around:
        step()
        began = time.thread_time()
        for _ in range(steps):
            step()
        return (time.thread_time() - began) / steps


def main() -> None:
    """Print the table."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    for width in (32, 128, 256, 512):
        step = stepper(*perceptron(width))
        rounds = [
            (
                timed(step, contextlib.nullcontext(), 30),
                timed(step, clarke.audit(only_nonfinite=True), 30),
                timed(step, torch.autograd.detect_anomaly(), 10),
            )
            for _ in range(ROUNDS)
        ]
        plain, ours, theirs = (median(t) for t in zip(*rounds, strict=True))
        print(
            f"step of {plain * 1e3:.1f} ms: only_nonfinite {ours / plain:.2f}, "
            f"detect_anomaly {theirs / plain:.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
