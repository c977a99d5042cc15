"""Gradients of selections where no path joins two live kinks: affine in every choice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from clarke.constraints import flatten
from clarke.errors import BudgetError
from clarke.numerics import ARRAY_ENTRIES
from clarke.steering import gradient_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from clarke.steering import Program

    Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class LinearParts:
    """G(selection) as a sum: the gradient of AD's selection and one change for each kink.

    Attributes:
        base: (n,) the gradient of AD's first candidates.
        changes: By site position, (M, n): what candidate m adds in place of the chosen one.
        owners: By site position, (K,) dictionaries from candidate to row of `changes`.
    """

    base: Array
    changes: Mapping[int, Array]
    owners: Mapping[int, tuple[dict[int, int], ...]]

    def change(self, position: int, choice: torch.Tensor) -> Array:
        """What a site's choice adds to the base gradient."""
        rows = [self.owners[position][i][c] for i, c in enumerate(choice.tolist())]
        total: Array = self.changes[position][rows].sum(0)
        return total


def require_room(rows: int, columns: int) -> None:
    """Refuse a dense array that is too large, before it is allocated.

    Raises:
        BudgetError: It is.
    """
    if rows * columns > ARRAY_ENTRIES:
        raise BudgetError(
            f"The pieces' gradients here are {rows:,} rows of {columns:,} numbers, more than the "
            f"{int(ARRAY_ENTRIES):,} that are held at once."
        )


def linear_parts(
    program: Program, sites: Sequence[int], *, independent: bool
) -> LinearParts | None:
    """The parts, or None if kinks are nested or decide by masks."""
    every = program.analysis.sites
    if not independent or any(every[p].rule.by_value or every[p].rule.by_weights for p in sites):
        return None
    if not sites:
        return None
    run = program.run(probe=True, nudge=True)
    if run.nudges is None or not run.output.requires_grad:
        return None
    adjoint = run.nudges.signed_adjoints(run.output, program.analysis.count)
    changes: dict[int, Array] = {}
    owners: dict[int, tuple[dict[int, int], ...]] = {}
    for position in sites:
        site, probe = every[position], run.probes[position]
        touch = site.touch
        chosen = touch.chosen()
        members, owner = touch.members.tolist(), touch.owner.tolist()
        size = sum(p.numel() for p in program.point)
        require_room(len(members), size)
        rows = np.zeros((len(members), size))
        places: list[dict[int, int]] = [{} for _ in range(touch.count)]
        for m, (member, k) in enumerate(zip(members, owner, strict=True)):
            places[k][member] = m
        for m, (member, k) in enumerate(zip(members, owner, strict=True)):
            if member == int(chosen[k]):
                continue
            change = probe.candidates[m] - probe.candidates[places[k][int(chosen[k])]]
            if change.requires_grad:
                program.deadline.ask("differentiating {} pieces", len(members))
                grads = torch.autograd.grad(
                    change, run.leaves, retain_graph=True, materialize_grads=True
                )
                rows[m] = float(adjoint[site.first + k]) * flatten(grads)
        changes[position] = rows
        owners[position] = tuple(places)
    base = flatten(gradient_of(run, program))
    return LinearParts(base, changes, owners)
