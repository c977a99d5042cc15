"""What `clarke run` costs on top of `clarke.audit`: writing each step into the run folder.

    python benchmarks/recording.py [--steps 60]

Trains a small convolutional network under an audit that is recorded, and compares the time that
recording took with the time of the whole audited loop, so that both come from the same run.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch
from torch import nn

import clarke
from clarke.integrations.recording import step_record
from clarke.report.runs import RunWriter, read_run


def main() -> None:
    """Print one line of figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=60)
    steps = parser.parse_args().steps
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(32 * 8 * 8, 64), nn.ReLU(), nn.Linear(64, 10),
    )  # fmt: skip
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    data = torch.rand(32, 3, 32, 32).mul(8).round().div(8)  # repeated values, as in images
    labels = torch.randint(0, 10, (32,))
    written: list[float] = []
    whole: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        writer = RunWriter(Path(folder) / "run", {})

        def write(step: clarke.Step, report: clarke.Report | None) -> None:
            started = time.perf_counter()
            writer.write(step_record(step, report))
            written.append(time.perf_counter() - started)

        with clarke.audit() as audit:
            audit.subscribe(write)
            for _ in range(steps):
                started = time.perf_counter()
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(data), labels).backward()
                optimizer.step()
                whole.append(time.perf_counter() - started)
        size = (Path(folder) / "run" / "steps.jsonl").stat().st_size
        kinks = statistics.mean(len(s.kinks) for s in read_run(Path(folder) / "run").steps)
    step, record = statistics.median(whole), statistics.median(written)
    print(
        f"audited step {1e3 * step:.2f} ms, recording {1e6 * record:.0f} us "
        f"({100 * record / step:.2f} %), {kinks:.1f} places with kinks and "
        f"{size / steps:.0f} bytes a step; medians of {steps} steps"
    )


if __name__ == "__main__":
    main()
