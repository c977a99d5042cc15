"""Train a network of the paper under audit; stop and go on at the ends of epochs."""

from __future__ import annotations

import math
import time
from dataclasses import asdict
from enum import Enum
from typing import TYPE_CHECKING, Any

import torch

from clarke import Settings, audit
from clarke.experiments.augment import augment, normalise
from clarke.experiments.record import RunRecord
from clarke.experiments.scenario import Network, Training, same_settings

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch import nn

    from clarke.experiments.data import Images


def steps_per_epoch(images: Images, batch: int) -> int:
    """How many steps an epoch has; the last one may be smaller."""
    return math.ceil(len(images.labels) / batch)


def total_steps(training: Training, images: Images) -> int:
    """How many steps a run has."""
    every = training.epochs * steps_per_epoch(images, training.batch)
    return every if training.steps is None else min(every, training.steps)


def first_model(training: Training) -> nn.Module:
    """The network with the initial weights of a training, on the CPU."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(training.seed)
        return training.model()


def stored_record(folder: Path, seed: int) -> RunRecord | None:
    """What a folder holds of a run: its record, or that of its last complete epoch, or None."""
    path = _record_path(folder, seed)
    if path.exists():
        return RunRecord.load(path)
    if _checkpoint_path(folder, seed).exists():
        found = torch.load(_checkpoint_path(folder, seed), weights_only=True)
        return RunRecord.from_data(found["record"])
    return None


def _record_path(folder: Path, seed: int) -> Path:
    return folder / f"run{seed}.json"


def _checkpoint_path(folder: Path, seed: int) -> Path:
    return folder / f"run{seed}.checkpoint.pt"


class Run:
    """One training run.

    Args:
        training: Settings.
        images: The training images.
        folder: Where the record and, until the run is finished, a checkpoint are kept.
        on_step: Called after every step with the number of steps done.
        keep: Folder for the weights and the batch of every step that is not proved right, None to
            keep none. Such a step can then be judged again without the training before it.
    """

    def __init__(
        self,
        training: Training,
        images: Images,
        folder: Path,
        on_step: Callable[[int], None] = lambda _done: None,
        *,
        keep: Path | None = None,
    ) -> None:
        self._training = training
        self._keep = keep
        self._images = images
        self._on_step = on_step
        self._record_path = _record_path(folder, training.seed)
        self._checkpoint = _checkpoint_path(folder, training.seed)
        self._generator = torch.Generator()
        self._model: nn.Module
        self._optimizer: torch.optim.SGD
        self._epoch = 0
        self.record = RunRecord(
            training.label, training.seed, images.name, _plain(asdict(training))
        )

    def run(self) -> RunRecord:
        """Train to the end, from the last checkpoint if there is one; returns the record.

        A finished run with the same settings is read, not repeated.
        """
        if self._record_path.exists():
            old = RunRecord.load(self._record_path)
            same = self._is_ours(old.settings) and old.data == self.record.data
            if old.finished and same:
                return old
        self._prepare()
        total = total_steps(self._training, self._images)
        while self.record.steps < total:
            self._one_epoch(total)
            self._epoch += 1
            self._save()
        self.record.finished = True
        self.record.save(self._record_path)
        self._checkpoint.unlink(missing_ok=True)
        return self.record

    def _prepare(self) -> None:
        t = self._training
        self._model = first_model(t).to(t.device)
        self._generator.manual_seed(t.seed)
        self._optimizer = torch.optim.SGD(
            self._model.parameters(), lr=t.rate, momentum=t.momentum, weight_decay=t.decay
        )
        if self._checkpoint.exists():
            found = torch.load(self._checkpoint, weights_only=True)
            if self._is_ours(found["settings"]) and found["record"]["data"] == self.record.data:
                self._model.load_state_dict(found["model"])
                self._optimizer.load_state_dict(found["optimizer"])
                self._generator.set_state(found["generator"])
                self._epoch = found["epoch"]
                self.record = RunRecord.from_data(found["record"])

    def _is_ours(self, settings: dict[str, Any]) -> bool:
        return same_settings(settings, self.record.settings)

    def _save(self) -> None:
        self._checkpoint.parent.mkdir(parents=True, exist_ok=True)
        new = self._checkpoint.with_suffix(".part")
        torch.save(
            {
                "settings": self.record.settings,
                "model": self._model.state_dict(),
                "optimizer": self._optimizer.state_dict(),
                "generator": self._generator.get_state(),
                "epoch": self._epoch,
                "record": _plain(asdict(self.record)),
            },
            new,
        )
        new.replace(self._checkpoint)

    def _one_epoch(self, total: int) -> None:
        t = self._training
        for group in self._optimizer.param_groups:
            group["lr"] = 0.5 * t.rate * (1 + math.cos(math.pi * self._epoch / t.epochs))
        order = torch.randperm(len(self._images.labels), generator=self._generator)
        losses, hits, seen = 0.0, 0, 0
        started = time.perf_counter()
        self._model.train()
        # Every epoch has an audit of its own: a sample must not be the same in each.
        chosen = None if t.sample is None else Settings(seed=1000 * t.seed + self._epoch)
        with audit(every=t.every, sample=t.sample, settings=chosen, seconds=None) as watching:
            watching.subscribe(lambda step, _report: self.record.add(step), gradients=False)
            for indices in order.split(t.batch):
                if self.record.steps >= total:
                    break
                inputs = self._inputs(indices).to(t.device)
                labels = self._images.labels[indices].to(t.device)
                batch = (inputs, labels)
                outputs = self._model(inputs)
                loss = torch.nn.functional.cross_entropy(outputs, labels)
                self._optimizer.zero_grad()
                open_before = len(self.record.reasons)
                loss.backward()
                if self._keep is not None and len(self.record.reasons) > open_before:
                    keep_step(self._keep, self._training, self.record.steps, self._model, batch)
                self._optimizer.step()
                losses += float(loss.detach()) * len(labels)
                hits += int((outputs.detach().argmax(1) == labels).sum())
                seen += len(labels)
                self._on_step(self.record.steps)
        self.record.seconds += time.perf_counter() - started
        self.record.losses.append(losses / max(seen, 1))
        self.record.accuracies.append(hits / max(seen, 1))

    def _inputs(self, indices: torch.Tensor) -> torch.Tensor:
        pixels = self._images.pixels[indices]
        if self._training.network is Network.FNN:
            return normalise(pixels)
        return augment(pixels, self._generator)


def keep_step(
    folder: Path,
    training: Training,
    step: int,
    model: nn.Module,
    batch: tuple[torch.Tensor, torch.Tensor],
) -> Path:
    """Write the weights before a step and its batch of inputs and labels to a file.

    Args:
        folder: Where; made if it is not there.
        training: Settings of the run; its label and seed are part of the file's name.
        step: Number of the step, from 1.
        model: The network, before the optimizer's step.
        batch: Inputs and labels of the step.

    Returns:
        The file, for `torch.load(..., weights_only=True)`: "model", "inputs" and "labels".
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{training.label}-{training.seed}-step{step}.pt"
    inputs, labels = batch
    torch.save({"model": model.state_dict(), "inputs": inputs, "labels": labels}, path)
    return path


def _plain(value: Any) -> Any:
    """Enumeration members by value, the rest as it is."""
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return value
