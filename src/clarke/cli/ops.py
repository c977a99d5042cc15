"""`clarke ops`: what PyTorch returns at the kinks of its operations, measured."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Annotated, Any

import torch
import typer
from rich.console import Console
from rich.table import Table

from clarke.kinks.conventions import Convention, conventions

if TYPE_CHECKING:
    from collections.abc import Sequence

_TITLES = ("operation", "call", "kink", "slopes of the pieces", "AD", "weights")
_WIDE = 120


def ops(
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    as_markdown: Annotated[
        bool, typer.Option("--markdown", help="Print a Markdown table.")
    ] = False,
) -> None:
    """Print what the installed PyTorch returns at the kinks of its operations.

    Every line is measured by running the operation at its kink in float64.
    """
    rows = conventions()
    if as_json:
        data = {"torch": str(torch.__version__), "rows": [as_data(r) for r in rows]}
        typer.echo(json.dumps(data, indent=2, allow_nan=False))
    elif as_markdown:
        typer.echo(markdown(rows))
    else:
        _print_table(rows)


def as_data(row: Convention) -> dict[str, Any]:
    """One row as plain data for JSON; numbers that JSON lacks become text."""
    return {
        "operation": row.operation,
        "call": row.call,
        "kink": row.kink,
        "slopes": [[_json_number(x) for x in slope] for slope in row.slopes],
        "gradient": [_json_number(x) for x in row.gradient],
        "weights": list(row.weights),
        "hazard": None if row.hazard is None else row.hazard.name,
        "selects": row.selects,
    }


def _json_number(value: float) -> float | str:
    return value if abs(value) < float("inf") else str(value)


def cells(row: Convention) -> tuple[str, ...]:
    """The texts of one line of the table."""
    last = ", ".join(f"{w:.3g}" for w in row.weights)
    if row.hazard is not None:
        last = row.hazard.value.split(":", maxsplit=1)[0]
    return (
        row.operation.removesuffix(".default"),
        row.call,
        row.kink,
        " | ".join(_vector(s) for s in row.slopes) or "-",
        _vector(row.gradient),
        last,
    )


def _vector(values: Sequence[float]) -> str:
    shown = ", ".join(f"{v:.4g}" for v in values)
    return f"({shown})" if len(values) > 1 else shown


def markdown(rows: Sequence[Convention]) -> str:
    """The table in Markdown."""
    lines = [_markdown_line(_TITLES), "|---" * len(_TITLES) + "|"]
    lines += [_markdown_line(cells(row)) for row in rows]
    return "\n".join(lines)


def _markdown_line(texts: Sequence[str]) -> str:
    return "| " + " | ".join(t.replace("|", "\\|") for t in texts) + " |"


def _print_table(rows: Sequence[Convention]) -> None:
    width = max(shutil.get_terminal_size((_WIDE, 24)).columns, 80)
    table = Table(box=None, pad_edge=False)
    for title in _TITLES:
        table.add_column(title, overflow="fold")
    for row in rows:
        table.add_row(*cells(row))
    console = Console(width=width, highlight=False, markup=False, emoji=False)
    console.print(f"torch {torch.__version__}, measured in float64\n")
    console.print(table)
