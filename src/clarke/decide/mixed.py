"""A gradient written by certain elements of the enumerated set, each with a witness."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from clarke.constraints import build_rows, unflatten
from clarke.decide.exact import (
    Exact,
)
from clarke.decide.limitset import LimitSet
from clarke.decide.model import Witness
from clarke.feasibility import find_witness
from clarke.steering import selected_gradient

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from clarke.decide.cells import Cell
    from clarke.steering import Program

    Array = NDArray[np.float64]


def mix_cells(
    exact: Exact, program: Program, gradient: Array, allowed: Array
) -> tuple[tuple[Witness, ...], tuple[float, ...]] | None:
    """Witnesses and weights that write the gradient by certain elements, or None."""
    limits = exact.limits.certain()
    if limits is None:
        return None
    single = _equal_element(limits, gradient, allowed)
    if single is not None:
        return (witness_of(limits, single, program),), (1.0,)
    placed = limits.place(gradient, allowed, program.deadline)
    if not placed.inside:
        return None
    total = sum(placed.weights)
    return (
        tuple(witness_of(limits, atom, program) for atom in placed.atoms),
        tuple(w / total for w in placed.weights),
    )


def _equal_element(limits: LimitSet, gradient: Array, allowed: Array) -> tuple[int, ...] | None:
    """An element equal to the gradient, if the set is small enough to look at all of it."""
    if limits.count > 4096:
        return None
    equal = np.flatnonzero((np.abs(limits.elements() - gradient) <= allowed).all(axis=1))
    if not len(equal):
        return None
    best = int(equal[0])
    sizes = [len(c.changes) for c in limits.components]
    atom: list[int] = []
    for size in reversed(sizes):
        atom.append(best % size)
        best //= size
    return tuple(reversed(atom))


def witness_of(limits: LimitSet, atom: Sequence[int], program: Program) -> Witness:
    """One element of a certain set as a witness: one direction inside all its cells at once."""
    cells = [c.cells[i] for c, i in zip(limits.components, atom, strict=True)]
    direction = unflatten(joint_direction(cells, len(limits.base))[0], program.point)
    choices = joint_choices(cells)
    kinks = torch.zeros(program.analysis.count, dtype=torch.bool)
    for cell in cells:
        kinks[torch.from_numpy(cell.kinks)] = True
    rows = build_rows(program, choices, kinks, direction)
    return Witness(
        direction=direction,
        choices=choices,
        gradient=selected_gradient(program, choices),
        rows=rows.times(direction).to(torch.float64).numpy(),
        kinks=rows.kinks.numpy(),
    )


def joint_choices(cells: Sequence[Cell]) -> dict[int, torch.Tensor]:
    """The choices of several components, each of which leaves the others' kinks alone."""
    choices: dict[int, torch.Tensor] = {}
    for cell in cells:
        for position, choice in cell.choices.items():
            if position not in choices:
                choices[position] = choice.clone()
                continue
            mine = torch.from_numpy(cell.pinned(position))
            choices[position][mine] = choice[mine]
    return choices


def joint_direction(cells: Sequence[Cell], size: int) -> tuple[Array, Array]:
    """A direction inside all cells, and all their rows.

    The components' rows span independent spaces, so some direction agrees with each cell's own
    direction on that cell's rows.
    """
    rows = [c.rows for c in cells if len(c.rows)]
    if not rows:
        return np.ones(size), np.zeros((0, size))
    stacked = np.concatenate(rows)
    if len(rows) == 1:
        own = next(c.direction for c in cells if len(c.rows))
        return (np.ones(size) if own is None else own), stacked
    targets = np.concatenate(
        [_unit(c.rows @ c.direction) for c in cells if len(c.rows) and c.direction is not None]
    )
    direction = np.linalg.lstsq(stacked, targets, rcond=None)[0]
    if not bool(np.all(stacked @ direction > 0)):
        found = find_witness(stacked)
        if found.direction is not None:
            direction = found.direction
    return direction, stacked


def _unit(values: Array) -> Array:
    return values / float(np.abs(values).max())
