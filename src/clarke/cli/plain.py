"""What subcommands print: text for people, JSON for programs."""

from __future__ import annotations

import json
import math
import shutil
from typing import Any

import typer

from clarke.layout import WIDTH, Line, laid


def say(*lines: Line | str, err: bool = False) -> None:
    """Print lines of text, wrapped where the terminal ends, at 80 columns at most."""
    whole = [x if isinstance(x, Line) else Line(x, "", "  ") for x in lines]
    columns = shutil.get_terminal_size((WIDTH, 24)).columns
    typer.echo(laid(whole, min(columns, WIDTH)), err=err)


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
