"""What subcommands print: text for people, JSON for programs."""

from __future__ import annotations

import json
import math
import shutil
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console

from clarke.layout import WIDTH, Line, laid
from clarke.report.sheet import Sheet

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


_WIDE = 120  # of tables where there is no terminal
_UNWRAPPED = 1 << 20  # longer than any line


def show_table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table as wide as the terminal."""
    columns = shutil.get_terminal_size((_WIDE, 24)).columns
    console = Console(width=columns, highlight=False, markup=False, emoji=False)
    console.print(Sheet(titles, rows))


def say(*lines: Line | str, err: bool = False) -> None:
    """Print lines of text, wrapped where the terminal ends, at 80 columns at most."""
    columns = shutil.get_terminal_size((WIDTH, 24)).columns
    typer.echo(laid(map(_line, lines), min(columns, WIDTH)), err=err)


def state(line: Line | str) -> None:
    """Print what other programs may read: wrapped in a terminal only."""
    columns = shutil.get_terminal_size((_UNWRAPPED, 24)).columns
    typer.echo(laid([_line(line)], columns))


def _line(line: Line | str) -> Line:
    return line if isinstance(line, Line) else Line(line, "", "  ")


def json_text(value: Any) -> str:
    """JSON of plain data; NaN and infinity, for which it has no word, as text."""
    return json.dumps(_finite(value), indent=2, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {name: _finite(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(part) for part in value]
    return value
