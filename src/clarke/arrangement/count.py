"""How many chambers an arrangement has, without listing them.

By deletion and restriction (Zaslavsky 1975): a hyperplane adds as many chambers as its traces of
the earlier ones have. This shares nothing with the search in `tree.py`, and tells whether it found
all: chambers that are proved by a point each, and are as many as there are, are all of them.
"""

from __future__ import annotations

from math import gcd
from typing import TYPE_CHECKING

from clarke.deadline import UNLIMITED, Deadline

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Lines = tuple[tuple[int, ...], ...]


def count_chambers(rows: Iterable[Sequence[int]], deadline: Deadline = UNLIMITED) -> int:
    """The number of connected components of the complement of some hyperplanes.

    Args:
        rows: Their normals, in integers; zeros and repetitions do not count.
        deadline: Asked for every arrangement that occurs on the way.
    """
    return _count(_lines(rows), {}, deadline)


def _lines(rows: Iterable[Sequence[int]]) -> Lines:
    """Distinct lines, each by its primitive vector that begins with a positive number."""
    found = set()
    for row in rows:
        common = gcd(*row)
        lead = next((v for v in row if v), 0)
        if lead:
            unit = common if lead > 0 else -common
            found.add(tuple([v // unit for v in row]))
    return tuple(sorted(found))


def _count(lines: Lines, known: dict[Lines, int], deadline: Deadline) -> int:
    if not lines:
        return 1
    if len(lines) == 1 or len(lines[0]) <= 2:
        return 2 * len(lines)
    found = known.get(lines)
    if found is None:
        deadline.ask("counting chambers: {} arrangements so far", len(known))
        # Deleting one hyperplane after the other: what each adds stands on it.
        found = 1 + sum(
            _count(_on(lines[:k], lines[k]), known, deadline) for k in range(len(lines))
        )
        known[lines] = found
    return found


def _on(lines: Lines, wall: tuple[int, ...]) -> Lines:
    """The traces of hyperplanes on a wall: its first coordinate that counts is put in."""
    at = next(j for j, v in enumerate(wall) if v)
    lead = wall[at]
    return _lines(
        [lead * v - row[at] * w for j, (v, w) in enumerate(zip(row, wall, strict=True)) if j != at]
        for row in lines
    )
