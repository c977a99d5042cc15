"""The budget of an exact enumeration."""

from __future__ import annotations

from dataclasses import dataclass


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
