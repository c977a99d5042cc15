"""Peak memory of training steps: `python benchmarks/memory.py vgg11 --batch 128 [--audited]`.

Prints one number, in MB: the peak of this process over a few steps, less what it held before the
first. `run.py` starts it once plain and once audited, since a process has one peak only.
"""

from __future__ import annotations

import argparse
import contextlib
import resource
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from clarke import audit
from clarke.experiments.models import resnet18, vgg11, vgg11_bn

NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "vgg11": vgg11,
    "vgg11-bn": vgg11_bn,
    "resnet18": resnet18,
}
_STEPS = 3


def megabytes() -> float:
    """The peak so far.

    On Linux getrusage counts what the parent held when it started this process, too; the kernel's
    own status does not. On macOS getrusage counts in bytes, elsewhere in kilobytes.
    """
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / (1 << 10)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)


def main() -> None:
    """Train and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("network", choices=[*NETWORKS])
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--audited", action="store_true")
    given = parser.parse_args()
    torch.manual_seed(0)
    net = NETWORKS[given.network]()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
    # Every pixel twice in both directions: many windows tie, most of them between equal patches.
    images = (16 * torch.rand(given.batch, 3, 16, 16)).round() / 8 - 1
    images = images.repeat_interleave(2, 2).repeat_interleave(2, 3)
    labels = torch.arange(given.batch) % 10
    before = megabytes()
    with audit() if given.audited else contextlib.nullcontext():
        for _ in range(_STEPS):
            optimizer.zero_grad()
            cross_entropy(net(images), labels).backward()
            optimizer.step()
    print(f"{megabytes() - before:.1f}")


if __name__ == "__main__":
    main()
