"""Whether a branch of an enumeration is empty, beside the point and not to first order only."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from clarke.decide.cone import dot
from clarke.decide.identity import Nearby, vanish_together, vanishes_nearby
from clarke.feasibility import find_witness

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch
    from numpy.typing import NDArray

    from clarke.arrangement import Row
    from clarke.decide.identity import Form
    from clarke.decide.options import Node
    from clarke.steering import Program


class Exclusions:
    """Tells which branches to drop.

    Args:
        program: The program.
        affine: Switching functions and candidates are affine, so that first order tells.
        whole: Cones are of all directions, and not of a subspace.
        generator: Private randomness.
    """

    def __init__(
        self, program: Program, generator: torch.Generator, *, affine: bool, whole: bool
    ) -> None:
        self._program = program
        self._generator = generator
        self._affine = affine
        self._whole = whole
        self._nearby = Nearby(program, generator)
        self._known: dict[tuple[object, ...], bool] = {}

    def excluded(self, node: Node, edge: Sequence[Row] | None) -> bool:
        """Whether no point near w has this selection.

        `edge` spans the directions that satisfy all conditions but for being zero on some.
        """
        if self._affine and self._whole:
            return True  # the cone is exact, and so is first order
        if self._turns_back(node):
            return True
        rows = np.stack([r.values for r in node.rows])
        found = find_witness(rows, deadline=self._program.deadline)
        if found.direction is not None:
            return False  # the cone was empty in a subspace only
        if self._affine:
            return True
        used = []
        if found.multipliers is not None:
            if self._vanishes(node, found.multipliers):
                return True
            used.append(np.flatnonzero(found.multipliers > 0).tolist())
        if edge is not None and self._whole:
            used.append(
                [i for i, r in enumerate(node.rows) if not any(map(partial(dot, r.exact), edge))]
            )
        return any(self._vanish_together(node, own) for own in used)

    def _vanishes(self, node: Node, multipliers: NDArray[np.float64]) -> bool:
        """Whether a positive combination of a branch's conditions is zero beside the point, too."""
        used = np.flatnonzero(multipliers > 0)
        forms = [node.rows[i].form for i in used]
        shares = multipliers[used] / multipliers[used].max()
        name = (*self._name(node, forms), frozenset(zip(forms, shares.tolist(), strict=True)))
        known = self._known.get(name)
        if known is None:
            known = self._known[name] = vanishes_nearby(
                self._program, node.choices, node.pinned, forms, shares, self._generator
            )
        return known

    def _name(self, node: Node, forms: Sequence[Form]) -> tuple[object, ...]:
        """What some switching functions of a branch may depend on: it is tested once."""
        last = max(f.position for f in forms)
        before = tuple((p, *c.tolist()) for p, c in node.choices.items() if p < last)
        first = self._program.analysis.sites[last].first
        return before, frozenset(k for k in node.pinned if k < first)

    def _vanish_together(self, node: Node, rows: list[int]) -> bool:
        """Whether some conditions of a branch are zero where those of independent slopes are."""
        own = [node.rows[i] for i in rows]
        forms = [r.form for r in own]
        name = (*self._name(node, forms), frozenset(forms))
        known = self._known.get(name)
        if known is None:
            known = self._known[name] = vanish_together(
                self._program,
                node.choices,
                node.pinned,
                forms,
                np.stack([r.values for r in own]),
                self._generator,
            )
        return known

    def _turns_back(self, node: Node) -> bool:
        """Whether the last condition and an earlier one want opposite signs of one function."""
        last = node.rows[-1]
        for row in node.rows[:-1]:
            if row.positive != last.negative:
                continue
            sizes = [1.0 / float(np.abs(r.values).max()) for r in (row, last)]
            if self._nearby.are_one((row.form, last.form), sizes):
                return True
        return False
