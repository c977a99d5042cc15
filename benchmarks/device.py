"""What an audit costs on an accelerator: plain steps, judged ones, and ones that are left out.

    python benchmarks/device.py

Without an accelerator it says so and measures nothing.
"""

from __future__ import annotations

import statistics
import sys
import time

import torch
from torch import nn

import clarke
from clarke.devices import accelerator

STEPS = 20


def networks() -> dict[str, tuple[nn.Module, tuple[int, ...]]]:
    """What is trained, and the shape of a batch."""
    layer = nn.TransformerEncoderLayer(128, 4, 512, dropout=0.0, batch_first=True)
    return {
        "perceptron": (
            nn.Sequential(nn.Linear(784, 1024), nn.ReLU(), nn.Linear(1024, 10)),
            (512, 784),
        ),
        "convolutions": (
            nn.Sequential(
                nn.Conv2d(3, 32, 3), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2),
                nn.Conv2d(32, 64, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64 * 13 * 13, 10),
            ),
            (128, 3, 32, 32),
        ),
        "transformer": (nn.TransformerEncoder(layer, 4, enable_nested_tensor=False), (32, 64, 128)),
    }  # fmt: skip


def main() -> None:
    """Time each network three ways."""
    device = accelerator()
    if device is None:
        sys.stdout.write("torch finds no accelerator here: nothing was measured.\n")
        return
    wait = torch.accelerator.synchronize
    for name, (made, shape) in networks().items():
        model = made.to(device)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)

        def step() -> float:
            x = torch.randn(shape, device=device)  # noqa: B023 - called at once
            wait()
            started = time.perf_counter()
            optimizer.zero_grad()  # noqa: B023 - as above
            model(x).square().mean().backward()  # noqa: B023 - as above
            optimizer.step()  # noqa: B023 - as above
            wait()
            return 1000 * (time.perf_counter() - started)

        [step() for _ in range(5)]
        plain = statistics.median(step() for _ in range(STEPS))
        with clarke.audit(every=10**6):
            step()
            left_out = statistics.median(step() for _ in range(STEPS))
        with clarke.audit(on_wrong=lambda _: None) as audit:
            judged = statistics.median(step() for _ in range(5))
        verdicts = sorted({s.verdict.name for s in audit.steps if s.verdict is not None})
        sys.stdout.write(
            f"{name} on {device}: plain {plain:.2f} ms, left out {left_out:.2f}, "
            f"judged {judged:.1f} ({', '.join(verdicts)})\n"
        )


if __name__ == "__main__":
    main()
