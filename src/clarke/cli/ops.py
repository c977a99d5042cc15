"""`clarke ops`: what PyTorch returns at the kinks of its operations, measured."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import torch
import typer

from clarke.atlas import AtlasRow, Change, atlas, differences, points
from clarke.atlas.coverage import coverage, coverage_page
from clarke.atlas.page import (
    CHANGE_TITLES,
    TITLES,
    by_effect,
    cells,
    change_cells,
    differences_page,
    page,
)
from clarke.cli.plain import say, show_table
from clarke.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence


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
        found = coverage([only] if only else None)
        if not found:
            raise InputError(f"PyTorch's operator database has no operation named {only!r}.")
        typer.echo(coverage_page(found, version))
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of beta functions; the atlas runs them all
        rows = atlas(p for p in points() if only in p.call)
    if not rows:
        raise InputError(f"No call of the atlas contains {only!r}; `clarke ops` prints them all.")
    if diff is not None:
        other = _load(diff)
        changes, before = _differences(other, rows, diff), str(other["torch"])
        if as_json:
            data = {"before": before, "after": version, "changes": [c.to_dict() for c in changes]}
            typer.echo(json.dumps(data, indent=1, allow_nan=False))
        elif as_markdown:
            typer.echo(differences_page(changes, before, version), nl=False)
        else:
            _print_differences(changes, before, version)
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


def _differences(other: dict[str, Any], rows: Sequence[AtlasRow], path: Path) -> tuple[Change, ...]:
    try:
        return differences(other["rows"], [r.to_dict() for r in rows])
    except (KeyError, TypeError, ValueError) as error:
        raise typer.BadParameter(
            f"{path} is the atlas of another version of clarke ({error!r}). Write it again with "
            f"`clarke ops --json > {path.name}`."
        ) from error


def _print_differences(changes: Sequence[Change], before: str, after: str) -> None:
    say(f"torch {before} -> {after}: {len(changes)} differences")
    for effect, of_it in by_effect(changes):
        say("", f"{effect.value}: {len(of_it)}", "")
        show_table(CHANGE_TITLES, map(change_cells, of_it))


def _print_table(rows: Sequence[AtlasRow], version: str) -> None:
    say(f"torch {version}, measured in float64", "")
    show_table(TITLES, ([c.replace("\\|", "|") for c in cells(row)] for row in rows))
