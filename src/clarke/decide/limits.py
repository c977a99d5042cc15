"""The budget of an exact enumeration."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """When to give up: nodes of the search tree, cells, and kinks to branch on."""

    nodes: int = 20_000
    cells: int = 4_000
    kinks: int = 256
