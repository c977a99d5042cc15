"""A small convolutional network on scikit-learn's handwritten digits: real images, no download.

The 1797 images of 8 x 8 pixels come with scikit-learn (UCI ML hand-written digits, test set).
Their pixels take 17 values, most of them 0, so maxima tie and ReLUs sit at zero all the time.
"""

from __future__ import annotations

import copy
import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

from clarke import audit
from clarke.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_TEST = 360  # images kept for the test
_BLOCK = 5  # steps timed in one go


@dataclass(frozen=True, eq=False)
class Digits:
    """Images (N, 1, 8, 8) float32 with values from 0 to 1, and labels (N,) int64."""

    train_images: torch.Tensor
    train_labels: torch.Tensor
    test_images: torch.Tensor
    test_labels: torch.Tensor


@dataclass(frozen=True)
class Overhead:
    """Seconds of a training step, medians of interleaved steps in one process.

    Attributes:
        plain: Without an audit.
        audited: Under an audit that judges every step.
        steps: How many of each were timed.
    """

    plain: float
    audited: float
    steps: int

    @property
    def ratio(self) -> float:
        """Audited over plain."""
        return self.audited / self.plain


def read_digits(seed: int = 0) -> Digits:
    """The data, split at random.

    Raises:
        InputError: scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise InputError(
            "The digits come with scikit-learn, which is not installed: pip install 'clarke[demo]'."
        ) from error
    found = load_digits()
    images = torch.tensor(found.images, dtype=torch.float32)[:, None] / 16
    labels = torch.tensor(found.target, dtype=torch.int64)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    test, train = order[:_TEST], order[_TEST:]
    return Digits(images[train], labels[train], images[test], labels[test])


class DigitsNet(nn.Module):
    """Two blocks of convolution, BatchNorm, ReLU and maxpool, then a linear layer.

    Takes (N, 1, 8, 8), returns (N, 10).
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, 3, padding=1)
        self.norm1 = nn.BatchNorm2d(16)
        self.relu1 = nn.ReLU()
        self.pool1 = nn.MaxPool2d(2)
        self.conv2 = nn.Conv2d(16, 32, 3, padding=1)
        self.norm2 = nn.BatchNorm2d(32)
        self.relu2 = nn.ReLU()
        self.pool2 = nn.MaxPool2d(2)
        self.linear = nn.Linear(128, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits."""
        x = self.pool1(self.relu1(self.norm1(self.conv1(x))))
        x = self.pool2(self.relu2(self.norm2(self.conv2(x))))
        found: torch.Tensor = self.linear(x.flatten(1))
        return found


class Training:
    """Model, optimizer and batches of one run; `step` takes one training step."""

    def __init__(self, data: Digits, *, batch: int = 64, seed: int = 0) -> None:
        self.data = data
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.model = DigitsNet()
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.05, momentum=0.9)
        self._batches = _batches(len(data.train_labels), batch, seed)

    def step(self) -> float:
        """One step of SGD on the next batch; returns the loss."""
        chosen = next(self._batches)
        self.model.train()
        logits = self.model(self.data.train_images[chosen])
        loss = nn.functional.cross_entropy(logits, self.data.train_labels[chosen])
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return float(loss.detach())

    def accuracy(self) -> float:
        """The part of the test images that is recognised, from 0 to 1."""
        self.model.eval()
        with torch.no_grad():
            found = self.model(self.data.test_images).argmax(1)
        return float((found == self.data.test_labels).float().mean())


def _batches(count: int, size: int, seed: int) -> Iterator[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    while True:
        order = torch.randperm(count, generator=generator)
        for at in range(0, count - size + 1, size):
            yield order[at : at + size]


def measure_overhead(
    training: Training, steps: int = 20, tick: Callable[[], None] | None = None
) -> Overhead:
    """Time blocks of plain and of audited steps in turn, on copies of a training.

    Args:
        training: Where to start from; it is left as it is.
        steps: Timed steps of each kind, in blocks of up to five; the step that begins a block is
            not timed.
        tick: Called after every pair of steps.
    """
    plain, audited = _fork(training), _fork(training)
    without: list[float] = []
    within: list[float] = []
    while len(within) < steps:
        block = min(_BLOCK, steps - len(within))
        without += _timed(plain, block)
        with audit():
            within += _timed(audited, block)
        if tick is not None:
            for _ in range(block):
                tick()
    return Overhead(statistics.median(without), statistics.median(within), steps)


def _timed(training: Training, steps: int) -> list[float]:
    """Seconds of each of some steps, after one that warms up."""
    training.step()
    return [_seconds(training) for _ in range(steps)]


def _seconds(training: Training) -> float:
    started = time.perf_counter()
    training.step()
    return time.perf_counter() - started


def _fork(training: Training) -> Training:
    """A training with a copy of the model and its own optimizer state and batches."""
    fork = Training(training.data)
    fork.model = copy.deepcopy(training.model)
    fork.optimizer = torch.optim.SGD(fork.model.parameters(), lr=0.05, momentum=0.9)
    fork.optimizer.load_state_dict(training.optimizer.state_dict())
    return fork
