"""The budget of an exact enumeration."""

from __future__ import annotations

from dataclasses import dataclass

from clarke.numerics import SET_NODES


@dataclass(frozen=True)
class Limits:
    """When to give up, and what to assume.

    Attributes:
        nodes: Of the search tree.
        cells: Combinations of pieces.
        kinks: Kinks to branch on.
        rounding: Rows that depend on others but for rounding count as dependent.
    """

    nodes: int = 20_000
    cells: int = 4_000
    kinks: int = 256
    rounding: bool = False


def set_limits() -> Limits:
    """What a set is enumerated with that was asked for as such: time and memory bound it."""
    most = int(SET_NODES)
    return Limits(nodes=most, cells=most, kinks=most)
