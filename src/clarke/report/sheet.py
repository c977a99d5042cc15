"""A table for terminals of any width: where words would be cut side by side, row below row."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.padding import Padding
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from rich.console import Console, ConsoleOptions, RenderableType

_GAP = 2  # columns between those of a table


class Sheet:
    """Rows of texts under titles, to be printed by rich.

    Args:
        titles: Of the columns.
        rows: A text for each column; the first names the row.
    """

    def __init__(self, titles: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        self._titles = list(titles)
        self._rows = [list(row) for row in rows]

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> Iterator[RenderableType]:
        widths = self._widths(options.max_width)
        if widths is None:
            yield from self._stacked()
            return
        table = Table(box=None, pad_edge=False, header_style="dim")
        for title, width in zip(self._titles, widths, strict=True):
            table.add_column(title, width=width)
        for row in self._rows:
            table.add_row(*map(Text, row))
        yield table

    def _stacked(self) -> Iterator[RenderableType]:
        for first, *others in self._rows:
            yield Text(first)
            for title, cell in zip(self._titles[1:], others, strict=True):
                if cell:
                    told = f"{title}: {cell}".replace("\n", "; ")
                    yield Padding(Text(told), (0, 0, 0, _GAP))

    def _widths(self, room: int) -> list[int] | None:
        """Of columns in which no word is cut; what is left goes where cells are long."""
        columns = list(zip(self._titles, *self._rows, strict=True))
        least = [max(len(w) for c in cells for w in [*c.split(), ""]) for cells in columns]
        whole = [max(len(x) for c in cells for x in c.split("\n")) for cells in columns]
        wanted = [all_ - own for all_, own in zip(whole, least, strict=True)]
        left = room - sum(least) - _GAP * len(columns)
        if left < 0:
            return None
        total = max(sum(wanted), 1)
        shares = zip(least, wanted, strict=True)
        return [own + min(more, left * more // total) for own, more in shares]
