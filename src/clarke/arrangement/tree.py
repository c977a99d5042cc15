"""All chambers of an arrangement of hyperplanes through the origin, hyperplane by hyperplane.

A new hyperplane cuts exactly those chambers of the earlier ones in which it has a chamber of its
own: those of the earlier hyperplanes' traces on it, an arrangement in one dimension less. So no
linear program tells which chambers are cut; the traces are integer rows, computed exactly, and the
whole level is split at once. A chamber carries a point inside. Where the new hyperplane does not
cut it, the point tells the side; where it does, two points are made of the one found on the
hyperplane. Half of the chambers are looked at, the others are their opposites.

Every list of chambers costs as much as its length times the number of dimensions: the chambers on
the walls are as many as the chambers that they add.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from clarke.arrangement.integers import (
    as_floats,
    basis,
    exact_sign,
    merged,
    on_hyperplane,
    pivot_of,
)
from clarke.deadline import UNLIMITED, Deadline
from clarke.errors import BudgetError
from clarke.feasibility import find_witness
from clarke.numerics import UNIT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from clarke.arrangement.integers import Row

    Array = NDArray[np.float64]
    Signs = NDArray[np.bool_]

# Steele, Lea and Flood: Fast splittable pseudorandom number generators (2014).
_STIRRED = (
    (np.uint64(30), np.uint64(0xBF58476D1CE4E5B9)),
    (np.uint64(27), np.uint64(0x94D049BB133111EB)),
)

Reached = tuple[int, ...]  # chambers, hyperplanes and all hyperplanes, of the whole search


class ThinChamberError(BudgetError):
    """A chamber holds no direction of floats that its rows can be checked on."""


@dataclass(frozen=True, eq=False)
class Half:
    """The chambers on the positive side of the first hyperplane.

    Attributes:
        signs: (N, m) whether a chamber is on the positive side of a hyperplane.
        points: (N, n) a point inside of each.
    """

    signs: Signs
    points: Array


def half_chambers(
    rows: Sequence[Row], deadline: Deadline = UNLIMITED, reached: Reached = ()
) -> Half:
    """The chambers of distinct hyperplanes on the first one's positive side.

    Args:
        rows: Primitive integer rows, none zero, no two of one hyperplane.
        deadline: Asked at every level.
        reached: What the whole search has reached, where this is a part of it.

    Raises:
        ThinChamberError: A chamber is too thin for floating point directions.
        OutOfTimeError: Not all were found in time.
    """
    independent, columns = basis(rows)
    size = len(rows[0])
    if len(columns) < size:
        narrow = [tuple([row[j] for j in columns]) for row in rows]
        found = half_chambers(narrow, deadline, reached)
        points = np.zeros((len(found.points), size))
        points[:, columns] = found.points
        return Half(found.signs, points)
    if size == 1:
        return Half(np.ones((1, 1), dtype=bool), np.array([[1.0 if rows[0][0] > 0 else -1.0]]))
    if size == 2 and len(rows) > 2:
        return _in_the_plane(rows)
    first = set(independent)
    order = [*independent, *(i for i in range(len(rows)) if i not in first)]
    found = _Levels([rows[i] for i in order], deadline, reached).run()
    back = np.empty(len(order), dtype=np.intp)
    back[order] = np.arange(len(order))
    return Half(found.signs[:, back], found.points)


def _in_the_plane(rows: Sequence[Row]) -> Half:
    """Lines through the origin of the plane, by their order around it."""
    p, q = rows[0]
    # On the line (p, q) + t (-q, p) row i is along_i + t across_i: its zero is compared exactly.
    along = [a * p + b * q for a, b in rows[1:]]
    across = [p * b - q * a for a, b in rows[1:]]
    zeros = [-x / y for x, y in zip(along, across, strict=True)]
    order = sorted(range(len(zeros)), key=zeros.__getitem__)
    for i, j in pairwise(order):
        if not zeros[i] < zeros[j]:
            raise ThinChamberError("Two hyperplanes meet a third too close to each other.")
    ends = np.array([zeros[i] for i in order])
    middle = np.empty(len(ends) + 1)
    middle[1:-1] = (ends[1:] + ends[:-1]) / 2
    middle[0] = ends[0] - 1.0 - abs(ends[0])
    middle[-1] = ends[-1] + 1.0 + abs(ends[-1])
    place = np.empty(len(order), dtype=np.intp)
    place[order] = np.arange(len(order))
    signs = np.ones((len(middle), len(rows)), dtype=bool)
    positive = np.array([y > 0 for y in across])
    signs[:, 1:] = (np.arange(len(middle))[:, None] > place) == positive
    size = max(abs(p), abs(q))
    own = np.array([p / size, q / size])
    points = own + middle[:, None] * np.array([-own[1], own[0]])
    points /= np.abs(points).max(axis=1, keepdims=True)
    _certify(rows, as_floats(rows), signs, points)
    return Half(signs, points)


class _Levels:
    """Hyperplane after hyperplane; the first ones are a basis of all."""

    def __init__(self, rows: Sequence[Row], deadline: Deadline, reached: Reached) -> None:
        self._rows, self._deadline, self._reached = rows, deadline, reached
        self._floats = as_floats(rows)

    def run(self) -> Half:
        """Start with the orthants of the basis, then cut."""
        size, count = len(self._rows[0]), len(self._rows)
        signs = np.zeros((1 << (size - 1), count), dtype=bool)
        signs[:, 0] = True
        numbers = np.arange(len(signs))
        for k in range(1, size):
            signs[:, k] = numbers >> (k - 1) & 1
        wanted = np.where(signs[:, :size], 1.0, -1.0)
        units = np.abs(self._floats[:size]).max(axis=1, keepdims=True)
        try:
            points = np.linalg.solve(self._floats[:size] / units, wanted.T).T
        except np.linalg.LinAlgError as error:
            raise ThinChamberError("Some rows depend on others but for rounding.") from error
        points /= np.abs(points).max(axis=1, keepdims=True)
        self._certify(size, signs, points)
        for k in range(size, count):
            reached = self._reached or (2 * len(points), k, count)
            self._deadline.ask("{} chambers of the first {} of {} hyperplanes", *reached)
            signs, points = self._cut(k, signs, points, reached)
        return Half(signs, points)

    def _cut(self, k: int, signs: Signs, points: Array, reached: Reached) -> tuple[Signs, Array]:
        on_wall, at = self._on_wall(k, reached)
        cut = _matched(signs[:, :k], on_wall)
        high, low = self._aside(k, at)
        whole = ~cut
        rest, left = signs[whole], points[whole]
        rest[:, k] = self._sides(k, left)
        split = np.zeros((2 * len(at), signs.shape[1]), dtype=bool)
        split[:, :k] = np.concatenate([on_wall, on_wall])
        split[: len(at), k] = True
        new = np.concatenate([high, low])
        self._certify(k + 1, split, new)
        return np.concatenate([rest, split]), np.concatenate([left, new])

    def _on_wall(self, k: int, reached: Reached) -> tuple[Signs, Array]:
        """The chambers of the first k hyperplanes that the next one cuts, and points on it."""
        wall = self._rows[k]
        column = pivot_of(wall)
        traces = merged(on_hyperplane(self._rows[:k], wall, column))
        found = half_chambers(traces.rows, self._deadline, reached)
        signs = found.signs[:, traces.owner] ^ traces.turned
        points = np.empty((len(found.points), len(wall)))
        others = [j for j in range(len(wall)) if j != column]
        points[:, others] = found.points
        own = self._floats[k]
        points[:, column] = found.points @ (-own[others] / own[column])
        return signs, points

    def _aside(self, k: int, points: Array) -> tuple[Array, Array]:
        """Points on both sides of the wall, half as far from it as the other walls allow."""
        normal = self._floats[k] / np.abs(self._floats[k]).max()
        values = np.abs(points @ self._floats[:k].T)
        slopes = np.abs(self._floats[:k] @ normal)
        with np.errstate(divide="ignore"):
            steps = (values / slopes).min(axis=1, initial=np.inf)
        sizes = np.abs(points).max(axis=1)
        steps = np.minimum(steps, 2 * sizes)[:, None] / 2
        high, low = points + steps * normal, points - steps * normal
        high /= np.abs(high).max(axis=1, keepdims=True)
        low /= np.abs(low).max(axis=1, keepdims=True)
        return high, low

    def _sides(self, k: int, points: Array) -> Signs:
        """On which side of a hyperplane points are; none is on it."""
        row = self._floats[k]
        values = points @ row
        found: Signs = values > 0
        doubtful = np.abs(values) <= _room(len(row)) * (np.abs(points) @ np.abs(row))
        for i in np.flatnonzero(doubtful).tolist():
            found[i] = exact_sign(self._rows[k], points[i]) > 0
        return found

    def _certify(self, count: int, signs: Signs, points: Array) -> None:
        _certify(self._rows[:count], self._floats[:count], signs[:, :count], points)


def _room(size: int) -> float:
    """Roundings of an inner product of so many terms, with as many in the row itself."""
    return (size + 2) * UNIT


def _certify(rows: Sequence[Row], floats: Array, signs: Signs, points: Array) -> None:
    """Make sure that points have their signs, exactly; replace those that have not.

    Raises:
        ThinChamberError: No point with these signs was found.
    """
    values = points @ floats.T
    size = _room(floats.shape[1]) * (np.abs(points) @ np.abs(floats).T)
    clear = np.where(signs, values, -values) > size
    for i in np.flatnonzero(~clear.all(axis=1)).tolist():
        doubtful = np.flatnonzero(~clear[i]).tolist()
        if all(
            (exact_sign(rows[j], points[i]) > 0) == bool(signs[i, j])
            and exact_sign(rows[j], points[i])
            for j in doubtful
        ):
            continue
        points[i] = _widest(rows, floats, signs[i])


def _widest(rows: Sequence[Row], floats: Array, signs: Signs) -> Array:
    """A point inside of a chamber, by a linear program and exact signs."""
    found = find_witness(np.where(signs[:, None], floats, -floats))
    if found.direction is None or any(
        exact_sign(row, found.direction) != (1 if positive else -1)
        for row, positive in zip(rows, signs.tolist(), strict=True)
    ):
        raise ThinChamberError("A chamber is too thin for a direction of floating point numbers.")
    point: Array = found.direction / np.abs(found.direction).max()
    return point


def _matched(signs: Signs, some: Signs) -> Signs:
    """(N,) which rows are among some others, all of which are there."""
    every, wanted = _keys(signs), _keys(some)
    order = np.argsort(every)
    places = order[np.minimum(np.searchsorted(every[order], wanted), len(every) - 1)]
    found = np.zeros(len(signs), dtype=bool)
    found[places] = True
    if int(found.sum()) != len(some) or not np.array_equal(signs[places], some):
        raise ThinChamberError("The chambers on a hyperplane are not those that it cuts.")
    return found


def _keys(signs: Signs) -> NDArray[np.uint64]:
    """A number for every row; different rows have different ones up to 64 columns.

    Of more columns the words are stirred one after the other, so that a bit that differs changes
    about half of all: neighbouring chambers differ in few, which sums of multiples may undo.
    """
    packed = np.packbits(signs, axis=1)
    words = -(-packed.shape[1] // 8)
    padded = np.zeros((len(packed), 8 * words), dtype=np.uint8)
    padded[:, : packed.shape[1]] = packed
    parts = padded.view(np.uint64)
    found = parts[:, 0].copy()
    for word in range(1, words):
        for shift, factor in _STIRRED:
            found = (found ^ (found >> shift)) * factor  # odd: nothing is lost
        found = (found ^ (found >> np.uint64(31))) + parts[:, word]
    return found
