"""Texts as lines that are wrapped where they are printed, at 80 columns or those of a terminal."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

WIDTH = 80  # where nobody knows better, and the widest at which sentences are wrapped


class Line(NamedTuple):
    """What stands in one line where there is room, and how it goes on where there is not.

    Attributes:
        text: The words.
        first: Stands before the first line.
        then: Stands before the others.
    """

    text: str
    first: str = ""
    then: str = ""

    def under(self, margin: str) -> Line:
        """The same, further to the right."""
        return Line(self.text, margin + self.first, margin + self.then)

    def at(self, width: int) -> list[str]:
        """The lines of a page as wide; only a word that is longer is longer than that."""
        # A table's columns are runs of spaces: keep them.
        if len(self.first) + len(self.text) <= width and "\n" not in self.text:
            return [(self.first + self.text).rstrip()]
        return textwrap.wrap(
            self.text,
            width,
            initial_indent=self.first,
            subsequent_indent=self.then,
            break_long_words=False,
            break_on_hyphens=False,
        )


def laid(lines: Iterable[Line], width: int = WIDTH) -> str:
    """A text of lines."""
    return "\n".join(row for line in lines for row in line.at(width))
