"""Audits of trainings in narrow types: verdicts, ties by origin, cost.

    python benchmarks/narrow.py [--data FOLDER] [--steps N] [--only NAME]

A CNN with max pooling and a batch norm on MNIST and on CIFAR-10 (the official files, in FOLDER;
without it scikit-learn's digits, enlarged), a transformer that reads patches of the latter, and one
that predicts the characters of this project's own pages. Each in float32, under autocast in
bfloat16, in bfloat16 throughout, and with parameters in bfloat16 that are updated from copies in
float32; the CNNs also under autocast in float16 with a gradient scaler. Losses are the first and
the last that the audited training had. Ties are those that matter, told apart by float64: the
function's own, and those of rounding alone; "exact too" counts the steps whose gradient is that of
the exact program. Plain and audited trainings from the same start take turns, step by step.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path

import torch
from torch import nn
from torch.nn.functional import cross_entropy

import clarke
from clarke.experiments.data import Source, load

Batch = tuple[torch.Tensor, torch.Tensor]
_LENGTH = 32


class Convolutional(nn.Module):
    """Two convolutions, each with ReLU and max pooling, the first with a batch norm."""

    def __init__(self, channels: int, size: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(channels, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(8, 16, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(size * size, 10),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Scores of the digits."""
        scores: torch.Tensor = self.net(x)
        return scores


class Transformer(nn.Module):
    """Two layers of attention and ReLU over characters."""

    def __init__(self) -> None:
        super().__init__()
        self.token, self.place = nn.Embedding(128, 48), nn.Embedding(_LENGTH, 48)
        layer = nn.TransformerEncoderLayer(48, 4, 96, dropout=0.0, batch_first=True)
        self.body = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(48, 128)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Scores of the character behind each."""
        mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1]).to(self.head.weight.dtype)
        inner = self.token(x) + self.place.weight[: x.shape[1]]
        scores: torch.Tensor = self.head(self.body(inner, mask=mask, is_causal=True))
        return scores.flatten(0, 1)


class Patches(nn.Module):
    """Two layers of attention and ReLU over patches of 4 x 4 of a picture."""

    def __init__(self) -> None:
        super().__init__()
        self.cut = nn.Conv2d(3, 48, 4, stride=4)
        self.place = nn.Parameter(0.02 * torch.randn(64, 48))
        layer = nn.TransformerEncoderLayer(48, 4, 96, dropout=0.0, batch_first=True)
        self.body = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(48, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Scores of the classes, from the largest of what each patch has found."""
        found = self.body(self.cut(x).flatten(2).transpose(1, 2) + self.place)
        scores: torch.Tensor = self.head(found.amax(1))
        return scores


def pictures(source: Source, folder: str, size: int) -> Iterator[Batch]:
    """Batches of MNIST or CIFAR-10."""
    images = load(source, folder)
    generator = torch.Generator().manual_seed(0)
    for _ in count():
        chosen = torch.randint(len(images.labels), (size,), generator=generator)
        yield images.pixels[chosen].float() / 255, images.labels[chosen]


def characters(size: int) -> Iterator[Batch]:
    """Pieces of the project's pages, each with itself moved by one character."""
    pages = sorted((Path(__file__).parents[1] / "docs").glob("*.md"))
    text = torch.tensor([min(ord(c), 127) for p in pages for c in p.read_text("utf-8")])
    generator = torch.Generator().manual_seed(0)
    for _ in count():
        starts = torch.randint(len(text) - _LENGTH - 1, (size, 1), generator=generator)
        piece = text[starts + torch.arange(_LENGTH + 1)]
        yield piece[:, :-1], piece[:, 1:].flatten()


@dataclass(frozen=True)
class Way:
    """How a training uses narrow types.

    Attributes:
        own: Type of the parameters.
        cast: Type of autocast, if it is on.
        copies: The optimizer updates float32 copies of narrow parameters.
    """

    own: torch.dtype = torch.float32
    cast: torch.dtype | None = None
    copies: bool = False

    def inside(self) -> AbstractContextManager[object]:
        """What the forward pass runs in."""
        return nullcontext() if self.cast is None else torch.autocast("cpu", dtype=self.cast)


WAYS = {
    "float32": Way(),
    "autocast bfloat16": Way(cast=torch.bfloat16),
    "bfloat16": Way(own=torch.bfloat16),
    "bfloat16, float32 copies": Way(own=torch.bfloat16, copies=True),
    "autocast float16, scaler": Way(cast=torch.float16),
}


class Training:
    """A model, its data and its optimizer, one step at a time."""

    def __init__(self, model: nn.Module, batches: Iterator[Batch], way: Way) -> None:
        self._model, self._batches, self._way = model.to(way.own), batches, way
        self._own = list(model.parameters())
        self._updated = [p.detach().float().clone() for p in self._own] if way.copies else self._own
        self._optimizer = torch.optim.SGD(self._updated, lr=0.05, momentum=0.9)
        self.losses: list[float] = []
        self._scaler = torch.amp.GradScaler("cpu", enabled=way.cast is torch.float16)

    def step(self) -> None:
        """Make one."""
        inputs, labels = next(self._batches)
        if inputs.is_floating_point():
            inputs = inputs.to(self._way.own)
        self._model.zero_grad()
        with self._way.inside():
            scores = self._model(inputs)
        loss = cross_entropy(scores.float(), labels)
        self._scaler.scale(loss).backward()
        self.losses.append(float(loss.detach()))
        if self._way.copies:
            for copy, p in zip(self._updated, self._own, strict=True):
                copy.grad = None if p.grad is None else p.grad.float()
        self._scaler.step(self._optimizer)
        self._scaler.update()
        if self._way.copies:
            with torch.no_grad():
                for copy, p in zip(self._updated, self._own, strict=True):
                    p.copy_(copy)


def compared(make: Callable[[], Training], steps: int, seconds: float) -> str:
    """A row: verdicts, ties, times."""
    plain, watched = make(), make()
    audit = clarke.audit(seconds=seconds)
    times: tuple[list[float], list[float]] = ([], [])
    for number in range(steps):
        started = time.process_time()
        plain.step()
        between = time.process_time()
        with audit:
            watched.step()
        if number:
            times[0].append(between - started)
            times[1].append(time.process_time() - between)
    verdicts = Counter(s.verdict.name for s in audit.steps if s.verdict)
    told = ", ".join(f"{n} {v}" for v, n in verdicts.most_common())
    kinks = [k for s in audit.steps for k in s.kinks]
    own = sum(k.relevant or 0 for k in kinks)
    rounded = sum(k.rounded or 0 for k in kinks)
    exact = sum("that of the exact program, too" in n for r in audit.reports for n in r.notes)
    first, second = (1000 * statistics.median(t) for t in times)
    losses = f"{watched.losses[0]:.2f} to {watched.losses[-1]:.2f}"
    if plain.losses != watched.losses:
        losses += " (changed by the audit!)"
    return f"{told} | {losses} | {own - rounded} | {rounded} | {exact} | {first:.0f} | {second:.0f}"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="digits", help="a folder with MNIST's files")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=1.0, help="time limit of a step")
    parser.add_argument("--only", default="", help="rows whose name holds this")
    given = parser.parse_args()
    torch.set_num_threads(1)

    models: dict[str, tuple[Callable[[], nn.Module], Callable[[], Iterator[Batch]]]] = {
        "CNN, MNIST": (
            partial(Convolutional, 1, 28),
            partial(pictures, Source.MNIST, given.data, given.batch),
        ),
        "CNN, CIFAR-10": (
            partial(Convolutional, 3, 32),
            partial(pictures, Source.CIFAR10, given.data, given.batch),
        ),
        "transformer, CIFAR-10": (
            Patches,
            partial(pictures, Source.CIFAR10, given.data, given.batch),
        ),
        "transformer, text": (Transformer, partial(characters, given.batch)),
    }

    def training(kind: str, way: Way) -> Training:
        torch.manual_seed(0)
        model, batches = models[kind]
        return Training(model(), batches(), way)

    print(
        "| training | verdicts | loss | own ties | by rounding | exact too "
        "| plain step, ms | audited |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for kind in models:
        for name, way in WAYS.items():
            row = f"{kind}, {name}"
            if given.only not in row or ("CNN" not in kind and way.cast is torch.float16):
                continue
            told = compared(partial(training, kind, way), given.steps, given.seconds)
            print(f"| {row} | {told} |", flush=True)


if __name__ == "__main__":
    main()
