"""`clarke reproduce`: the experiments of the paper, with its figures beside ours."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from clarke.cli.progress import shown_progress
from clarke.cli.status import Exit
from clarke.errors import InputError
from clarke.experiments.campaign import Campaign, tables
from clarke.experiments.models import Activation
from clarke.experiments.plots import plot_all, plot_patches
from clarke.experiments.record import RunRecord
from clarke.experiments.scenario import Network, Training
from clarke.experiments.tied_patches import find_examples

_EXAMPLES = 4  # images of each kind


def reproduce(  # noqa: PLR0913 - one for each option of the command
    network: Annotated[Network, typer.Argument(help="Which network to train under audit.")],
    *,
    data: Annotated[
        str,
        typer.Option(
            help="Folder with the official MNIST or CIFAR-10 (binary) files; "
            "'digits' for the digits that come with scikit-learn."
        ),
    ] = "data",
    runs: Annotated[int, typer.Option(min=1, help="Trainings, each with a seed of its own.")] = 5,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the training images.")] = 20,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Stop every run after so many steps.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the first run.")] = 0,
    activation: Annotated[
        list[Activation] | None, typer.Option(help="For fnn: only this one (repeatable).")
    ] = None,
    every: Annotated[int, typer.Option(min=1, help="Judge every so many steps.")] = 1,
    sample: Annotated[
        float | None,
        typer.Option(help="Judge a step with this probability only, drawn at random."),
    ] = None,
    momentum: Annotated[
        float, typer.Option(min=0, max=1, help="Of SGD; the paper names none.")
    ] = 0.0,
    device: Annotated[str, typer.Option(help="Where to train.")] = "cpu",
    out: Annotated[Path, typer.Option(help="Folder for results; finished runs there are kept.")] = (
        Path("runs") / "reproduce"
    ),
    keep: Annotated[
        Path | None,
        typer.Option(
            help="Folder for weights and batch of every step that is not proved right "
            "(see benchmarks/judge_steps.py)."
        ),
    ] = None,
    train: Annotated[
        bool,
        typer.Option(
            help="With --no-train, tables and plots of what is there, also of unfinished runs."
        ),
    ] = True,
    plots: Annotated[bool, typer.Option(help="Draw plots (needs matplotlib).")] = True,
    strict: Annotated[bool, typer.Option(help="Exit with 2 if any step stays undecided.")] = False,
) -> None:
    """Train a network of the paper, judging every gradient, and print the paper's table.

    Interrupt it at any time: the same command goes on from the last complete epoch, and finished
    runs are not repeated.
    """
    campaign = Campaign(
        Training(
            network,
            epochs=epochs,
            steps=steps,
            seed=seed,
            every=every,
            device=device,
            momentum=momentum,
            sample=sample,
        ),
        runs,
        data,
        out,
        tuple(activation) if activation else tuple(Activation),
        keep,
    )
    console = Console()
    _make_folder(out)
    if activation and network is not Network.FNN:
        raise InputError(f"--activation is for fnn; {network.value} has activations of its own.")
    records = _train(campaign) if train else campaign.stored()
    found = tables(network, records)
    results = out / f"{network.value}.json"
    summary = {"tables": [asdict(t) for t in found], "records": [asdict(r) for r in records]}
    results.write_text(json.dumps(summary), encoding="utf-8")
    (out / f"{network.value}.md").write_text(
        "\n\n".join(t.markdown() for t in found) + "\n", encoding="utf-8"
    )
    for table in found:
        console.print(table.markdown(), soft_wrap=True, markup=False, highlight=False)
        console.print()
    made = [results]
    if plots:
        made += plot_all(records, out)
        if network is not Network.FNN and train:
            examples = find_examples(campaign.trainings()[0], campaign.images(), _EXAMPLES)
            title = f"{network.value} on {records[0].data}: ties of the first maxpool"
            made.append(plot_patches(*examples, title, out / f"{network.value}-ties.png"))
    console.print("written: " + ", ".join(map(str, made)), soft_wrap=True, highlight=False)
    verdicts = {name for r in records for name in r.verdicts}
    if "NOT_CLARKE" in verdicts:
        raise typer.Exit(Exit.WRONG)
    if strict and verdicts - {"SMOOTH", "BOULIGAND", "CLARKE"}:
        raise typer.Exit(Exit.UNDECIDED)


def _make_folder(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"{out} cannot be made the folder of the results: {error.strerror}. "
            "Name another one with --out."
        ) from error


def _train(campaign: Campaign) -> list[RunRecord]:
    """Train, with a bar of progress."""
    trainings = campaign.trainings()
    with shown_progress(Console(stderr=True)) as show:

        def shown(training: Training, done: int, total: int) -> None:
            before = trainings.index(training) * total
            show(f"{training.label}, seed {training.seed}", before + done, len(trainings) * total)

        return campaign.run(shown)
