"""What an enumeration finds: selections with what proves them, and branches that were dropped."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import torch
    from numpy.typing import NDArray

    Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Cell:
    """One selection that is, or may be, active near the point.

    Attributes:
        choices: The selection of the live kinks' sites.
        gradient: (n,) its gradient G.
        direction: (n,) a direction strictly inside the cell, or None when the selection was merely
            not excluded.
        rows: (m, n) the conditions on the direction.
        kinks: (m,) the kink of each row.
        own: By site position, (K,) bool: the kinks that the enumeration branched on.
    """

    choices: Mapping[int, torch.Tensor]
    gradient: Array
    direction: Array | None
    rows: Array
    kinks: NDArray[np.int64]

    own: Mapping[int, NDArray[np.bool_]]

    def pinned(self, position: int) -> NDArray[np.bool_]:
        """(K,) which kinks of a site this cell's enumeration branched on."""
        return self.own[position]

    @property
    def certain(self) -> bool:
        """Whether a direction proves that the gradient is a limiting gradient."""
        return self.direction is not None


@dataclass(frozen=True, eq=False)
class Exclusion:
    """Rows of a branch that was dropped: some non-negative combination of them vanishes."""

    rows: Array


@dataclass(frozen=True, eq=False)
class Cells:
    """The outcome of an enumeration: every selection not in it is excluded."""

    cells: Sequence[Cell]
    exclusions: tuple[Exclusion, ...]
