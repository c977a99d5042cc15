"""Candidates that move freely: every choice of pieces occurs beside the point, and so the hull.

Where every candidate has a variable's entry to itself, some direction gives all candidates any
slopes: a median of entries of one tensor takes each of those that are tied, whatever others take.
Then the outer estimate is the set, whichever way pieces bend.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from clarke.numerics import PRIVATE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from clarke.decide.outer import Outer

    Array = NDArray[np.float64]

_PROBES = 3  # random combinations of rows; the first is what the others are compared with


def moves_freely(outer: Outer) -> bool:
    """Whether all candidates of all kinks have slopes that can be had in any combination."""
    atoms = outer.atoms
    if outer.mixing is not None or atoms.by_values is None:
        return False
    counts = outer.out != 0
    if not bool(atoms.by_values[counts].all()):
        return False
    used = counts[atoms.owner]
    # Quantity 0 is zero: the piece of max(0, s) that is not s. No other may be chosen from twice.
    forms = atoms.form[used & (atoms.form != 0)]
    if len(np.unique(forms)) < len(forms):
        return False
    return len(forms) > 0 and _have_own_entries(outer, forms)


def _have_own_entries(outer: Outer, forms: Array) -> bool:
    """Whether each of these rows has a column in which no other of them has an entry.

    Seen from random combinations of the rows: in such a column they are in the same ratio to each
    other as the row's own factors are.
    """
    generator = np.random.default_rng(0)
    factors = generator.uniform(1.0, 2.0, (_PROBES, len(forms)))
    factors[0] *= generator.choice((-1.0, 1.0), len(forms))
    seen = []
    for factor in (factors[0], *(factors[0] * factors[1:])):
        weights = np.zeros(outer.forms.size)
        weights[forms] = factor
        seen.append(outer.forms.pulled(weights))
    moved = seen[0] != 0
    ratios = np.stack([s[moved] / seen[0][moved] for s in seen[1:]])
    order = np.argsort(factors[1])
    ends = factors[1][order]
    own = np.zeros(len(forms), dtype=bool)
    place = np.searchsorted(ends, ratios[0])
    for near in (place - 1, place):
        row = order[np.clip(near, 0, len(forms) - 1)]
        alike = np.abs(ratios - factors[1:, row]) <= PRIVATE * factors[1:, row]
        own[row[alike.all(0)]] = True
    return bool(own.all())
