"""`clarke report`: a run as a page of HTML, or two runs compared."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from clarke.cli.run import shown_path, summary_data
from clarke.errors import InputError
from clarke.report.runs import read_run
from clarke.report.runs.compare import Comparison, compare, comparison_page
from clarke.report.runs.page import run_page
from clarke.report.runs.terminal import comparison_view, run_view


def report(
    run: Annotated[Path, typer.Argument(help="Folder of a run, as `clarke run` made it.")],
    other: Annotated[
        Path | None, typer.Argument(help="Another one to compare it with.", show_default=False)
    ] = None,
    *,
    out: Annotated[
        Path | None,
        typer.Option(
            help="File to write.  [default: report.html or comparison.html in the run's folder]",
            show_default=False,
        ),
    ] = None,
    as_text: Annotated[
        bool, typer.Option("--text", help="Print the report here; write no page.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON; write no page.")] = False,
) -> None:
    """Write what was found in a run as one page of HTML that needs no network.

    With two runs, compare them: which kinks changed convention, which verdicts changed.
    """
    if as_json and as_text:
        raise InputError("--json and --text exclude each other. Give one of them.")
    with Console(stderr=True).status("Reading"):  # seen on a terminal only
        first = read_run(run)
        both = None if other is None else compare(first, read_run(other))
    if as_json:
        typer.echo(json.dumps(summary_data(first) if both is None else comparison_data(both)))
        return
    if as_text:
        console = Console(highlight=False)
        console.width = min(console.width, 80)
        console.print(run_view(first) if both is None else comparison_view(both))
        return
    page = out or run / ("report.html" if both is None else "comparison.html")
    with Console(stderr=True).status("Writing the page"):
        text = run_page(first) if both is None else comparison_page(both)
        try:
            page.write_text(text, encoding="utf-8")
        except OSError as error:
            raise InputError(
                f"{page} cannot be written: {error.strerror}. Name another file with --out."
            ) from error
    typer.echo(shown_path(page))


def comparison_data(found: Comparison) -> dict[str, object]:
    """A comparison as plain data."""
    return {
        "answer": found.answer,
        "settings": {k: list(v) for k, v in found.settings.items()},
        "changed": [
            {
                "operation": p.either.operation,
                "module": p.either.module,
                "file": p.either.file,
                "line": p.either.line,
                "first": list(p.first.choices if p.first else ()),
                "second": list(p.second.choices if p.second else ()),
            }
            for p in found.changed
        ],
        "verdicts": [
            {
                "step": a.number,
                "first": a.outcome.name if a.outcome else None,
                "second": b.outcome.name if b.outcome else None,
            }
            for a, b in found.verdicts
        ],
        "first": summary_data(found.first),
        "second": summary_data(found.second),
    }
