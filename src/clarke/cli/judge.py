"""`clarke judge`: take steps that were kept up the ladder, with as much time as they are given."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from clarke.cli.plain import say
from clarke.cli.status import exit_status
from clarke.numerics import CHECK_SECONDS
from clarke.proof import judge_stored, load, save_certificate
from clarke.report import build_report
from clarke.report.text import report_lines


def judge(
    files: Annotated[list[Path], typer.Argument(help="Files of steps that an audit kept.")],
    *,
    seconds: Annotated[
        float, typer.Option(min=0.0, help="Time limit for each of them, in seconds; 0 for none.")
    ] = float(CHECK_SECONDS),
    save: Annotated[
        bool, typer.Option("--save", help="Write each proof beside its step, as FILE.proof.clarke.")
    ] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with 2 if any gradient stays undecided.")
    ] = False,
) -> None:
    """Judge steps that were kept by clarke run --keep or audit(keep=...), or by somebody else.

    Exits with 1 when a wrong gradient is found.
    """
    found = []
    for path in files:
        stored = load(path)
        decision = judge_stored(stored, seconds or None)
        report = build_report(decision, stored.gradient)
        say(str(path), *report_lines(report))
        found.append(report.correct)
        if save and report.certificate is not None:
            kept = path.with_name(f"{path.name}.proof.clarke")
            save_certificate(
                report.certificate, kept, verdict=report.verdict, theorem=report.theorem
            )
            say(f"the proof: {kept}")
    raise typer.Exit(exit_status(found, strict=strict))
