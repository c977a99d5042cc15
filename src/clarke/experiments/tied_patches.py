"""Ties of a network's first maxpool and the image patches behind them: the paper's Figure 1.

Found with plain tensor operations on the values of a plain training, without clarke's audit.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional

from clarke.experiments.augment import augment
from clarke.experiments.train import first_model

if TYPE_CHECKING:
    from collections.abc import Iterator

    from clarke.experiments.data import Images
    from clarke.experiments.scenario import Training

_PATCH = 3  # the first convolution of all networks is 3x3, of stride 1, with padding 1
_MOST_STEPS = 40


@dataclass(frozen=True, eq=False)
class TiedPatches:
    """One window of the first maxpool whose maximum, above zero, is attained twice or more.

    Attributes:
        step: The training step, from 1.
        channel: Of the convolution.
        value: The maximum.
        image: (c, h, w) what the network saw, in [-1, 1].
        taken: (row, column) in the image of the element that AD follows, the centre of its patch.
        rival: The same of another element that attains the maximum.
        patches: (2, c, 3, 3) what the convolution reads for the two; zeros outside of the image.
    """

    step: int
    channel: int
    value: float
    image: torch.Tensor
    taken: tuple[int, int]
    rival: tuple[int, int]
    patches: torch.Tensor

    @property
    def equal(self) -> bool:
        """Whether both read the same, so that it does not matter which one AD follows."""
        return torch.equal(self.patches[0], self.patches[1])


def find_examples(
    training: Training, images: Images, count: int
) -> tuple[list[TiedPatches], list[TiedPatches]]:
    """Up to `count` ties of equal and of different patches, each kind from different images.

    Repeats the first steps of a training, until there are enough.
    """
    equal: list[TiedPatches] = []
    different: list[TiedPatches] = []
    limit = _MOST_STEPS if training.steps is None else min(_MOST_STEPS, training.steps)
    generator = torch.Generator().manual_seed(training.seed)
    for step, (inputs, before, pool) in enumerate(islice(_steps(training, images), limit), 1):
        ties = _ties(inputs, before, pool)
        for kind, found in ((True, equal), (False, different)):
            if len(found) < count:
                chosen = _one_per_image(ties, generator, equal=kind)[: count - len(found)]
                found += [_example(step, inputs, before, ties, i) for i in chosen]
        if len(equal) >= count and len(different) >= count:
            break
    return equal, different


def _steps(
    training: Training, images: Images
) -> Iterator[tuple[torch.Tensor, torch.Tensor, nn.MaxPool2d]]:
    """(network's input, first maxpool's input, first maxpool) of every step of the first epoch."""
    model = first_model(training)
    pool = next(m for m in model.modules() if isinstance(m, nn.MaxPool2d))
    seen: list[torch.Tensor] = []
    handle = pool.register_forward_hook(lambda _m, args, _out: seen.append(args[0].detach()))
    optimizer = torch.optim.SGD(
        model.parameters(),
        lr=training.rate,
        momentum=training.momentum,
        weight_decay=training.decay,
    )
    generator = torch.Generator().manual_seed(training.seed)
    order = torch.randperm(len(images.labels), generator=generator)
    try:
        for indices in order.split(training.batch):
            inputs = augment(images.pixels[indices], generator)
            loss = functional.cross_entropy(model(inputs), images.labels[indices])
            yield inputs, seen.pop(), pool
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    finally:
        handle.remove()


@dataclass(frozen=True, eq=False)
class _Ties:
    """Tied windows; all (W,), places flat in the image's plane."""

    image: torch.Tensor
    channel: torch.Tensor
    taken: torch.Tensor
    rival: torch.Tensor
    equal: torch.Tensor


def _ties(inputs: torch.Tensor, before: torch.Tensor, pool: nn.MaxPool2d) -> _Ties:
    """All ties of positive value, each with one rival: one of a different patch if there is any."""
    n, c, height, width = before.shape
    size, stride, padding = (_one(v) for v in (pool.kernel_size, pool.stride, pool.padding))
    peaks, indices = functional.max_pool2d(before, size, stride, padding, return_indices=True)
    around = functional.pad(before, (padding,) * 4, value=-torch.inf)
    plane = torch.arange(height * width, dtype=torch.float32).reshape(1, 1, height, width)
    places = functional.unfold(functional.pad(plane, (padding,) * 4), size, stride=stride)[0].long()
    cells = functional.unfold(around.reshape(n * c, 1, *around.shape[2:]), size, stride=stride)
    top = peaks.reshape(n * c, 1, -1)
    tied = (cells == top) & (top > 0)
    row, window = (tied.sum(1) > 1).nonzero(as_tuple=True)
    image, channel = row // c, row % c
    taken = indices.reshape(n * c, -1)[row, window]
    member = places[:, window].T  # (W, cells of a window)
    rivals = tied[row, :, window] & (member != taken[:, None])
    patches = functional.unfold(inputs, _PATCH, padding=_PATCH // 2).transpose(1, 2)
    own, others = patches[image, taken], patches[image[:, None], member]
    differs = rivals & (others != own[:, None]).any(2)
    best = torch.where(differs.any(1), differs.int().argmax(1), rivals.int().argmax(1))
    rival = member.gather(1, best[:, None])[:, 0]
    return _Ties(image, channel, taken, rival, ~differs.any(1))


def _one(value: int | tuple[int, ...]) -> int:
    return value if isinstance(value, int) else value[0]


def _one_per_image(ties: _Ties, generator: torch.Generator, *, equal: bool) -> list[int]:
    """Ties of one kind in random order, one of each image."""
    wanted = (ties.equal == equal).nonzero()[:, 0]
    wanted = wanted[torch.randperm(len(wanted), generator=generator)]
    first = {int(ties.image[i]): int(i) for i in wanted.flip(0)}
    return sorted(first.values(), key=wanted.tolist().index)


def _example(
    step: int, inputs: torch.Tensor, before: torch.Tensor, ties: _Ties, i: int
) -> TiedPatches:
    image, channel = int(ties.image[i]), int(ties.channel[i])
    places = [divmod(int(p), inputs.shape[-1]) for p in (ties.taken[i], ties.rival[i])]
    around = functional.pad(inputs[image], (1, 1, 1, 1))
    return TiedPatches(
        step,
        channel,
        float(before[image, channel][places[0]]),
        inputs[image].clone(),
        places[0],
        places[1],
        torch.stack([around[:, y : y + _PATCH, x : x + _PATCH] for y, x in places]),
    )
