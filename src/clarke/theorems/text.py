"""How places and long lines are written."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from clarke.capture import Location

_WIDTH = 80


def place(location: Location) -> str:
    """The module in which something stands, or its file and line."""
    return location.module or f"{location.file.rsplit('/', 1)[-1]}:{location.line}"


def wrap(text: str, first: str, then: str) -> list[str]:
    """A text in lines; `first` and `then` stand before the first line and the others."""
    # A table's columns are runs of spaces: keep them.
    if len(first) + len(text) <= _WIDTH:
        return [first + text]
    return textwrap.wrap(
        text, _WIDTH, initial_indent=first, subsequent_indent=then, break_on_hyphens=False
    )
