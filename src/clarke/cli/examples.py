"""`clarke examples`: known right and wrong gradients, each judged here and now."""

from __future__ import annotations

import difflib
import json
import math
import shutil
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from clarke import Report, check
from clarke.cli.plain import say
from clarke.cli.programs import EXAMPLES, Example
from clarke.cli.status import Exit, exit_status
from clarke.layout import Line
from clarke.report.text import report_lines

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

_WIDE = 120


def judge(example: Example) -> Report:
    """The report on one example."""
    return check(example.function, example.inputs())


def examples(
    name: Annotated[
        str | None, typer.Argument(help="One example, with its full report.", show_default=False)
    ] = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    only_list: Annotated[bool, typer.Option("--list", help="Print the names only.")] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with 2 if any gradient stays undecided.")
    ] = False,
) -> None:
    """Judge the gradients of small programs whose generalized gradients are known.

    Exits with 1 when a wrong gradient is found, and several of these are wrong.
    """
    chosen = EXAMPLES if name is None else (_find(name),)
    if only_list:
        for example in chosen:
            say(Line(example.formula, f"{example.name:16} ", " " * 17))
        return
    reports = [judge(example) for example in chosen]
    if as_json:
        found = [as_data(e, r) for e, r in zip(chosen, reports, strict=True)]
        typer.echo(json.dumps(found if name is None else found[0], indent=2, allow_nan=False))
    elif name is None:
        _print_table(chosen, reports)
    else:
        say(*_heading(chosen[0]), *report_lines(reports[0]))
    raise typer.Exit(exit_status((r.correct for r in reports), strict=strict))


def as_data(example: Example, report: Report) -> dict[str, Any]:
    """One example with its report, as plain data for JSON (NaN and infinities as text)."""
    data = {
        "name": example.name,
        "formula": example.formula,
        "point": example.point,
        "source": example.source,
        "explanation": example.explanation,
        "report": report.to_dict(),
    }
    finite: dict[str, Any] = _finite(data)
    return finite


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def _find(name: str) -> Example:
    for example in EXAMPLES:
        if example.name == name:
            return example
    near = difflib.get_close_matches(name, [e.name for e in EXAMPLES], n=1)
    hint = f" Did you mean {near[0]}?" if near else ""
    typer.echo(
        f"There is no example {name!r}.{hint} `clarke examples --list` names them.", err=True
    )
    raise typer.Exit(Exit.USAGE)


def _heading(example: Example) -> list[str | Line]:
    at = f"{example.formula} at {_numbers(example.point)}"
    return [f"{example.name}: {at}  [{example.source}]", Line(example.explanation), ""]


def _numbers(point: Sequence[Any]) -> str:
    flat = [x for p in point for x in (p if isinstance(p, tuple) else (p,))]
    shown = ", ".join(f"{x:g}" for x in flat)
    return f"({shown})" if len(flat) > 1 else shown


def _gradient(gradient: Sequence[torch.Tensor]) -> str:
    return _numbers([x for g in gradient for x in g.reshape(-1).tolist()])


def _print_table(chosen: Sequence[Example], reports: Sequence[Report]) -> None:
    width = shutil.get_terminal_size((_WIDE, 24)).columns
    table = Table(box=None, pad_edge=False, show_lines=False)
    for title in ("example", "function and point", "verdict", "AD", "why"):
        table.add_column(title, overflow="fold", no_wrap=title in ("example", "verdict"))
    for example, report in zip(chosen, reports, strict=True):
        table.add_row(
            example.name,
            f"{example.formula} at {_numbers(example.point)}",
            report.verdict.name,
            _gradient(report.gradient),
            example.explanation,
        )
    console = Console(width=max(width, 80), highlight=False, markup=False, emoji=False)
    console.print(table)
    right = sum(r.correct is True for r in reports)
    wrong = sum(r.correct is False for r in reports)
    rest = len(reports) - right - wrong
    console.print(f"\n{right} correct, {wrong} wrong, {rest} neither.", style="bold")
