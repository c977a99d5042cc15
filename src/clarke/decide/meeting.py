"""Whether the branches of comparisons that jump meet: the function is continuous all around.

``where((x > 0).any(), relu(x).sum(), 0)`` takes at 0 a branch by several comparisons at once, each
of which alone would jump. With every selection enumerated, and all functions affine, each cell is a
cone of directions on which the function is linear. If all have the point's own value, and any two
agree where their closures meet, the function is continuous and piecewise linear around the point:
its limiting gradients are those of the cells. If two differ on a common face, it jumps beside the
point.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import scipy.optimize

from clarke.errors import BudgetError
from clarke.kinks import Hazard
from clarke.numerics import JUMP_ROUNDINGS, MEETING_APART
from clarke.steering import Pieces

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from clarke.constraints import Relevance
    from clarke.decide.cells import Cell
    from clarke.steering import Program

    Array = NDArray[np.float64]

_PAIRS = 600  # pairs of cells that are compared


class JumpsBesideError(BudgetError):
    """Two branches differ on the surface on which they meet: the function is not continuous."""


def only_branches(program: Program, relevance: Relevance) -> bool:
    """Whether nothing but comparisons and signs is out of reach of selections."""
    if relevance.lost_masks or set(relevance.hazards) != {Hazard.STEP}:
        return False
    steps = relevance.hazards[Hazard.STEP].tolist()
    return all(program.analysis.site_of(k).rule.by_value for k in steps)


def check_meeting(program: Program, cells: Sequence[Cell]) -> None:
    """Whether a function, affine on every one of these cells, is continuous around the point.

    Raises:
        JumpsBesideError: It is not.
        BudgetError: That cannot be told.
    """
    if not all(c.certain for c in cells):
        raise BudgetError("Some selections at a step could be neither proved nor excluded.")
    here = program.run(pieces=Pieces.NATURAL, grad=False).output.sum()
    for cell in cells:
        there = program.run(choices=cell.choices, grad=False).output.sum()
        size = float(here.abs() + there.abs())
        if not abs(float(there - here)) <= JUMP_ROUNDINGS * size:
            raise JumpsBesideError("The function jumps at the point itself.")
    pairs = [
        (a, b)
        for i, a in enumerate(cells)
        for b in cells[:i]
        if not np.array_equal(a.gradient, b.gradient)
    ]
    if len(pairs) > _PAIRS:
        raise BudgetError(f"{len(pairs)} pairs of branches meet at steps, more than {_PAIRS}.")
    for a, b in pairs:
        program.deadline.ask("comparing {} pairs of branches where they meet", len(pairs))
        if _apart(a, b):
            raise JumpsBesideError(
                "The function jumps beside the point: the branches of a step differ on the surface "
                "on which they meet."
            )


def _apart(one: Cell, two: Cell) -> bool:
    """Whether two linear functions differ somewhere on the common face of their cones."""
    change = one.gradient - two.gradient
    rows = np.concatenate([one.rows, two.rows])
    rows = rows / np.abs(rows).max(axis=1, keepdims=True)
    size = float(np.abs(np.concatenate([one.gradient, two.gradient])).max())
    for sign in (1.0, -1.0):
        found = scipy.optimize.linprog(
            -sign * change / size, A_ub=-rows, b_ub=np.zeros(len(rows)), bounds=(-1.0, 1.0)
        )
        if found.status != 0:
            raise BudgetError("Whether two branches meet could not be told.")
        if not -found.fun <= MEETING_APART:
            return True
    return False
