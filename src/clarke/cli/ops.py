"""`clarke ops`: what PyTorch returns at the kinks of its operations, measured."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import torch
import typer
from rich.console import Console
from rich.table import Table

from clarke.atlas import AtlasRow, atlas, differences, points
from clarke.atlas.coverage import coverage, coverage_page
from clarke.atlas.page import TITLES, cells, differences_page, page

if TYPE_CHECKING:
    from collections.abc import Sequence

_WIDE = 120


def ops(
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Print a Markdown page.")] = False,
    diff: Annotated[
        Path | None, typer.Option("--diff", help="Compare with another version's JSON.")
    ] = None,
    only: Annotated[str, typer.Option("--only", help="Only calls that contain this text.")] = "",
    covered: Annotated[
        bool, typer.Option("--coverage", help="Which of PyTorch's operations are known.")
    ] = False,
) -> None:
    """Print what the installed PyTorch returns at the kinks of its operations.

    Every line is measured by running the operation at and around its kink in float64.
    """
    version = str(torch.__version__)
    if covered:
        names = [only] if only else None
        typer.echo(coverage_page(coverage(names), version))
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of beta functions; the atlas runs them all
        rows = atlas(p for p in points() if only in p.call)
    if diff is not None:
        _print_differences(_load(diff), rows, version, as_page=as_markdown)
    elif as_json:
        data = {"torch": version, "rows": [r.to_dict() for r in rows]}
        typer.echo(json.dumps(data, indent=1, allow_nan=False))
    elif as_markdown:
        typer.echo(page(rows, version), nl=False)
    else:
        _print_table(rows, version)


def _load(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        rows, version = data["rows"], data["torch"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise typer.BadParameter(
            f"{path} is no atlas ({error}). Write one with `clarke ops --json > {path.name}`."
        ) from error
    return {"rows": rows, "torch": version}


def _print_differences(
    other: dict[str, Any], rows: Sequence[AtlasRow], version: str, *, as_page: bool
) -> None:
    changes = differences(other["rows"], [r.to_dict() for r in rows])
    if as_page:
        typer.echo(differences_page(changes, str(other["torch"]), version), nl=False)
        return
    typer.echo(f"torch {other['torch']} -> {version}: {len(changes)} differences")
    for change in changes:
        typer.echo(f"  {change}")


def _print_table(rows: Sequence[AtlasRow], version: str) -> None:
    width = max(shutil.get_terminal_size((_WIDE, 24)).columns, 80)
    table = Table(box=None, pad_edge=False)
    for title in TITLES:
        table.add_column(title, overflow="fold")
    for row in rows:
        table.add_row(*(c.replace("\\|", "|") for c in cells(row)))
    console = Console(width=width, highlight=False, markup=False, emoji=False)
    console.print(f"torch {version}, measured in float64\n")
    console.print(table)
