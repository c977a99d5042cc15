"""`clarke run`: audit an unmodified training script."""

from __future__ import annotations

import enum
import json
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from clarke import audit
from clarke.cli.life import shown
from clarke.cli.status import exit_status
from clarke.integrations.program import Ending, Program, run_program, show_error
from clarke.integrations.recording import new_folder, record
from clarke.numerics import STEP_SECONDS
from clarke.report.runs import Run, read_run
from clarke.report.runs.terminal import run_view


class WhenWrong(str, enum.Enum):
    """What to do about a gradient that is proved wrong."""

    WARN = "warn"
    RAISE = "raise"
    REPAIR = "repair"


class WhenNonfinite(str, enum.Enum):
    """What to do about a gradient with NaN or infinity."""

    WARN = "warn"
    RAISE = "raise"
    REPAIR = "repair"
    IGNORE = "ignore"


def run(
    command: Annotated[
        list[str],
        typer.Argument(metavar="SCRIPT", help="The script, followed by its own arguments."),
    ],
    *,
    is_module: Annotated[
        bool, typer.Option("-m", help="SCRIPT is the name of a module, as in python -m.")
    ] = False,
    every: Annotated[
        int, typer.Option(min=1, help="Look at every so many backward calls only.")
    ] = 1,
    sample: Annotated[
        float | None,
        typer.Option(help="Look at a backward call with this probability only, drawn at random."),
    ] = None,
    on_wrong: Annotated[
        WhenWrong, typer.Option(help="What to do about a gradient that is proved wrong.")
    ] = WhenWrong.WARN,
    on_nonfinite: Annotated[
        WhenNonfinite,
        typer.Option(help="What to do about NaN and infinity; ignore also exits as without them."),
    ] = WhenNonfinite.WARN,
    seconds: Annotated[
        float,
        typer.Option(
            min=0.0, help="Time limit of judging one backward call, in seconds; 0 for none."
        ),
    ] = float(STEP_SECONDS),
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with 2 if any gradient stays undecided.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of the run.  [default: runs/NAME-TIME]", show_default=False),
    ] = None,
    keep: Annotated[
        bool,
        typer.Option(
            "--keep", help="Keep calls that are not proved right, for clarke judge, in FOLDER/kept."
        ),
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="End the output with the summary as one line of JSON.")
    ] = False,
) -> None:
    """Run a script as it is and judge the gradient of every backward call in it.

    Exits as the script does; if that is with 0, with 1 when a wrong gradient was found, with 3 when
    one was not finite.
    """
    program = Program(command[0], tuple(command[1:]), is_module)
    program.require()
    folder = out or new_folder(program.name)
    watch = audit(
        on_wrong.value,
        on_nonfinite=None if on_nonfinite is WhenNonfinite.IGNORE else on_nonfinite.value,
        every=every,
        sample=sample,
        seconds=seconds or None,
        keep=folder.resolve() / "kept" if keep else None,
    )
    writer = record(
        watch,
        folder,
        {
            "program": program.target,
            "arguments": list(program.arguments),
            "module": is_module,
            "every": every,
            "sample": sample,
            "on_wrong": on_wrong.value,
            "on_nonfinite": on_nonfinite.value,
            "seconds": seconds,
            "strict": strict,
        },
    )
    folder = folder.resolve()  # the script may change the working directory
    writer.folder = folder
    started = time.perf_counter()
    ending = Ending(1)
    try:
        with shown(watch, folder, every), watch:
            ending = run_program(program)
    finally:
        elapsed = time.perf_counter() - started
        found = watch.summary().to_dict()
        for part in ("places", "firsts"):  # the steps have them
            found.pop(part, None)
        found["judging"] = found.pop("seconds")
        writer.finish({"ended": ending.words, "status": ending.status, "seconds": elapsed, **found})
    _end(read_run(folder), ending, strict=strict, as_json=as_json)


def _end(run: Run, ending: Ending, *, strict: bool, as_json: bool) -> None:
    """Show what was found and exit."""
    sys.stdout.flush()
    if ending.error is not None:
        show_error(ending.error)
    if as_json:
        typer.echo(json.dumps({**summary_data(run), "folder": str(run.folder)}))
    else:
        console = Console(stderr=True, highlight=False)
        console.width = min(console.width, 80)
        console.print()
        console.print(run_view(run))
        place = shown_path(run.folder)
        console.print(f"the run: {place}", style="dim", soft_wrap=True)
        console.print(f"as a page: clarke report {place}", style="dim", soft_wrap=True)
    outcomes = [*(s.outcome for s in run.steps), *run.sums()]
    ignored = run.settings.get("on_nonfinite") == WhenNonfinite.IGNORE.value
    infinite = any(s.nonfinite for s in run.steps)
    found = exit_status(
        [v.correct for v in outcomes if v is not None],
        strict=strict,
        nonfinite=infinite and not ignored,
    )
    sys.exit(ending.status or int(found))


def summary_data(run: Run) -> dict[str, Any]:
    """A run's summary as plain data: the one in its folder, or what the steps say."""
    return {
        "program": run.settings.get("program"),
        "finished": run.finished,
        "calls": len(run.steps),
        "judged": run.looked,
        "verdicts": {v.name: n for v, n in run.counts().items()},
        "touched": sum(s.touched for s in run.steps),
        "relevant": sum(s.relevant for s in run.steps),
        "judging": sum(s.seconds for s in run.steps),
        "seconds": run.summary.get("seconds"),
        "ended": run.summary.get("ended"),
        "settings": dict(run.settings),
    }


def shown_path(path: Path) -> str:
    """A path as short as it can be typed from here."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)
