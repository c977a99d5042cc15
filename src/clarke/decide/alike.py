"""Whether a certificate lists what an enumeration finds again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from clarke.decide.limitset import LimitSet
from clarke.decide.recomputed import Defect
from clarke.feasibility import verify_witness
from clarke.numerics import (
    SAME_GRADIENT,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from clarke.decide.cells import Cell

    Array = NDArray[np.float64]


def check_same(claimed: LimitSet, found: LimitSet) -> None:
    """Whether a certificate lists the selections and exclusions that were enumerated again.

    Directions may differ from run to run where they are searched in a random subspace: they are
    held against the rows.

    Raises:
        Defect: One is missing, or another one.
    """
    differs = Defect("the selections around the point are not those of the certificate")
    if len(claimed.components) != len(found.components):
        raise differs
    _check_alike(claimed.base, found.base, differs)
    for mine, own in zip(claimed.components, found.components, strict=True):
        _check_alike(mine.changes, own.changes, differs)
        if len(mine.cells) != len(own.cells) or len(mine.exclusions) != len(own.exclusions):
            raise differs
        for a, b in zip(mine.cells, own.cells, strict=True):
            _check_cell(a, b, differs)
        for c, d in zip(mine.exclusions, own.exclusions, strict=True):
            _check_alike(c.rows, d.rows, differs)


def _check_cell(claimed: Cell, found: Cell, differs: Defect) -> None:
    for mine, own in (
        ({k: v.numpy() for k, v in claimed.choices.items()}, found.choices),
        (claimed.own, found.own),
    ):
        if sorted(mine) != sorted(own) or not all(
            np.array_equal(mine[k], np.asarray(own[k])) for k in mine
        ):
            raise differs
    _check_alike(claimed.gradient, found.gradient, differs)
    _check_alike(claimed.rows, found.rows, differs)
    if not np.array_equal(claimed.kinks, found.kinks):
        raise differs
    if claimed.direction is None:
        # Less is claimed than is known.
        return
    if found.direction is None or claimed.direction.shape != found.direction.shape:
        raise differs
    if len(found.rows) and not verify_witness(found.rows, claimed.direction):
        raise Defect("the direction of a selection does not satisfy its rows")


def _check_alike(claimed: Array, found: Array, differs: Defect) -> None:
    if claimed.shape != found.shape:
        raise differs
    size = float(np.abs(found).max(initial=0.0))
    if not bool((np.abs(claimed - found) <= SAME_GRADIENT * size).all()):
        raise differs
