"""`clarke demo`: train a small network on handwritten digits under audit, show what was found."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from clarke import audit
from clarke.cli.plain import say
from clarke.cli.status import exit_status
from clarke.experiments.digits import Overhead, Training, measure_overhead, read_digits
from clarke.experiments.kinked import Kinked, judge_at_a_kink
from clarke.integrations.recording import step_record
from clarke.layout import Line
from clarke.report.runs import RunWriter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from clarke import Summary

_TIMED = 20


def demo(
    *,
    steps: Annotated[int, typer.Option(min=1, help="Training steps, each of them judged.")] = 220,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for the run; by default runs/demo-TIME.", show_default=False),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the initial weights and the batches.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with 2 if any gradient stays undecided.")
    ] = False,
) -> None:
    """Train a convolutional network on scikit-learn's handwritten digits, every gradient judged.

    Convolution, BatchNorm, ReLU and maxpool, twice, then a linear layer. Prints the accuracy, the
    verdicts, how often each layer stood at a kink, and what the audit costs. Then one step of a
    loss that goes wrong at a kink, with the proof and the repaired gradient.
    """
    folder = out or Path("runs") / f"demo-{datetime.now():%Y%m%d-%H%M%S}"  # noqa: DTZ005 - the user's clock
    training = Training(read_digits(), seed=seed)
    writer = RunWriter(folder, _settings(steps, seed))
    watch = audit()
    watch.subscribe(lambda step, _report: writer.write(step_record(step, None)), gradients=False)
    console = Console(stderr=as_json)
    with _progress(console) as follow:
        tick = follow("training", steps)
        with watch:
            for _ in range(steps):
                loss = training.step()
                tick(f"loss {loss:.3f}")
        tick = follow("timing", _TIMED)
        overhead = measure_overhead(training, _TIMED, lambda: tick(""))
        tick = follow("kink", 1)
        kinked = judge_at_a_kink(training.data)
        tick("")
    summary = watch.summary()
    found = {
        "accuracy": training.accuracy(),
        "overhead": {**vars(overhead), "ratio": overhead.ratio},
        "kink": {
            "verdict": kinked.report.verdict.name,
            "repaired": kinked.repaired,
            "error": kinked.error,
            "left": kinked.left,
        },
        **summary.to_dict(),
    }
    writer.finish(found)
    if as_json:
        typer.echo(json.dumps({"folder": str(folder), **found}, indent=2))
    else:
        lines = _lines(found["accuracy"], summary, overhead, folder)
        for text in (*lines, *_kink_lines(kinked)):
            say(*(Line(row, then="    ") for row in text.split("\n")))
    raise typer.Exit(exit_status((s.correct for s in watch.steps if s.looked), strict=strict))


def _lines(accuracy: float, summary: Summary, overhead: Overhead, folder: Path) -> Iterator[str]:
    yield f"Accuracy on the test images: {100 * accuracy:.1f} %"
    yield ""
    yield str(summary)
    yield ""
    yield (
        f"One step takes {1000 * overhead.plain:.1f} ms plain and "
        f"{1000 * overhead.audited:.1f} ms under audit: {overhead.ratio:.2f}x"
    )
    yield f"  (medians of {overhead.steps} each, in turn, in this process)"
    yield ""
    yield f"The run is in {folder}: steps.jsonl, summary.json."


def _kink_lines(kinked: Kinked) -> Iterator[str]:
    yield ""
    yield "Now a loss that goes wrong at a kink: clamp(x, min=0) - x * t + log1p(exp(-abs(x))),"
    yield "in the first step of a layer that starts at zero, so that every logit x is 0:"
    yield ""
    yield str(kinked.report)
    yield ""
    if kinked.repaired:
        yield (
            f"Autograd's gradient was off by {kinked.error:.3g}. "
            f'With audit("repair"), .grad is off by {kinked.left:.3g}.'
        )


def _settings(steps: int, seed: int) -> dict[str, Any]:
    return {
        "program": "clarke demo",
        "arguments": ["--steps", str(steps), "--seed", str(seed)],
        "started": datetime.now().astimezone().isoformat(timespec="seconds"),
        "clarke": importlib.metadata.version("clarke"),
        "torch": importlib.metadata.version("torch"),
    }


@contextlib.contextmanager
def _progress(console: Console) -> Iterator[Callable[[str, int], Callable[[str], None]]]:
    """Bars on a terminal, nothing when piped: ``follow(name, total)`` returns what to call."""
    columns = (
        TextColumn("{task.description:8}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as bars:

        def follow(name: str, total: int) -> Callable[[str], None]:
            task = bars.add_task(name, total=total, note="")
            return lambda note: bars.update(task, advance=1, note=note)

        yield follow
