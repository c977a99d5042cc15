"""Pure columns: a coordinate with one sign in all rows where it appears settles those rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from clarke.feasibility.outcome import FloatArray, IndexArray
from clarke.feasibility.system import System
from clarke.numerics import COLUMN_LARGEST, COLUMN_ROUNDING


@dataclass(frozen=True, eq=False)
class Round:
    """Rows settled together; arrays of length p.

    Attributes:
        rows: the rows settled.
        columns: for each, the pure column chosen among those it contains.
        entries: for each, its signed entry in that column.
    """

    rows: IndexArray
    columns: IndexArray
    entries: FloatArray


@dataclass(frozen=True, eq=False)
class Peeling:
    """Rounds of pure columns, in order, and the rows (the core) that none of them settles."""

    rounds: tuple[Round, ...]
    core: IndexArray


def peel(system: System, max_rounds: int) -> Peeling:
    """Remove the rows that contain a pure column, and repeat on what is left.

    Rows can be positive on all of A exactly when they can on the core: no row of a later round, nor
    of the core, contains a column of an earlier one. Theorems 1, 4 and 6 of Park, Chun and Lee
    (ICLR 2024) are the case in which the pure columns are biases.
    """
    m, n = system.shape
    row, col, val = system.row, system.col, system.val
    open_rows = np.ones(m, dtype=bool)
    rounds: list[Round] = []
    while len(row) and len(rounds) < max_rounds:
        total = np.bincount(col, minlength=n)
        positive = np.bincount(col[val > 0], minlength=n)
        pure = (total > 0) & ((positive == 0) | (positive == total))
        hit = pure[col]
        if not hit.any():
            break
        settled = _choose(row[hit], col[hit], val[hit], total)
        rounds.append(settled)
        open_rows[settled.rows] = False
        keep = open_rows[row]
        row, col, val = row[keep], col[keep], val[keep]
    return Peeling(tuple(rounds), np.flatnonzero(open_rows))


def extend(system: System, peeling: Peeling, direction: FloatArray) -> FloatArray | None:
    """Extend a direction with A d >= 1 on the core to A d >= 1 on all rows, least scaling first.

    Works from the last round to the first. A row of round k sees columns of round k and of later
    ones only; what the later ones contribute is known by then, and its chosen column makes up the
    difference to 1. Other columns of round k cannot lower it: they have their one sign.

    Args:
        system: the rows.
        peeling: the rounds and the core, from :func:`peel`.
        direction: (n,), zero outside the core's columns.

    Returns:
        (n,), or ``None`` if the coordinates grow towards overflow.
    """
    d = direction.copy()
    for settled in reversed(peeling.rounds):
        part = system.matrix[settled.rows]
        # Beside 1, what rounding could take away again when large contributions cancel.
        wanted = 1.0 + COLUMN_ROUNDING * (abs(part) @ np.abs(d))
        missing = np.maximum(wanted - part @ d, 0.0)
        size = np.zeros_like(d)
        np.maximum.at(size, settled.columns, missing / np.abs(settled.entries))
        if not size.max() < COLUMN_LARGEST:
            return None
        d[settled.columns] = (np.sign(settled.entries) * size[settled.columns]) + 0.0
    return d


def _choose(row: IndexArray, col: IndexArray, val: FloatArray, count: IndexArray) -> Round:
    """One pure column for each row: large entries and columns that serve many rows keep d short."""
    score = np.abs(val) * np.sqrt(count[col])
    first = np.flatnonzero(np.r_[True, row[1:] != row[:-1]])
    best = np.maximum.reduceat(score, first)
    lengths = np.diff(np.r_[first, len(row)])
    candidates = np.flatnonzero(score == np.repeat(best, lengths))
    chosen_rows, index = np.unique(row[candidates], return_index=True)
    chosen = candidates[index]
    return Round(chosen_rows, col[chosen].astype(np.intp), val[chosen])
