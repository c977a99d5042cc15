"""Rows that point in the same or in opposite directions."""

from __future__ import annotations

import numpy as np

from clarke.feasibility.outcome import IndexArray
from clarke.feasibility.system import System

_PAIRS = 16  # opposite pairs to try; one exact pair is enough


def merge_parallel(system: System) -> tuple[IndexArray, list[tuple[int, int]]]:
    """One row of each direction, and pairs of rows that seem opposite (to be checked exactly).

    Each row is divided by its largest entry. Division is correctly rounded, so exactly parallel
    rows give the same floats, hence the same inner product with a fixed random vector; rows that
    agree only to rounding may be merged as well, so a witness is checked on all rows.
    """
    first = np.flatnonzero(np.r_[True, system.row[1:] != system.row[:-1]])
    size = np.abs(system.val)
    largest = np.flatnonzero(size == np.maximum.reduceat(size, first)[system.row])
    index = largest[np.r_[True, system.row[largest][1:] != system.row[largest][:-1]]]
    lead = system.val[index]
    probe = np.random.default_rng(0).uniform(1.0, 2.0, system.shape[1])
    ratio = system.val / lead[system.row]
    key = np.bincount(system.row, ratio * probe[system.col])
    order = np.lexsort((lead, key))
    same = key[order][1:] == key[order][:-1]
    turned = (lead[order][1:] > 0) != (lead[order][:-1] > 0)
    kept = np.sort(order[np.r_[True, ~(same & ~turned)]])
    pairs = np.flatnonzero(same & turned)[:_PAIRS]
    return kept, [(int(order[p]), int(order[p + 1])) for p in pairs]
