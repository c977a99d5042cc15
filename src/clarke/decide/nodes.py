"""What an enumeration is made of: kinks, their options with conditions, and branches."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from clarke.arrangement import Row, integer_row
from clarke.decide.cone import Cone
from clarke.decide.flat import Fork
from clarke.decide.identity import Form
from clarke.numerics import (
    ROWS_ROUNDING,
    WITNESS_MARGIN,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from clarke.deadline import Deadline
    from clarke.decide.slopes import Slopes
    from clarke.steering import Site

    Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Kink:
    """One touched kink on which an enumeration branches."""

    number: int
    site: Site
    index: int


@dataclass(frozen=True, eq=False)
class Condition:
    """A condition.

    Attributes:
        values: (n,) its gradient.
        form: How to evaluate it at another point.
        noise: Gives (n,), how much of the gradient rounding may be.
        exact: The gradient in integers, in the subspace searched.
        positive: A bit for its direction; rows that are parallel up to rounding share it.
        negative: The bit of the opposite direction.
    """

    values: Array
    form: Form
    noise: Callable[[], Array]
    exact: Row
    positive: int
    negative: int


@dataclass(frozen=True, eq=False)
class Rival:
    """An element tied with a selected one that may be less or greater.

    Attributes:
        greater: The condition that it is greater.
        less: That it is less.
        count: For how many elements with the same slope it stands.
    """

    greater: Condition
    less: Condition
    count: int


@dataclass(frozen=True, eq=False)
class Option:
    """One candidate of a kink with the rows it needs.

    Attributes:
        choice: The candidate.
        rows: Its conditions.
        decided: First order settles it: no condition has a vanishing gradient while the
            candidates' gradients differ.
        pinned: The candidate was chosen among several that differ.
        shares: The weights of a kink's candidates, where they are selected so.
        free: Nothing was chosen: any unit vector may be the weights.
        rivals: Elements of which only how many are greater is a condition.
        fewest: How many must be greater at least.
        most: How many at most.
    """

    choice: int
    rows: tuple[Condition, ...]
    decided: bool = True
    pinned: bool = True
    shares: Array | None = None
    free: bool = False
    rivals: tuple[Rival, ...] = ()
    fewest: int = 0
    most: int = 0


@dataclass(frozen=True, eq=False)
class Node:
    """A branch: choices so far, and the directions that lead there."""

    cone: Cone | None
    choices: dict[int, torch.Tensor]
    rows: tuple[Condition, ...] = ()
    kinks: tuple[int, ...] = ()
    pinned: frozenset[int] = frozenset()
    sides: int = 0
    free: tuple[int, ...] = ()

    def choosing(self, kink: Kink, option: Option) -> Node:
        """The branch in which a kink has its choice and no conditions yet."""
        position = kink.site.position
        choices = dict(self.choices)
        touch = kink.site.touch
        own = choices.get(position)
        if option.shares is not None:
            own = touch.weights.clone() if own is None else own.clone()
            own[touch.owner == kink.index] = torch.from_numpy(option.shares)
        else:
            own = touch.chosen() if own is None else own.clone()
            own[kink.index] = option.choice
        choices[position] = own
        return replace(
            self,
            choices=choices,
            pinned=self.pinned | {kink.number} if option.pinned else self.pinned,
            free=(*self.free, kink.number) if option.free else self.free,
        )


@dataclass(frozen=True, eq=False)
class Derivatives:
    """What was differentiated so far, by the selection of the kinks that matter for it.

    Attributes:
        switching: Slopes of a site's candidates and switching functions.
        totals: Gradients of the result.
    """

    switching: dict[tuple[object, ...], Slopes] = field(default_factory=dict)
    totals: dict[tuple[object, ...], Array] = field(default_factory=dict)


class Conditions:
    """Writes conditions: exactly, in the subspace searched, and with a bit for each direction.

    Args:
        deadline: Of the call.
        subspace: (n, k) integer directions that span it; None for all.
    """

    def __init__(self, deadline: Deadline, subspace: NDArray[np.int64] | None) -> None:
        self.deadline = deadline
        self._subspace = subspace
        self._lines: list[tuple[Array, Callable[[], Array]]] = []

    def of(self, values: Array, form: Form, noise: Callable[[], Array]) -> Condition:
        """The condition that a function is positive, by its gradient."""
        self.deadline.ask("writing rows in integers")
        exact = integer_row(values.tolist())
        if self._subspace is not None:
            columns = self._subspace.astype(object)
            exact = tuple(int(v) for v in np.asarray(exact, dtype=object) @ columns)
        size = float(np.abs(values).max())
        number, sign = self._class_of(values / size, lambda: noise() / size)
        bits = 1 << (2 * number), 1 << (2 * number + 1)
        return Condition(values, form, noise, exact, *(bits if sign > 0 else bits[::-1]))

    def _class_of(self, unit: Array, noise: Callable[[], Array]) -> tuple[int, int]:
        """Number of the line that a row spans, and the side, up to rounding."""
        if self._lines:
            known = np.stack([line for line, _ in self._lines])
            for sign in (1, -1):
                gaps = np.abs(known - sign * unit)
                for number in np.flatnonzero(gaps.max(axis=1) <= ROWS_ROUNDING).tolist():
                    # In units in which an entry is large, a difference in it may be, too.
                    line, its = self._lines[number]
                    apart = gaps[number] > ROWS_ROUNDING * np.maximum(np.abs(line), np.abs(unit))
                    if not apart.any() or bool((gaps[number] <= noise() + its())[apart].all()):
                        return number, sign
        self._lines.append((unit, noise))
        return len(self._lines) - 1, 1


def is_sure(rows: Sequence[Condition], direction: Array) -> bool:
    """Whether rows are positive by more than rounding, though variables' units are far apart."""
    for row in rows:
        value, along = float(row.values @ direction), np.abs(direction)
        if value <= WITNESS_MARGIN * float(np.abs(row.values) @ along):
            return False
        if value <= 2 * float(row.noise() @ along):
            return False
    return True


def fork_of(kink: Kink, options: list[Option]) -> Fork | None:
    """A kink with one hyperplane between its two options; None if it is another."""
    if len(options) != 2 or any(len(o.rows) != 1 or o.rivals for o in options):
        return None
    below, above = options
    row = above.rows[0]
    if row.positive != below.rows[0].negative:
        return None
    number = row.positive.bit_length() - 1
    return Fork(
        kink.number,
        kink.site.position,
        kink.index,
        above.choice,
        below.choice,
        row.values,
        number // 2,
        number % 2 == 1,
        row.noise,
    )
