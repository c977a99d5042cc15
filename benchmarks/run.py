"""Cost of auditing a training step: `python benchmarks/run.py --data FOLDER` (see `make bench`).

Plain and audited steps alternate in one process, on the same augmented batches; medians of both are
compared. With `--data` the images are CIFAR-10's (binary version), else scikit-learn's digits,
enlarged. The audited part is split into

- recording: what watching the forward pass costs, touched ReLUs found (measured by recording
  without judging),
- detection: finding ties (where the codes of all images are at hand, compiled loops compare those
  at the same time),
- relevance: telling ties between equal receptive fields from the others: codes, and comparing them,
- rows: building the linear conditions, without the search for a direction,
- LP: that search.

Then come growth with the batch size and with the share of tied windows, the naive algorithm on
scaled-down networks, and memory.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy

import clarke.fast.judge
import clarke.fast.pools
from clarke import audit
from clarke.capture import Operators, Places, Recorder, collect_trace
from clarke.compiled import Compiled
from clarke.errors import InputError
from clarke.experiments.augment import augment
from clarke.experiments.data import Images, Source, load
from clarke.experiments.models import resnet18, vgg11, vgg11_bn
from clarke.kinks import default_registry

sys.path.insert(0, str(Path(__file__).parent))

NETWORKS: dict[str, tuple[Callable[[], nn.Module], float]] = {
    "vgg11": (vgg11, 1.10),
    "vgg11-bn": (vgg11_bn, 1.10),
    "resnet18": (resnet18, 1.05),
}
Clock = Callable[[], float]
# (module, function, part): the parts are timed where they are called; LP is inside of rows.
PARTS = (
    (clarke.fast.judge, "pool_ties", "detection"),
    (clarke.fast.judge, "codes_at_hand", "relevance"),
    (clarke.fast.judge, "find_rivals", "relevance"),
    (clarke.fast.judge, "settle", "rows"),
    (clarke.fast.pools, "find_witness", "LP"),
)


@contextmanager
def timed_parts(clock: Clock) -> Iterator[dict[str, float]]:
    """Adds up the seconds spent in each of `PARTS`."""
    spent: dict[str, float] = defaultdict(float)
    originals = [(module, name, getattr(module, name)) for module, name, _ in PARTS]

    def wrap(function: Callable[..., Any], part: str) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            started = clock()
            try:
                return function(*args, **kwargs)
            finally:
                spent[part] += clock() - started

        return run

    for (module, name, original), (_, _, part) in zip(originals, PARTS, strict=True):
        setattr(module, name, wrap(original, part))
    try:
        yield spent
    finally:
        for module, name, original in originals:
            setattr(module, name, original)


class Loop:
    """Training steps of one network on augmented batches."""

    def __init__(self, make: Callable[[], nn.Module], images: Images, batch: int) -> None:
        torch.manual_seed(0)
        self.net = make()
        self.optimizer = torch.optim.SGD(self.net.parameters(), lr=0.05, weight_decay=1e-4)
        self.generator = torch.Generator().manual_seed(0)
        self.images = images
        self.batch = batch
        self.places = Places()
        self.operators = Operators(default_registry().keeps)
        self.compiled = Compiled()

    def draw(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The next augmented batch."""
        n = len(self.images.labels)
        indices = torch.randint(0, n, (self.batch,), generator=self.generator)
        return augment(self.images.pixels[indices], self.generator), self.images.labels[indices]

    def step(self, inputs: torch.Tensor, labels: torch.Tensor) -> None:
        """One training step."""
        loss = cross_entropy(self.net(inputs), labels)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()

    def recorded(self, inputs: torch.Tensor, labels: torch.Tensor) -> None:
        """One training step whose forward pass is recorded but not judged."""
        with Recorder(self.operators, places=self.places, compiled=self.compiled) as recorder:
            loss = cross_entropy(self.net(inputs), labels)
            self.optimizer.zero_grad()
            collect_trace(recorder, loss)
            recorder.paused = True
            loss.backward()
            self.optimizer.step()


def seconds(function: Callable[[], object], clock: Clock = time.perf_counter) -> float:
    """Time of one call."""
    started = clock()
    function()
    return clock() - started


def overhead(
    make: Callable[[], nn.Module], images: Images, batch: int, steps: int, clock: Clock
) -> dict[str, float]:
    """Medians, in milliseconds, of plain, recorded and audited steps and of the audit's parts."""
    loop = Loop(make, images, batch)
    plain, recorded, audited = [], [], []
    parts: dict[str, list[float]] = defaultdict(list)
    declined = 0
    with timed_parts(clock) as spent:
        watching = audit()
        for number in range(steps + 3):
            # The order alternates too, so that neither kind always comes first.
            kinds = ["plain", "recorded", "audited"]
            for kind in kinds[number % 3 :] + kinds[: number % 3]:
                batch_ = loop.draw()
                if kind == "plain":
                    plain.append(seconds(lambda b=batch_: loop.step(*b), clock))
                elif kind == "recorded":
                    recorded.append(seconds(lambda b=batch_: loop.recorded(*b), clock))
                else:
                    spent.clear()
                    with watching:
                        audited.append(seconds(lambda b=batch_: loop.step(*b), clock))
                    for part in ("detection", "relevance", "rows", "LP"):
                        parts[part].append(spent.get(part, 0.0))
                    step = watching.steps[-1]
                    declined += step.theorem not in QUICK
    middle = {
        "plain": statistics.median(plain[3:]),
        "audited": statistics.median(audited[3:]),
        "recording": statistics.median(recorded[3:]) - statistics.median(plain[3:]),
        "detection": statistics.median(parts["detection"][3:]),
        "relevance": statistics.median(parts["relevance"][3:]),
        # Most steps have none of these: the mean says what they cost in the long run.
        "rows": statistics.mean(parts["rows"][3:]) - statistics.mean(parts["LP"][3:]),
        "LP": statistics.mean(parts["LP"][3:]),
    }
    found = {k: 1e3 * v for k, v in middle.items()}
    found["ratio"] = found["audited"] / found["plain"]
    found["declined"] = float(declined)
    return found


QUICK = ("no relevant kink", "bias shift (Theorem 6)", "layer-local witness (Theorem 8)")
COLUMNS = ("plain", "audited", "ratio", "recording", "detection", "relevance", "rows", "LP")


def print_row(label: str, found: dict[str, float], note: str = "") -> None:
    """One line of the table."""
    cells = " ".join(f"{found[c]:10.3f}" if c == "ratio" else f"{found[c]:10.2f}" for c in COLUMNS)
    print(f"{label:22s} {cells}  {found['declined']:.0f} {note}", flush=True)


def growth_with_ties(steps: int) -> None:
    """Cost of one judgement of VGG11's first step as the share of tied windows grows."""
    registry = default_registry()
    judge = clarke.fast.judge.QuickJudge(registry, compiled=Compiled())
    print("\nJudging one step of vgg11, batch 128, by share of constant pixels (milliseconds)")
    for share in (0.0, 0.1, 0.3, 0.6, 0.9, 1.0):
        torch.manual_seed(0)
        net = vgg11()
        images = torch.rand(128, 3, 32, 32)
        rows = round(32 * share)
        images[:, :, :rows] = 0.5
        with Recorder(registry.keeps) as recorder:
            loss = cross_entropy(net(images), torch.zeros(128, dtype=torch.int64))
            trace = collect_trace(recorder, loss)
        slots = [e.slot for e in trace.leaves()]
        with torch.no_grad():
            times = [
                seconds(lambda t=trace, s=slots: judge.decide(t, s, None))
                for _ in range(max(3, steps // 4))
            ]
            decision = judge.decide(trace, slots, None)
        ties = sum(c.nonzero or 0 for c in getattr(decision, "counts", ()))
        what = getattr(decision, "theorem", str(decision))
        print(f"  {share:4.0%} constant: {ties:8d} tied, {1e3 * np.median(times):8.2f}  {what}")


def against_the_naive_algorithm(images: Images) -> None:
    """Seconds for the judgement of one step, ours and naively, on scaled-down networks."""
    from naive import Naive

    print("\nOne step, batch 2, VGG11 with 4 to 32 channels: seconds to judge")
    registry = default_registry()
    for name, make in (("vgg11", vgg11), ("vgg11-bn", vgg11_bn)):
        torch.manual_seed(0)
        net = make(shrink=16)
        generator = torch.Generator().manual_seed(0)
        inputs = augment(images.pixels[:2], generator)
        with Recorder(registry.keeps) as recorder:
            loss = cross_entropy(net(inputs), images.labels[:2])
            trace = collect_trace(recorder, loss)
        slots = [e.slot for e in trace.leaves()]
        judge = clarke.fast.judge.QuickJudge(registry)
        with torch.no_grad():
            judge.decide(trace, slots, None)
            ours = seconds(lambda t=trace, s=slots, j=judge: j.decide(t, s, None))
        started = time.perf_counter()
        layers = Naive(net, inputs).layers()
        slow = time.perf_counter() - started
        ties = sum(r.ties for r in layers.values())
        rough = sum(r.absolute for r in layers.values())
        exact = sum(r.relevant for r in layers.values())
        print(
            f"  {name:9s} {ties:5d} ties: ours {ours:.4f}, naive {slow:.1f}; relevant {exact}, "
            f"by an absolute tolerance of 1e-8 {rough}"
        )


def memory(networks: Iterable[str], batch: int) -> None:
    """Peak memory of plain and audited training, each in a process of its own."""
    print(f"\nPeak memory of training steps above that before the first, batch {batch} (MB)")
    script = str(Path(__file__).parent / "memory.py")
    for name in networks:
        peaks = []
        for more in ((), ("--audited",)):
            command = [sys.executable, script, name, "--batch", str(batch), *more]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            peaks.append(float(done.stdout))
        plain, audited = peaks
        print(
            f"  {name:9s} plain {plain:8.0f}, audited {audited:8.0f}, {audited / plain:.2f} times"
        )


def benchmark_images(data: str | None) -> Images:
    """CIFAR-10 from a folder; without one digits, or noise where scikit-learn is missing."""
    if data is not None:
        return load(Source.CIFAR10, data)
    note = "NOTE: no --data with CIFAR-10's binary files (make bench DATA=FOLDER); measured on"
    try:
        found = load(Source.CIFAR10, "digits")
    except InputError:
        generator = torch.Generator().manual_seed(0)
        pixels = torch.randint(0, 256, (512, 3, 32, 32), generator=generator).to(torch.uint8)
        found = Images(pixels, torch.arange(512) % 10, "random pixels")
    print(f"{note} {found.name}, which tie more or less often than photos do.")
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", help="folder with CIFAR-10 binary files, or digits")
    parser.add_argument("--steps", type=int, default=12, help="measured steps of each kind")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--network", choices=[*NETWORKS, "all"], default="all")
    parser.add_argument(
        "--cpu-time",
        action="store_true",
        help="count processor time of all threads instead of wall time: for a busy machine",
    )
    parser.add_argument("--only-overhead", action="store_true", help="leave out the rest")
    given = parser.parse_args()
    images = benchmark_images(given.data)
    clock = time.process_time if given.cpu_time else time.perf_counter
    print(f"{'Processor' if given.cpu_time else 'Wall'} time,", end=" ")
    loops = "numba" if Compiled().can_take(1 << 30) else "no numba"
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {images.name}, {loops}")
    print("Milliseconds per step; the last number: steps that took the whole ladder.")
    print(f"{'':22s} " + " ".join(f"{c:>10s}" for c in COLUMNS))
    chosen = NETWORKS if given.network == "all" else {given.network: NETWORKS[given.network]}
    for name, (make, goal) in chosen.items():
        found = overhead(make, images, given.batch, given.steps, clock)
        print_row(f"{name}, batch {given.batch}", found, f"(to reach: {goal:.2f})")
    if given.only_overhead:
        return
    for batch in (32, 64, 256):
        found = overhead(vgg11, images, batch, max(3, given.steps // 2), clock)
        print_row(f"vgg11, batch {batch}", found)
    growth_with_ties(given.steps)
    against_the_naive_algorithm(images)
    memory(chosen, given.batch)


if __name__ == "__main__":
    main()
