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

from clarke.decide.allowed import rounding_of_selections
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
    allowed = rounding_of_selections(program) if pairs else np.zeros(0)
    for a, b in pairs:
        program.deadline.ask("comparing {} pairs of branches where they meet", len(pairs))
        if _apart(a, b, allowed):
            raise JumpsBesideError(
                "The function jumps beside the point: the branches of a step differ on the surface "
                "on which they meet."
            )


def _apart(one: Cell, two: Cell, allowed: Array) -> bool:
    """Whether two linear functions differ somewhere on the common face of their cones.

    With rows ``R``, all of which are at least zero on the face, ``change`` is at most zero there if
    ``-change = R' y + rest`` with ``y >= 0`` and no rest. Otherwise the least rest is, negated, a
    direction on the face along which the change is ``|rest|`` for each unit of length.

    Raises:
        BudgetError: They differ by more than rounding, but by too little to be sure of it.
    """
    rows = np.concatenate([one.rows, two.rows])
    rows = rows / np.abs(rows).max(axis=1, keepdims=True)
    sizes = np.abs(one.gradient) + np.abs(two.gradient)
    change = (one.gradient - two.gradient) / sizes.max()
    doubtful = False
    for sign in (1.0, -1.0):
        try:
            shares, left = scipy.optimize.nnls(rows.T, -sign * change)
        except RuntimeError:
            raise BudgetError("Whether two branches meet could not be told.") from None
        if left > MEETING_APART:
            return True
        rest = np.abs(rows.T @ shares + sign * change) * sizes.max()
        room = JUMP_ROUNDINGS * (sizes + np.abs(rows).T @ shares * sizes.max())
        doubtful |= bool((rest > allowed + room).any())
    if doubtful:
        raise BudgetError(
            "Two branches differ on the surface on which they meet, by more than rounding but too "
            "little to be sure of a jump."
        )
    return False
