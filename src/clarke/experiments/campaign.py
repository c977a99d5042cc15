"""All runs of one network: in order, skipping finished ones, with results on disk."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from clarke.errors import InputError
from clarke.experiments.data import load
from clarke.experiments.models import Activation
from clarke.experiments.record import RunRecord
from clarke.experiments.scenario import Network, Training
from clarke.experiments.table import Table, scenario_one, scenario_two, verdict_table
from clarke.experiments.train import Run, stored_record, total_steps

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from clarke.experiments.data import Images

    Progress = Callable[["Training", int, int], None]


@dataclass(frozen=True)
class Campaign:
    """What `clarke reproduce` runs.

    Attributes:
        training: Settings of all runs; seeds count up from its seed.
        runs: How many runs, for each activation in scenario 1.
        activations: Of scenario 1.
        keep: Folder for weights and batches of steps that are not proved right, or None.
        data: Folder of the official files, or "digits".
        out: Folder of the results.
    """

    training: Training
    runs: int
    data: str
    out: Path
    activations: tuple[Activation, ...] = tuple(Activation)
    keep: Path | None = None

    def trainings(self) -> tuple[Training, ...]:
        """Every run, in the order in which they are done."""
        first = self.training
        kinds: tuple[Activation | None, ...] = (None,)
        if first.network is Network.FNN:
            kinds = self.activations
        return tuple(
            replace(first, seed=first.seed + i, activation=kind)
            for i in range(self.runs)
            for kind in kinds
        )

    def run(self, progress: Progress = lambda _training, _done, _total: None) -> list[RunRecord]:
        """Do all runs that are not finished yet; returns the records of all.

        Raises:
            InputError: The data are not there, or a setting is out of range.
        """
        self.training.require()
        images = self.images()
        return [self._one(t, images, progress) for t in self.trainings()]

    def images(self) -> Images:
        """The training images."""
        return load(self.training.network.source, self.data)

    def stored(self) -> list[RunRecord]:
        """What has been written down of these runs so far, unfinished ones as far as they got.

        Whatever their settings were.

        Raises:
            InputError: There is nothing.
        """
        found = [stored_record(self.out / t.label, t.seed) for t in self.trainings()]
        records = [r for r in found if r is not None]
        if not records:
            raise InputError(
                f"There is no run of {self.training.network.value} in {self.out}. Leave out "
                "--no-train to make one, or name its folder with --out and its seed with --seed."
            )
        return records

    def _one(self, training: Training, images: Images, progress: Progress) -> RunRecord:
        total = total_steps(training, images)
        run = Run(
            training,
            images,
            self.out / training.label,
            lambda done: progress(training, done, total),
            keep=self.keep,
        )
        record = run.run()
        progress(training, total, total)
        return record


def tables(network: Network, records: Sequence[RunRecord]) -> tuple[Table, ...]:
    """The paper's table for a network, and what became of every step."""
    first = scenario_one(records) if network is Network.FNN else scenario_two(network, records)
    return (first, verdict_table(records))
