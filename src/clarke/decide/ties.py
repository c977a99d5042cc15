"""Kinks that are one: null, or with multiples of one switching function.

Multiples are proposed by slopes along a few random directions, and then checked entry by entry, and
beside the point.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import torch

from clarke.constraints.nearby import nearby_point, nearby_points
from clarke.numerics import CURVED, KEY, SAME_FORM

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from clarke.deadline import Deadline
    from clarke.decide.forms import CutProgram

    Array = NDArray[np.float64]
    Index = NDArray[np.int64]
    Mask = NDArray[np.bool_]

_SEEDS: Final = 3  # random directions; forms agree along all of them, or are not multiples
_HALVES: Final = 6  # points nearby at which a random half of the entries moves


@dataclass(frozen=True, eq=False)
class Tied:
    """What is known of every kink, (K,) each.

    Attributes:
        null: Its candidates have equal gradients, whatever the selection.
        group: The number of its group of kinks with one switching function, -1 for none.
        leader: The kink whose switching function stands for the group's (for itself without one).
        ratio: Its switching function as a multiple of the leader's.
        slope: What its result gains per unit of its switching function, second candidate less
            first.
    """

    null: Mask
    group: Index
    leader: Index
    ratio: Array
    slope: Array


def tie(cut: CutProgram, generator: torch.Generator, deadline: Deadline) -> Tied:
    """Find null kinks, and kinks with one switching function."""
    kinks = cut.kinks
    looks = []
    for _ in range(_SEEDS):
        deadline.ask("comparing the kinks' switching functions")
        looks.append(cut.along(generator))
    slopes, switching = (np.stack(part) for part in zip(*looks, strict=True))
    first = kinks.first
    change = slopes - slopes[:, first][:, kinks.owner]
    size = np.zeros(kinks.count)
    np.maximum.at(size, kinks.owner, np.abs(slopes).max(0))
    spread = np.zeros(kinks.count)
    np.maximum.at(spread, kinks.owner, np.abs(change).max(0))
    null = spread <= SAME_FORM * size
    square = (switching * switching).sum(0)
    jump = change[:, np.minimum(first + 1, len(kinks.owner) - 1)]
    split = kinks.split & (square > 0) & ~null
    slope = np.where(split, (jump * switching).sum(0) / np.where(split, square, 1.0), 0.0)
    off = np.abs(jump - slope * switching).max(0)
    split &= (off <= SAME_FORM * np.abs(jump).max(0)) & (slope != 0)
    group, leader, ratio = _group(split, switching, square)
    proposed = Tied(null, group, leader, ratio, np.where(split, slope, 0.0))
    if not _holds(cut, proposed, generator):
        none = np.full(kinks.count, -1)
        zeros = np.zeros(kinks.count)
        return Tied(np.zeros_like(null), none, np.arange(kinks.count), zeros, zeros)
    return _without_curved(cut, proposed, generator, deadline)


def _group(split: Mask, switching: Array, square: Array) -> tuple[Index, Index, Array]:
    """Group, leader and ratio of kinks whose switching functions look like multiples."""
    count = len(split)
    group, leader, ratio = np.full(count, -1), np.arange(count), np.ones(count)
    at = np.flatnonzero(split)
    if len(at):
        lines = switching[:, at] / np.sqrt(square[at])
        largest = np.abs(lines).argmax(0)
        lines = lines * np.sign(lines[largest, np.arange(len(at))])
        keys = np.round(lines.T / KEY).astype(np.int64)
        _, start, label = np.unique(keys, axis=0, return_index=True, return_inverse=True)
        label = label.reshape(-1)
        group[at] = label
        leader[at] = at[start[label]]
        ratio[at] = (switching[:, at] * switching[:, leader[at]]).sum(0) / square[leader[at]]
        off = np.abs(switching[:, at] - ratio[at] * switching[:, leader[at]]).max(0)
        alone = at[off > SAME_FORM * np.abs(switching[:, at]).max(0)]
        _part(alone, group, leader, ratio)
    return group, leader, ratio


def _part(alone: Index, group: Index, leader: Index, ratio: Array) -> None:
    """Give some kinks groups of their own."""
    group[alone] = int(group.max(initial=-1)) + 1 + np.arange(len(alone))
    leader[alone], ratio[alone] = alone, 1.0


def _holds(cut: CutProgram, tied: Tied, generator: torch.Generator) -> bool:
    """Check entry by entry, with random factors, that forms are the multiples proposed."""
    kinks = cut.kinks

    def random(count: int) -> Array:
        return torch.randn(count, dtype=torch.float64, generator=generator).numpy()

    candidates, switching = random(len(kinks.owner)), random(kinks.count)
    split = tied.group >= 0
    # Of a null kink all candidates are the first; of a split one the second less the first is a
    # multiple of the switching function, and that of the leader's.
    kept = (tied.null | split)[kinks.owner]
    c = np.where(kept, candidates, 0.0)
    sums = np.zeros(kinks.count)
    np.add.at(sums, kinks.owner, c)
    c[kinks.first] -= sums
    jump = np.where(split, c[np.minimum(kinks.first + 1, len(c) - 1)], 0.0)
    s = np.where(split, switching, 0.0) - jump * tied.slope
    led = np.zeros(kinks.count)
    np.add.at(led, tied.leader, np.where(split, switching, 0.0) * tied.ratio)
    gap = _pulled(cut, c, s - led)
    size = np.zeros_like(gap)
    for _ in range(2):
        size = np.maximum(
            size,
            np.abs(
                _pulled(cut, c * random(len(c)), 0 * s)
                + _pulled(cut, 0 * c, (np.abs(s) + np.abs(led)) * random(len(s)))
            ),
        )
    return bool((np.abs(gap) <= SAME_FORM * size).all())


def _pulled(cut: CutProgram, candidates: Array, switching: Array) -> Array:
    parts = (cut.pull(cut.look.candidates, candidates), cut.pull(cut.look.switching, switching))
    return np.concatenate([parts[0][0] + parts[1][0], parts[0][1] + parts[1][1]])


def _without_curved(
    cut: CutProgram, tied: Tied, generator: torch.Generator, deadline: Deadline
) -> Tied:
    """Part kinks from their groups whose switching functions are multiples at the point only."""
    group, leader, ratio = tied.group.copy(), tied.leader.copy(), tied.ratio.copy()
    follows = (group >= 0) & (leader != np.arange(len(leader)))
    if bool(follows.any()):
        curved = np.zeros_like(follows)
        for point in nearby_points(cut.program, generator, 2, _HALVES):
            deadline.ask("comparing the kinks' switching functions")
            values = cut.beside(point, generator)
            other = ratio * values[leader]
            curved |= ~(np.abs(values - other) <= CURVED * (np.abs(values) + np.abs(other)))
        if not _straight(cut, tied, follows & ~curved, generator):
            curved |= follows
        _part(np.flatnonzero(curved & follows), group, leader, ratio)
    return Tied(tied.null, group, leader, ratio, tied.slope)


def _straight(cut: CutProgram, tied: Tied, follows: Mask, generator: torch.Generator) -> bool:
    """Whether slopes beside the point are multiples, entry by entry; values add up all entries."""
    if not follows.any():
        return True
    look = cut.look_beside(nearby_point(cut.program, generator), generator)

    def pulled(weights: Array) -> Array:
        return np.concatenate(cut.pull(look.switching, weights, look))

    def random() -> Array:
        return torch.randn(len(follows), dtype=torch.float64, generator=generator).numpy()

    own = np.where(follows, random(), 0.0)
    led = np.zeros_like(own)
    np.add.at(led, tied.leader, own * tied.ratio)
    size = np.zeros(cut.size + cut.kinks.count)
    for _ in range(2):
        size = np.maximum(size, np.abs(pulled((np.abs(own) + np.abs(led)) * random())))
    return bool((np.abs(pulled(own - led)) <= SAME_FORM * size).all())
