"""How places are written."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from clarke.capture import Location


def place(location: Location) -> str:
    """The module in which something stands, or its file and line."""
    return location.module or f"{location.file.rsplit('/', 1)[-1]}:{location.line}"
