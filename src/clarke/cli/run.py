"""`clarke run`: audit an unmodified training script."""

from __future__ import annotations

import enum
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.text import Text

from clarke import audit
from clarke.cli.life import shown
from clarke.cli.plain import say
from clarke.cli.status import Exit, exit_status
from clarke.integrations.program import Ending, Program, run_program, show_error
from clarke.integrations.recording import new_folder, of_rank, rank, record
from clarke.numerics import STEP_SECONDS
from clarke.report.runs import Run, read_run
from clarke.report.runs.findings import name_of, read_known, run_data, write_known
from clarke.report.runs.terminal import answer, run_view

if TYPE_CHECKING:
    from collections.abc import Collection


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
    ONLY = "only"

    @property
    def answer(self) -> str | None:
        """What an audit is to do about it."""
        others = {WhenNonfinite.IGNORE: None, WhenNonfinite.ONLY: "warn"}
        return others.get(self, str(self.value))


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
        typer.Option(
            help="What to do about NaN and infinity; ignore also exits as without, only looks for "
            "nothing else."
        ),
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
    baseline: Annotated[
        Path | None,
        typer.Option(
            help="Do not count what FILE lists; where there is none yet, write what was found.",
            metavar="FILE",
            show_default=False,
        ),
    ] = None,
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
    if baseline is not None:
        baseline = baseline.resolve()  # the script may change the working directory
        if baseline.exists():
            read_known(baseline)  # what is wrong with it is said before the script runs
    folder = of_rank(out) if out else new_folder(program.name)
    watch = audit(
        on_wrong.value,
        on_nonfinite=on_nonfinite.answer,
        every=every,
        sample=sample,
        seconds=seconds or None,
        keep=folder.resolve() / "kept" if keep else None,
        only_nonfinite=on_nonfinite is WhenNonfinite.ONLY,
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
    _end(read_run(folder), ending, baseline=baseline, strict=strict, as_json=as_json)


def _end(run: Run, ending: Ending, *, baseline: Path | None, strict: bool, as_json: bool) -> None:
    """Show what was found and exit."""
    sys.stdout.flush()
    if ending.error is not None:
        show_error(ending.error)
    if as_json:
        typer.echo(json.dumps({**run_data(run), "folder": str(run.folder)}))
    else:
        console = Console(stderr=True, highlight=False)
        console.width = min(console.width, 80)
        console.print()
        # What processes judge jointly the first one tells.
        console.print(Text(f"rank {rank()}: ").append(answer(run)) if rank() else run_view(run))
        place = shown_path(run.folder)
        console.print(f"the run: {place}", style="dim", soft_wrap=True)
        console.print(f"as a page: clarke report {place}", style="dim", soft_wrap=True)
    found = status_of(run, known_or_new(run, baseline), strict=strict)
    sys.exit(ending.status or int(found))


def status_of(run: Run, known: Collection[str] = (), *, strict: bool = False) -> Exit:
    """The exit status that a run's gradients give: without what is known or ignored."""
    steps = [s for s in run.steps if not s.ignored and (not known or name_of(run, s) not in known)]
    outcomes = [s.outcome for s in steps]
    if len(steps) == len(run.steps):
        outcomes += run.sums()
    without = run.settings.get("on_nonfinite") == WhenNonfinite.IGNORE.value
    return exit_status(
        [v.correct for v in outcomes if v is not None],
        strict=strict,
        nonfinite=not without and any(s.nonfinite for s in steps),
    )


def known_or_new(run: Run, baseline: Path | None) -> frozenset[str]:
    """What a list of known findings holds; where there is no list yet, it is written."""
    if baseline is None:
        return frozenset()
    if not baseline.exists():
        many = write_known(run, baseline)
        say(f"{many} written to {baseline}, which do not count from now on", err=True)
    return read_known(baseline)


def shown_path(path: Path) -> str:
    """A path as short as it can be typed from here."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)
