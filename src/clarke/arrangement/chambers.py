"""The chambers of hyperplanes through the origin, with a direction inside of each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from clarke.arrangement.count import count_chambers
from clarke.arrangement.integers import Merged, Row, exact_sign, merged, primitive
from clarke.arrangement.tree import Half, half_chambers
from clarke.deadline import UNLIMITED, Deadline
from clarke.numerics import UNIT

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    Array = NDArray[np.float64]
    Index = NDArray[np.intp]
    Signs = NDArray[np.bool_]

_BLOCK = 4096


@dataclass(frozen=True, eq=False)
class Chambers:
    """All chambers, one half of them stored; each is the opposite of one of the other half.

    Attributes:
        merged: The hyperplanes that were given, repetitions told.
        half: The chambers on the first hyperplane's positive side.
        stretch: (n,) powers of two: what the coordinates of `half` are to be multiplied with.
    """

    merged: Merged
    half: Half
    stretch: Array

    @property
    def count(self) -> int:
        """How many there are."""
        return 2 * len(self.half.signs)

    def signs(self, which: Index) -> Signs:
        """(k, m) whether some chambers are on the positive sides of the rows that were given."""
        size = len(self.half.signs)
        own = self.half.signs[which % size][:, self.merged.owner] ^ self.merged.turned
        found: Signs = own ^ (which >= size)[:, None]
        return found

    def directions(self, which: Index) -> Array:
        """(k, n) a direction inside of each of some chambers."""
        size = len(self.half.signs)
        found: Array = self.half.points[which % size] * self.stretch
        return np.where((which >= size)[:, None], -found, found)

    def defects(self, deadline: Deadline = UNLIMITED) -> str:
        """What is wrong with the list; empty if it is what it says.

        Every direction is held against the rows, exactly where rounding could matter; no chamber
        may be listed twice; and their number is counted again, in another way.
        """
        rows = self._rows()
        floats = np.array([[float(v) for v in _short(row)] for row in rows])
        sizes = np.abs(floats)
        for start in range(0, len(self.half.signs), _BLOCK):
            deadline.ask("checking {} of {} chambers", 2 * start, self.count)
            signs = self.half.signs[start : start + _BLOCK]
            points = self.half.points[start : start + _BLOCK] * self.stretch
            values = points @ floats.T
            room = 2 * len(self.stretch) * UNIT * (np.abs(points) @ sizes.T)
            clear = (np.abs(values) > room) & ((values > 0) == signs)
            for i, j in np.argwhere(~clear).tolist():
                if exact_sign(rows[j], points[i]) != (1 if signs[i, j] else -1):
                    return "a direction is not in its chamber"
        packed = np.packbits(self.half.signs, axis=1)
        if not self.half.signs[:, 0].all() or len(np.unique(packed, axis=0)) != len(packed):
            return "a chamber is listed twice"
        if count_chambers(rows, deadline) != self.count:
            return "chambers are missing"
        return ""

    def _rows(self) -> tuple[Row, ...]:
        return _stretched(
            self.merged.rows, [-e for e in np.log2(self.stretch).astype(int).tolist()]
        )


def chambers(rows: Iterable[Row], deadline: Deadline = UNLIMITED) -> Chambers:
    """The chambers of some hyperplanes, at least one.

    Args:
        rows: Primitive integer rows, none zero; repetitions and opposites are told.
        deadline: Asked at every level.

    Raises:
        ThinChamberError: A chamber is too thin for floating point directions.
        OutOfTimeError: Not all were found in time.
    """
    own = merged(rows)
    powers = _balance(own.rows)
    balanced = Merged(_stretched(own.rows, powers), own.owner, own.turned)
    return Chambers(balanced, half_chambers(balanced.rows, deadline), np.ldexp(1.0, powers))


def _short(row: Row) -> list[float]:
    largest = max(map(abs, row))
    return [v / largest for v in row]


def _balance(rows: tuple[Row, ...]) -> list[int]:
    """Powers of two by which to multiply columns, so that none is far larger than the others."""
    sizes = np.abs(np.array([_short(row) for row in rows]))
    powers = np.zeros(sizes.shape[1], dtype=int)
    for _ in range(2):
        sizes /= sizes.max(axis=1, keepdims=True)
        largest = sizes.max(axis=0)
        step = np.where(largest > 0, -np.frexp(np.where(largest > 0, largest, 1.0))[1], 0)
        powers += step
        sizes = np.ldexp(sizes, step)
    found: list[int] = powers.tolist()
    return found


def _stretched(rows: tuple[Row, ...], powers: list[int]) -> tuple[Row, ...]:
    """Rows with their columns multiplied by powers of two."""
    least = min(powers)
    if max(powers) == least:
        return rows
    return tuple(
        primitive([v << (p - least) for v, p in zip(row, powers, strict=True)]) for row in rows
    )
