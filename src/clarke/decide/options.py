"""What an enumeration branches on: kinks, their candidates, and the conditions of each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from clarke.kinks.steps import ComparisonRule
from clarke.numerics import SURE_MARGIN

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import torch
    from numpy.typing import NDArray

    from clarke.arrangement import Row
    from clarke.decide.cone import Cone
    from clarke.decide.identity import Form
    from clarke.kinks import KinkRule
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


def is_sure(rows: Sequence[Condition], direction: Array) -> bool:
    """Whether rows are positive by more than rounding, though variables' units are far apart."""
    for row in rows:
        value, along = float(row.values @ direction), np.abs(direction)
        if value <= SURE_MARGIN * float(np.abs(row.values) @ along):
            return False
        if value <= 2 * float(row.noise() @ along):
            return False
    return True


def levels_of(rule: KinkRule, members: Sequence[int]) -> list[tuple[int, int]]:
    """(switching function, first candidate above it) for the functions that vanish."""
    if rule.by_value:
        return [(0, 1)]
    return [(m, m + 1) for m in members[:-1]]


def side_of(rule: KinkRule, member: int, above: int) -> float:
    """The sign that the switching function must have for a candidate."""
    if isinstance(rule, ComparisonRule):
        return 1.0 if member == int(rule.above) else -1.0
    return 1.0 if member >= above else -1.0
