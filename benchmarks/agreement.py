"""Step by step against the naive reference: `python benchmarks/agreement.py --data FOLDER`.

Trains the paper's three networks, with fewer channels and a smaller batch, from the first step on
and with the paper's augmentation. Every step is judged by `clarke.audit` and by Algorithms 1 and 2
done naively (`naive.py`). Compared are, in every maxpool, the sets S_j of tied elements, the sets
S_j minus T_j of those that matter, the numbers that the audit reports, and the verdicts.

Real images hardly ever give ties that matter, so there is a second round with `coarse` numbers:
pixels and weights of convolutions are multiples of a power of two while a step is judged (training
goes on with the others), which makes sums exact and ties of different patches frequent.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from clarke import Verdict, audit
from clarke.capture import Recorder, collect_trace
from clarke.compiled import Compiled
from clarke.decide import Settings
from clarke.decide.limits import Limits
from clarke.experiments.augment import augment
from clarke.experiments.data import Images, Source, load
from clarke.experiments.models import resnet18, vgg11, vgg11_bn
from clarke.fast import EarlyTies
from clarke.fast.codes import Coder
from clarke.fast.graph import build_graph
from clarke.fast.layers import POOL, pool_layer
from clarke.fast.pools import codes_at_hand, find_rivals, pool_ties
from clarke.fast.scratch import Scratch
from clarke.kinks import default_registry

sys.path.insert(0, str(Path(__file__).parent))

from naive import Naive  # a neighbour of this script

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from clarke import Report
    from clarke.audit import Step

Window = tuple[int, int, int, int]
Sets = dict[Window, frozenset[int]]


class Numbers(Enum):
    """What pixels and weights are; values are what the table calls it."""

    REAL = "real"
    COARSE = "coarse"


class Rank(Enum):
    """What a verdict is worth; the higher, the more is proved."""

    OPEN = 0
    LIMIT = 1  # a limit of gradients, or a mixture of such limits
    SMOOTH = 2


class Difference(Enum):
    """How a step can differ from the reference; values are what the table says."""

    TIES = "other sets S_j"
    MORE = "S_j minus T_j larger"
    FEWER = "S_j minus T_j smaller"
    COUNTS = "the audit's numbers are not those of the sets"
    DROPPED = "the whole ladder found fewer relevant ties: the loss does not depend on the rest"
    WEAKER = "weaker verdict"
    STRONGER = "stronger verdict"


# Where no direction is found the ladder would go through all selections: not compared here.
LIMITED = Settings(exact=Limits(nodes=100, cells=20, kinks=8))
HARMLESS = frozenset({Difference.DROPPED, Difference.STRONGER})


def our_sets(net: nn.Module, inputs: torch.Tensor, labels: torch.Tensor) -> dict[str, Any]:
    """(S_j as windows, S_j minus T_j) of every maxpool, by module, as `clarke.fast` finds them.

    S_j minus T_j is None where there is no fingerprint. The network's buffers stay as they are.
    """
    registry = default_registry()
    buffers = {k: v.clone() for k, v in net.named_buffers()}
    compiled = Compiled(always=True)
    with Recorder(registry.keeps, early=EarlyTies(compiled)) as recorder:
        loss = cross_entropy(net(inputs), labels)
        trace = collect_trace(recorder, loss)
    with torch.no_grad():
        for k, v in net.named_buffers():
            v.copy_(buffers[k])
    graph = build_graph(trace, [e.slot for e in trace.leaves()])
    if graph is None:
        raise ValueError("the network overwrites values in place")
    found: dict[str, Any] = {}
    scratch, coder = Scratch(), Coder(0, compiled)
    for position, op in enumerate(trace.ops):
        if op.name != POOL:
            continue
        layer = pool_layer(graph, position)
        ties = None if layer is None else pool_ties(graph, layer, scratch, compiled)
        if layer is None or ties is None:
            continue
        shape = tuple(op.kept_outputs[0].shape)
        width = op.kept[0].shape[-1]
        # As an audit looks for them: ties and codes at once where the codes are at hand.
        known = codes_at_hand(graph, layer, coder, compiled)
        looked = pool_ties(graph, layer, scratch, compiled, known)
        if looked is None or looked.count != ties.count:
            raise ValueError("ties are counted in two ways, with two outcomes")
        some = looked.tied.size > 0
        rivals = find_rivals(graph, layer, looked, coder, compiled, known) if some else None
        relevant: dict[Window, set[int]] | None = None if some else {}
        if rivals is not None:
            relevant = {}
            places = rivals.rival[0] * width + rivals.rival[1]
            for window, place in zip(rivals.window, places, strict=True):
                relevant.setdefault(_window(window, shape), set()).add(int(place))
        found[op.location.module] = (
            {_window(w, shape) for w in ties.tied},
            None if relevant is None else {w: frozenset(m) for w, m in relevant.items()},
        )
    return found


def _window(flat: Any, shape: tuple[int, ...]) -> Window:
    n, c, y, x = (int(i) for i in np.unravel_index(int(flat), shape))
    return n, c, y, x


@dataclass
class Outcome:
    """One step, judged both ways.

    Attributes:
        ours, theirs: What was proved by the audit and by the reference.
        verdict: The audit's.
        theorem: The argument behind it.
        windows: Maxpool outputs.
        tied: Windows with |S_j| >= 2, by the reference.
        our_tied: The same by clarke.
        relevant: Windows with S_j minus T_j not empty, by the reference.
        our_relevant: The same by the audit.
        rough: The same by an absolute tolerance in float32.
        rough_wrong: Whether the tolerance leaves a step open that the reference settles.
        differences: What differs, with the maxpool's name.
    """

    ours: Rank
    theirs: Rank
    verdict: Verdict
    theorem: str
    windows: int = 0
    tied: int = 0
    our_tied: int = 0
    relevant: int = 0
    our_relevant: int = 0
    rough: int = 0
    rough_wrong: bool = False
    differences: list[tuple[Difference, str]] = field(default_factory=list)

    @property
    def agrees(self) -> bool:
        """Whether nothing differs, but for what is known to be harmless."""
        return all(kind in HARMLESS for kind, _ in self.differences)


def compare(
    net: nn.Module, inputs: torch.Tensor, labels: torch.Tensor, *, rough: bool = True
) -> Outcome:
    """Judge one training step both ways; leaves the gradients in ``.grad``.

    Without `rough`, the absolute tolerance is left out.
    """
    reference = Naive(net, inputs, rough=rough)
    layers = reference.layers()
    sets = our_sets(net, inputs, labels)
    net.zero_grad()
    seen: list[tuple[Step, Report | None]] = []
    with audit(settings=LIMITED) as watching:
        watching.subscribe(lambda step, report: seen.append((step, report)))
        cross_entropy(net(inputs), labels).backward()
    step, _ = seen[0]
    kinks = {k.module: k for k in step.kinks if k.operation == "max_pool2d_with_indices"}

    relevant = sum(layer.relevant for layer in layers.values())
    theirs = Rank.OPEN
    if all(layer.feasible for layer in layers.values()):
        smooth = relevant == 0 and not any(reference.touches().values())
        theirs = Rank.SMOOTH if smooth else Rank.LIMIT
    verdict = step.verdict or Verdict.UNDECIDED
    ours = Rank.OPEN
    if verdict.correct:
        ours = Rank.SMOOTH if verdict is Verdict.SMOOTH else Rank.LIMIT
    rough_open = not all(layer.rough_feasible for layer in layers.values())
    found = Outcome(
        ours, theirs, verdict, step.theorem, rough_wrong=theirs is not Rank.OPEN and rough_open
    )
    if ours.value != theirs.value:
        kind = Difference.STRONGER if ours.value > theirs.value else Difference.WEAKER
        found.differences.append((kind, f"{verdict.name} by {step.theorem}, not {theirs.name}"))
    for name, layer in layers.items():
        ties, rivals = sets.get(name, (None, None))
        found.windows += layer.outputs
        found.tied += layer.ties
        found.our_tied += len(ties or ())
        found.relevant += layer.relevant
        found.rough += layer.absolute
        kink = kinks.get(name)
        count = 0 if kink is None else kink.relevant or 0
        found.our_relevant += count
        found.differences += [(kind, name) for kind in _pool(layer, ties, rivals, kink, count)]
    return found


def _pool(layer: Any, ties: Any, rivals: Any, kink: Any, count: int) -> Iterator[Difference]:
    """What differs in one maxpool."""
    if ties is not None and ties != set(layer.tied):
        yield Difference.TIES
    if kink is not None and kink.nonzero is not None and kink.nonzero != layer.ties:
        yield Difference.COUNTS
    if rivals is not None and rivals != layer.rivals:
        more = any(m - layer.rivals.get(w, frozenset()) for w, m in rivals.items())
        fewer = any(m - rivals.get(w, frozenset()) for w, m in layer.rivals.items())
        if more:
            yield Difference.MORE
        if fewer:
            yield Difference.FEWER
    if count < layer.relevant:
        # The quick judge (it alone tells ties of value zero apart) takes every one of these.
        quick = kink is None or kink.nonzero is not None
        yield Difference.COUNTS if quick else Difference.DROPPED
    elif count > layer.relevant:
        yield Difference.COUNTS


# ---------------------------------------------------------------------------- training


@dataclass(frozen=True)
class Setting:
    """A network small enough for the reference, and its batch."""

    make: Callable[[], nn.Module]
    batch: int


def settings(batch: int = 8) -> dict[str, Setting]:
    """The paper's three networks, with a sixteenth of their channels."""
    return {
        "vgg11": Setting(lambda: vgg11(shrink=16), batch),
        "vgg11-bn": Setting(lambda: vgg11_bn(shrink=16), batch),
        "resnet18": Setting(lambda: resnet18(width=4), batch),
    }


def train(
    setting: Setting, images: Images, steps: int, numbers: Numbers, seed: int = 0
) -> Iterator[Outcome]:
    """Train from the first step on, judging every step both ways."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = setting.make()
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, weight_decay=1e-4)
    for _ in range(steps):
        at = torch.randint(0, len(images.labels), (setting.batch,), generator=generator)
        inputs = augment(images.pixels[at], generator)
        if numbers is Numbers.REAL:
            yield compare(net, inputs, images.labels[at])
        else:
            with coarse_weights(net):
                yield compare(net, coarse(inputs), images.labels[at])
        optimizer.step()


def coarse(inputs: torch.Tensor) -> torch.Tensor:
    """Pixels as multiples of 1/16."""
    return (16 * inputs).round() / 16


@contextmanager
def coarse_weights(net: nn.Module) -> Iterator[None]:
    """Convolutions with multiples of 1/128, inside the block: training goes on with the others."""
    before = {}
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.Conv2d):
                for p in module.parameters():
                    before[p] = p.clone()
                    p.copy_((128 * p).round() / 128)
    try:
        yield
    finally:
        with torch.no_grad():
            for p, value in before.items():
                p.copy_(value)


HEADS = (
    "network",
    "numbers",
    "steps",
    "windows",
    "tied: naive",
    "ours",
    "relevant: naive",
    "ours",
    "smooth / limit / open: naive",
    "ours",
    "agreeing steps",
    "absolute tolerance: windows",
    "steps it errs in",
    "steps it leaves open",
)


def row(network: str, numbers: Numbers, outcomes: list[Outcome]) -> tuple[str, ...]:
    """A line of the table."""

    def ranks(found: list[Rank]) -> str:
        count = Counter(found)
        return " / ".join(str(count[r]) for r in (Rank.SMOOTH, Rank.LIMIT, Rank.OPEN))

    return (
        network,
        numbers.value,
        str(len(outcomes)),
        *(
            f"{sum(getattr(o, name) for o in outcomes):,}"
            for name in ("windows", "tied", "our_tied", "relevant", "our_relevant")
        ),
        ranks([o.theirs for o in outcomes]),
        ranks([o.ours for o in outcomes]),
        f"{sum(o.agrees for o in outcomes)}",
        f"{sum(o.rough for o in outcomes):,}",
        str(sum(o.rough != o.relevant for o in outcomes)),
        str(sum(o.rough_wrong for o in outcomes)),
    )


def main() -> int:
    """Compare, print the table; 1 if any step differs."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", default="digits", help="folder with CIFAR-10 binary files")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument(
        "--network", choices=["vgg11", "vgg11-bn", "resnet18", "all"], default="all"
    )
    parser.add_argument("--numbers", choices=["real", "coarse", "both"], default="both")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    images = load(Source.CIFAR10, given.data)
    print(f"torch {torch.__version__}, {images.name}, seed {given.seed}\n")
    print("| " + " | ".join(HEADS) + " |")
    print("| " + " | ".join(["---"] * len(HEADS)) + " |")
    notes: list[str] = []
    agree = True
    for numbers in Numbers:
        if given.numbers not in (numbers.value, "both"):
            continue
        for network, setting in settings().items():
            if given.network not in (network, "all"):
                continue
            started = time.perf_counter()
            outcomes = list(train(setting, images, given.steps, numbers, given.seed))
            print("| " + " | ".join(row(network, numbers, outcomes)) + " |", flush=True)
            agree &= all(o.agrees for o in outcomes)
            label = f"{network}, {numbers.value}"
            notes += _notes(label, outcomes, time.perf_counter() - started)
    print("", *notes, sep="\n")
    return 0 if agree else 1


def _notes(label: str, outcomes: list[Outcome], seconds: float) -> list[str]:
    """What differs, by kind and maxpool, with the steps."""
    found: dict[tuple[str, str], list[int]] = {}
    for number, outcome in enumerate(outcomes, 1):
        for kind, where in outcome.differences:
            found.setdefault((kind.value, where), []).append(number)
    lines = [f"{label} ({seconds:.0f} s): " + ("no difference" if not found else "")]
    for (what, where), steps in found.items():
        shown = ", ".join(map(str, steps[:8])) + (", ..." if len(steps) > 8 else "")
        lines.append(f"  {what}: {where}: {len(steps)} steps ({shown})")
    return lines


if __name__ == "__main__":
    sys.exit(main())
