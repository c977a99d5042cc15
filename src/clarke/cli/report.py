"""`clarke report`: a run as a page of HTML, or two runs compared."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from clarke.cli.run import shown_path
from clarke.errors import InputError
from clarke.report.runs import read_run
from clarke.report.runs.compare import Comparison, compare, comparison_page
from clarke.report.runs.findings import ci_annotations, read_known, run_data, sarif
from clarke.report.runs.page import run_page
from clarke.report.runs.terminal import comparison_view, run_view
from clarke.report.suites import compare_suites, read_suite, suite_view


def report(
    run: Annotated[
        Path,
        typer.Argument(
            help="Folder of a run, as `clarke run` made it; or a file of `pytest --clarke-record`."
        ),
    ],
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
    as_sarif: Annotated[
        bool, typer.Option("--sarif", help="Print what was found as SARIF, for code hosts.")
    ] = False,
    as_annotations: Annotated[
        bool,
        typer.Option("--annotations", help="Print what was found as annotations of GitHub's CI."),
    ] = False,
    baseline: Annotated[
        Path | None,
        typer.Option(
            help="With --sarif or --annotations: leave out what FILE lists as known.",
            metavar="FILE",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Write what was found in a run as one page of HTML that needs no network.

    With two runs, compare them: which kinks changed convention, which verdicts changed. With two
    files of gradients: which tests changed.
    """
    forms = {
        "--json": as_json,
        "--text": as_text,
        "--sarif": as_sarif,
        "--annotations": as_annotations,
    }
    asked = [name for name, given in forms.items() if given]
    if len(asked) > 1:
        raise InputError(f"{' and '.join(asked)} exclude each other. Give one of them.")
    if other is not None and (as_sarif or as_annotations):
        raise InputError(f"{asked[0]} tells of one run. Name one folder.")
    if run.is_file() and other is not None:
        _suites(run, other, as_json=as_json)
        return
    with Console(stderr=True).status("Reading"):  # seen on a terminal only
        first = read_run(run)
        both = None if other is None else compare(first, read_run(other))
    if as_sarif or as_annotations:
        known = frozenset[str]() if baseline is None else read_known(baseline)
        found = json.dumps(sarif(first, known)) if as_sarif else ci_annotations(first, known)
        typer.echo(found, nl=bool(found))
        return
    if as_json:
        typer.echo(json.dumps(run_data(first) if both is None else comparison_data(both)))
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


def _suites(first: Path, second: Path, *, as_json: bool) -> None:
    """Two files of `pytest --clarke-record`."""
    found = compare_suites(read_suite(first), read_suite(second))
    if as_json:
        typer.echo(json.dumps(found.to_dict()))
        return
    console = Console(highlight=False)
    console.width = min(console.width, 120)
    console.print(suite_view(found))


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
        "first": run_data(found.first),
        "second": run_data(found.second),
    }
