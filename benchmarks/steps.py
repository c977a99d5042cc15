"""Cost of an audit on nine kinds of training step: `python benchmarks/steps.py` (see `make bench`).

Plain steps, steps under `detect_anomaly`, under a dispatch mode that does nothing, and audited
ones take turns in one process on one thread, in blocks of a few steps; medians are compared. The
first step of a block, which comes after the audit has been entered again, is not measured.

Added microseconds are the audited step's beyond the plain one's, by operator that a dispatch mode
sees in it (forward, backward and optimizer).

`--memory` measures peaks instead: of torch's tensors in a plain and in an audited step, as its
profiler counts what is allocated and freed, and of what Python holds for the audit.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, mse_loss
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode

from clarke import Verdict, audit

Step = Callable[[], None]
Clock = Callable[[], float]
_BLOCK = 6


class Empty(TorchDispatchMode):
    """Passes every operator on, and counts them."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Run it."""
        self.count += 1
        return func(*args, **(kwargs or {}))


def _training(net: nn.Module, loss: Callable[[], torch.Tensor], rate: float = 1e-2) -> Step:
    optimizer = torch.optim.SGD(net.parameters(), lr=rate)

    def step() -> None:
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()

    return step


def mlp() -> Step:
    """Three linear layers, ReLU, cross entropy."""
    net = nn.Sequential(
        nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10)
    )
    x, y = torch.randn(32, 64), torch.randint(0, 10, (32,))
    return _training(net, lambda: cross_entropy(net(x), y))


def ppo() -> Step:
    """An update of proximal policy optimisation: clamped ratio and values, entropy."""
    actor = nn.Sequential(
        nn.Linear(8, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 4)
    )
    critic = nn.Sequential(nn.Linear(8, 64), nn.Tanh(), nn.Linear(64, 1))
    both = nn.ModuleList([actor, critic])
    optimizer = torch.optim.Adam(both.parameters(), lr=3e-4)
    states, actions = torch.randn(64, 8), torch.randint(0, 4, (64,))
    advantages, returns = torch.randn(64), torch.randn(64)
    with torch.no_grad():
        old = torch.distributions.Categorical(logits=actor(states)).log_prob(actions)
        old = old + 0.1 * torch.randn(64)
        before = critic(states).squeeze(-1) + 0.1 * torch.randn(64)

    def step() -> None:
        policy = torch.distributions.Categorical(logits=actor(states))
        ratio = (policy.log_prob(actions) - old).exp()
        wide = ratio * advantages
        clipped = ratio.clamp(0.8, 1.2) * advantages
        value = critic(states).squeeze(-1)
        near = before + (value - before).clamp(-0.2, 0.2)
        values = torch.max((value - returns) ** 2, (near - returns) ** 2).mean()
        loss = -torch.min(wide, clipped).mean() + 0.5 * values - 0.01 * policy.entropy().mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(both.parameters(), 0.5)
        optimizer.step()

    return step


def transformer() -> Step:
    """An encoder block with ReLU and without dropout, cross entropy on every token."""
    block = nn.TransformerEncoderLayer(64, 4, 256, dropout=0.0, batch_first=True)
    head = nn.Linear(64, 32)
    x, y = torch.randn(16, 32, 64), torch.randint(0, 32, (16, 32))
    both = nn.ModuleList([block, head])
    return _training(both, lambda: cross_entropy(head(block(x)).flatten(0, 1), y.flatten()))


def lstm() -> Step:
    """An LSTM over 20 steps."""
    net, head = nn.LSTM(16, 64, batch_first=True), nn.Linear(64, 1)
    x, y = torch.randn(32, 20, 16), torch.randn(32, 1)
    both = nn.ModuleList([net, head])
    return _training(both, lambda: mse_loss(head(net(x)[0][:, -1]), y))


def rnn() -> Step:
    """A recurrent network of ReLUs over 20 steps."""
    net, head = nn.RNN(16, 64, nonlinearity="relu", batch_first=True), nn.Linear(64, 1)
    x, y = torch.randn(32, 20, 16), torch.randn(32, 1)
    both = nn.ModuleList([net, head])
    return _training(both, lambda: mse_loss(head(net(x)[0][:, -1]), y))


def gnn() -> Step:
    """Two rounds of message passing, messages joined by their largest entries."""
    first, second, head = nn.Linear(32, 32), nn.Linear(32, 32), nn.Linear(32, 4)
    x, y = torch.randn(100, 16), torch.randint(0, 4, (100,))
    source, target = torch.randint(0, 100, (2, 500))
    embed = nn.Linear(16, 16)

    def layer(net: nn.Module, h: torch.Tensor) -> torch.Tensor:
        message = net(torch.cat([h[source], h[target]], 1))
        zeros = torch.zeros(100, 32)
        index = target[:, None].expand_as(message)
        joined = zeros.scatter_reduce(0, index, message, "amax", include_self=False)
        return torch.tanh(joined)

    def loss() -> torch.Tensor:
        h = layer(first, embed(x))
        return cross_entropy(head(layer(second, h[:, :16])), y)

    return _training(nn.ModuleList([first, second, head, embed]), loss)


class _Unet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Conv2d(1, 8, 3, padding=1)
        self.deep = nn.Conv2d(8, 16, 3, padding=1)
        self.up = nn.ConvTranspose2d(16, 8, 2, stride=2)
        self.out = nn.Conv2d(16, 8, 3, padding=1)
        self.last = nn.Conv2d(8, 2, 1)
        self.norm = nn.BatchNorm2d(8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        high = torch.relu(self.norm(self.down(x)))
        low = torch.relu(self.deep(nn.functional.max_pool2d(high, 2)))
        joined = torch.cat([high, self.up(low)], 1)
        found: torch.Tensor = self.last(torch.relu(self.out(joined)))
        return found


def unet() -> Step:
    """A small U-Net with one maxpool."""
    net = _Unet()
    x, y = torch.randn(8, 1, 32, 32), torch.randint(0, 2, (8, 32, 32))
    return _training(net, lambda: cross_entropy(net(x), y))


def gan() -> Step:
    """One step of a critic and one of a generator."""
    make = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 32), nn.Tanh())
    tell = nn.Sequential(nn.Linear(32, 64), nn.LeakyReLU(0.2), nn.Linear(64, 1))
    makes = torch.optim.Adam(make.parameters(), lr=1e-4)
    tells = torch.optim.Adam(tell.parameters(), lr=1e-4)
    real, ones, zeros = torch.randn(32, 32).tanh(), torch.ones(32, 1), torch.zeros(32, 1)

    def step() -> None:
        fake = make(torch.randn(32, 16))
        tells.zero_grad()
        loss = binary_cross_entropy_with_logits(tell(real), ones)
        loss = loss + binary_cross_entropy_with_logits(tell(fake.detach()), zeros)
        loss.backward()
        tells.step()
        makes.zero_grad()
        binary_cross_entropy_with_logits(tell(fake), ones).backward()
        makes.step()

    return step


def points() -> Step:
    """Features of 64 points each, the largest of each feature, cross entropy."""
    each = nn.Sequential(nn.Linear(3, 32), nn.ReLU(), nn.Linear(32, 64))
    head = nn.Linear(64, 8)
    x, y = torch.randn(16, 64, 3), torch.randint(0, 8, (16,))
    return _training(
        nn.ModuleList([each, head]), lambda: cross_entropy(head(each(x).max(1).values), y)
    )


KINDS: dict[str, Callable[[], Step]] = {
    "mlp": mlp,
    "ppo": ppo,
    "transformer": transformer,
    "lstm": lstm,
    "rnn": rnn,
    "gnn": gnn,
    "unet": unet,
    "gan": gan,
    "points": points,
}


@dataclass
class Times:
    """Seconds of each step, by how it ran, and what the audit made of it."""

    plain: list[float] = field(default_factory=list)
    anomaly: list[float] = field(default_factory=list)
    empty: list[float] = field(default_factory=list)
    audited: list[float] = field(default_factory=list)
    operators: int = 0
    decided: int = 0
    looked: int = 0
    why: str = ""
    rungs: Counter[str] = field(default_factory=Counter)


def _block(step: Step, into: list[float], clock: Clock) -> None:
    """Steps one after the other; the first warms up, and opens what the block needs once."""
    for number in range(_BLOCK):
        started = clock()
        step()
        if number:
            into.append(clock() - started)


def measure(make: Callable[[], Step], steps: int, clock: Clock = time.perf_counter) -> Times:
    """Blocks of every kind of step in turn, until `steps` of each; the first is left out."""
    torch.manual_seed(0)
    step = make()
    times, watching = Times(), audit()
    kept = (times.plain, times.anomaly, times.empty, times.audited)
    for number in range(-(-steps // (_BLOCK - 1)) + 1):
        order = ["plain", "anomaly", "empty", "audited"]
        shift = number % 4
        for kind in order[shift:] + order[:shift]:
            if kind == "plain":
                _block(step, times.plain, clock)
            elif kind == "anomaly":
                with torch.autograd.detect_anomaly():
                    _block(step, times.anomaly, clock)
            elif kind == "empty":
                with Empty() as mode:
                    _block(step, times.empty, clock)
                times.operators = mode.count // _BLOCK
            else:
                with watching:
                    _block(step, times.audited, clock)
        if number == 0:
            for found in kept:
                found.clear()
    looked = [s for s in watching.steps if s.looked]
    times.looked = len(looked)
    times.decided = sum(s.verdict is not Verdict.UNDECIDED for s in looked)
    times.rungs = Counter(s.theorem or s.verdict.name for s in looked if s.verdict is not None)
    times.why = next((s.reason for s in looked if s.verdict is Verdict.UNDECIDED), "")
    return times


def show(name: str, times: Times) -> str:
    """One line of the table."""
    plain, anomaly, empty, audited = (
        1e3 * statistics.median(x) for x in (times.plain, times.anomaly, times.empty, times.audited)
    )
    added = 1e3 * (audited - plain) / max(times.operators, 1)
    rungs = ", ".join(f"{count} {name}" for name, count in times.rungs.most_common(3))
    mark = "" if audited <= anomaly else "  above detect_anomaly"
    return (
        f"{name:12s} {plain:8.3f} {anomaly / plain:8.2f} {empty / plain:8.2f} "
        f"{audited / plain:8.2f} {added:8.1f} {times.operators:6d} "
        f"{times.decided:4d}/{times.looked:<4d} {rungs}{mark} {times.why[:60]}"
    )


def peak(step: Step) -> int:
    """The most bytes of tensors that a step holds beyond those that were there before."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as watching:
        step()
    held = most = 0
    events = [e for e in watching.profiler.kineto_results.events() if e.name() == "[memory]"]
    for event in sorted(events, key=lambda e: e.start_ns()):
        held += event.nbytes()
        most = max(most, held)
    return most


def memory(make: Callable[[], Step]) -> str:
    """Peaks of a step: tensors of the plain one, of the audited one, and Python's objects."""
    torch.manual_seed(0)
    step = make()
    for _ in range(2):
        step()
    plain = min(peak(step) for _ in range(2))
    with audit():
        for _ in range(4):
            step()
        audited = min(peak(step) for _ in range(2))
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        step()
        objects = tracemalloc.get_traced_memory()[1] - before
        tracemalloc.stop()
    return f"{plain / 1024:10.0f} {audited / plain:8.2f} {objects / 1024:10.0f}"


HEAD = (
    f"{'step':12s} {'plain ms':>8s} {'anomaly':>8s} {'empty':>8s} {'audit':>8s} {'us/op':>8s} "
    f"{'ops':>6s} decided"
)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=100, help="measured steps of each kind")
    parser.add_argument("--only", choices=[*KINDS], nargs="*", default=[*KINDS])
    parser.add_argument(
        "--cpu-time", action="store_true", help="processor time: for a busy machine"
    )
    parser.add_argument("--memory", action="store_true", help="peaks of memory, not times")
    given = parser.parse_args()
    clock = time.process_time if given.cpu_time else time.perf_counter
    torch.set_num_threads(1)
    if given.memory:
        print(f"{'step':12s} {'plain KiB':>10s} {'audit':>8s} {'Python KiB':>10s}")
        for name in given.only:
            print(f"{name:12s} {memory(KINDS[name])}", flush=True)
        return
    print(f"torch {torch.__version__}, one thread, medians of {given.steps} steps, ratios to plain")
    print(HEAD)
    for name in given.only:
        gc.collect()
        print(show(name, measure(KINDS[name], given.steps, clock)), flush=True)


if __name__ == "__main__":
    main()
