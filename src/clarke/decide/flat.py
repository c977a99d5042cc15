"""Kinks that do not depend on each other: their selections are the chambers of hyperplanes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, overload

import numpy as np

from clarke.arrangement import (
    ThinChamberError,
    chambers,
    count_chambers,
    integer_row,
)
from clarke.decide.cells import Cell
from clarke.decide.dependent import Dependent, Rank, exact_rank, made_dependent
from clarke.errors import BudgetError
from clarke.feasibility import find_witness
from clarke.numerics import ARRAY_ENTRIES, EXACT_ROW_BITS, SURE_MARGIN, WITNESS_MARGIN

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import torch
    from numpy.typing import NDArray

    from clarke.arrangement import Row
    from clarke.deadline import Deadline
    from clarke.decide.limits import Limits
    from clarke.decide.linear import LinearParts

    Array = NDArray[np.float64]
    Index = NDArray[np.intp]
    Signs = NDArray[np.bool_]

_BLOCK = 4096


@dataclass(frozen=True, eq=False)
class Fork:
    """A kink with a candidate on either side of a hyperplane.

    Attributes:
        kink: Its number.
        position: Its site.
        index: Which of the site's kinks it is.
        above: The candidate where the row is positive.
        below: The other one.
        row: (n,) the gradient of its switching function.
        line: Number of the hyperplane; rows that are parallel up to rounding share one.
        turned: Whether the row points to the other side than the hyperplane's first.
        noise: Gives (n,), how much of the row rounding may be.
    """

    kink: int
    position: int
    index: int
    above: int
    below: int
    row: Array
    line: int
    turned: bool
    noise: Callable[[], Array]


@dataclass(frozen=True, eq=False)
class Planes:
    """The hyperplanes of some forks, with what was assumed of them.

    Attributes:
        rows: In integers; see `lift`.
        lift: (n, r) takes directions found for these rows to ones of the variables; None where the
            rows are the variables' own.
        rank: Their rank.
        count: How many chambers they have.
    """

    rows: tuple[Row, ...]
    lift: Array | None
    rank: Rank
    count: int


@dataclass(frozen=True, eq=False)
class ChamberCells(Sequence[Cell]):
    """The selections of forks, in arrays: a cell is written out when it is asked for.

    Attributes:
        forks: The kinks.
        fixed: By site position, the choices of AD, with those of kinks that have one candidate.
        own: By site position, (K,) bool: the kinks that were branched on.
        signs: (N, K / 8) for each fork whether its row is positive, as bits.
        gradients: (N, n) the gradients.
        directions: (N, n) a direction inside of each.
        sure: (N,) whether the direction is inside by more than rounding of the rows.
        rank: Of the rows.
    """

    forks: tuple[Fork, ...]
    fixed: Mapping[int, torch.Tensor]
    own: Mapping[int, NDArray[np.bool_]]
    signs: NDArray[np.uint8]
    gradients: Array
    directions: Array
    sure: Signs
    rank: Rank

    def __len__(self) -> int:
        return len(self.signs)

    @overload
    def __getitem__(self, at: int) -> Cell: ...
    @overload
    def __getitem__(self, at: slice) -> ChamberCells: ...
    def __getitem__(self, at: int | slice) -> Cell | ChamberCells:
        if isinstance(at, slice):
            return self.taken(np.arange(len(self))[at])
        positive = np.unpackbits(self.signs[at], count=len(self.forks)).astype(bool)
        choices = {p: c.clone() for p, c in self.fixed.items()}
        for fork, above in zip(self.forks, positive.tolist(), strict=True):
            choices[fork.position][fork.index] = fork.above if above else fork.below
        rows = np.stack([f.row for f in self.forks])
        return Cell(
            choices=choices,
            gradient=self.gradients[at],
            direction=self.directions[at] if self.sure[at] else None,
            rows=np.where(positive[:, None], rows, -rows),
            kinks=np.array([f.kink for f in self.forks], dtype=np.int64),
            own=self.own,
        )

    def taken(self, which: Index) -> ChamberCells:
        """Some of them."""
        return replace(
            self,
            signs=self.signs[which],
            gradients=self.gradients[which],
            directions=self.directions[which],
            sure=self.sure[which],
        )


def planes_of(forks: Sequence[Fork], limits: Limits, deadline: Deadline) -> Planes:
    """The hyperplanes of forks, dependent on each other up to rounding where that is wanted."""
    first: dict[int, Fork] = {}
    for fork in forks:
        first.setdefault(fork.line, fork)
    leaders = list(first.values())
    rows = []
    for fork in leaders:
        deadline.ask("writing rows in integers")
        rows.append(integer_row((-fork.row if fork.turned else fork.row).tolist()))
    rank = exact_rank(tuple(rows))
    declared = _declared(leaders, rows) if limits.rounding else None
    if declared is not None and declared.rank.rank < rank.rank:
        count = count_chambers(declared.rows, deadline)
        return Planes(declared.rows, declared.lift, declared.rank, count)
    exact = count_chambers(rows, deadline)
    if declared is not None:
        count = count_chambers(declared.rows, deadline)
        if count < exact:
            return Planes(declared.rows, declared.lift, declared.rank, count)
    return Planes(tuple(rows), None, rank, exact)


def _declared(leaders: Sequence[Fork], rows: Sequence[Row]) -> Dependent | None:
    """Rows that depend on each other as these do but for rounding, where they may be rounded."""
    if max(abs(v) for row in rows for v in row) < 1 << int(EXACT_ROW_BITS):
        return None
    units = np.stack([-f.row if f.turned else f.row for f in leaders])
    return made_dependent(units, lambda: np.stack([f.noise() for f in leaders]))


def chamber_cells(
    forks: Sequence[Fork],
    fixed: Mapping[int, torch.Tensor],
    own: Mapping[int, NDArray[np.bool_]],
    linear: LinearParts,
    limits: Limits,
    deadline: Deadline,
) -> ChamberCells:
    """All selections of forks, with their gradients.

    Raises:
        BudgetError: They are more than may be listed.
        ThinChamberError: Some directions are too close to each other for floats.
    """
    planes = planes_of(forks, limits, deadline)
    size = len(linear.base)
    if planes.count > limits.cells or planes.count * (2 * size + 1) > ARRAY_ENTRIES:
        raise BudgetError(
            f"The kinks have {planes.count:,} combinations of pieces, more than are listed.",
            {"cells": planes.count},
        )
    found = chambers(planes.rows, deadline)
    if found.count != planes.count:
        raise ThinChamberError("Not all chambers were found.")
    numbers = {line: i for i, line in enumerate(dict.fromkeys(f.line for f in forks))}
    line = np.array([numbers[f.line] for f in forks])
    turned = np.array([f.turned for f in forks])
    below, gains = _gains(forks, fixed, linear)
    signs = np.empty((found.count, -(-len(forks) // 8)), dtype=np.uint8)
    gradients = np.empty((found.count, size))
    directions = np.empty((found.count, size))
    sure = np.empty(found.count, dtype=bool)
    for start in range(0, found.count, _BLOCK):
        deadline.ask("writing out {} of {} cells", start, found.count)
        which = np.arange(start, min(start + _BLOCK, found.count))
        positive = found.signs(which)[:, line] ^ turned
        inside = found.directions(which)
        if planes.lift is not None:
            inside = inside @ planes.lift.T
        inside = inside / np.abs(inside).max(axis=1, keepdims=True)
        signs[which] = np.packbits(positive, axis=1)
        gradients[which] = below + positive @ gains
        directions[which], sure[which] = _made_sure(forks, positive, inside, deadline)
    if len(np.unique(signs, axis=0)) != found.count:
        raise ThinChamberError("A chamber was found twice.")
    return ChamberCells(tuple(forks), fixed, own, signs, gradients, directions, sure, planes.rank)


def _gains(
    forks: Sequence[Fork], fixed: Mapping[int, torch.Tensor], linear: LinearParts
) -> tuple[Array, Array]:
    """The gradient of the lower candidates, and what each upper one adds to it."""
    below = linear.base.copy()
    mine: dict[int, set[int]] = {}
    gains = np.empty((len(forks), len(below)))
    for gain, fork in zip(gains, forks, strict=True):
        changes, places = linear.changes[fork.position], linear.owners[fork.position][fork.index]
        low = changes[places[fork.below]]
        below += low
        gain[:] = changes[places[fork.above]] - low
        mine.setdefault(fork.position, set()).add(fork.index)
    for position, choice in fixed.items():
        for i, candidate in enumerate(choice.tolist()):
            if i not in mine.get(position, ()):
                below += linear.changes[position][linear.owners[position][i][candidate]]
    return below, gains


def _made_sure(
    forks: Sequence[Fork], positive: Signs, directions: Array, deadline: Deadline
) -> tuple[Array, Signs]:
    """Directions with a margin that rounding of the rows cannot have made, where there are any."""
    rows = np.stack([f.row for f in forks])
    values = np.where(positive, 1.0, -1.0) * (directions @ rows.T)
    sizes = np.linalg.norm(directions, axis=1)[:, None] * np.linalg.norm(rows, axis=1)
    sure: Signs = (values > WITNESS_MARGIN * sizes).all(axis=1)
    thin = np.flatnonzero(~sure)
    if len(thin):  # or the variables' units are far apart
        along, own = np.abs(directions[thin]), values[thin]
        clear: Signs = np.all(own > SURE_MARGIN * (along @ np.abs(rows).T), axis=1)
        if clear.any():
            noise = np.stack([f.noise() for f in forks])
            np.logical_and(clear, (own > 2 * (along @ noise.T)).all(axis=1), out=clear)
        sure[thin] = clear
    for i in np.flatnonzero(~sure).tolist():  # a thin cell: its widest direction
        signed = np.where(positive[i][:, None], rows, -rows)
        found = find_witness(signed, deadline=deadline)
        if found.direction is not None:
            directions[i], sure[i] = found.direction, True
    return directions, sure
