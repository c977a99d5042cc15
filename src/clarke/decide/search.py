"""Search for a direction that witnesses a selection."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from clarke.constraints import RowOperator, build_rows, random_tangents, unflatten
from clarke.deadline import rung
from clarke.decide.model import Settings, Witness
from clarke.decide.tolerance import peak
from clarke.feasibility import Feasibility, Outcome, find_witness
from clarke.steering import selected_gradient

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from clarke.steering import Program

_MARGIN = 1e-9
_VANISHING = 1e-12


@rung("looking for a direction that selects the pieces")
def witness_selection(
    program: Program,
    choices: Mapping[int, torch.Tensor],
    relevant: torch.Tensor,
    settings: Settings,
    generator: torch.Generator,
) -> tuple[Witness | None, Feasibility]:
    """A witness for one selection of the relevant kinks, with what the search found.

    Args:
        program: The program.
        choices: The selection, by site position; AD's where silent.
        relevant: (count,) bool, the kinks whose rows must hold.
        settings: Limits.
        generator: Private randomness.
    """
    rows = build_rows(program, choices, relevant)
    m, n = rows.shape
    if m * n <= settings.dense_entries and m <= 512:
        matrix = rows.dense()
        found = find_witness(matrix, margin=_MARGIN, deadline=program.deadline)
        if found.direction is None:
            return None, found
        direction = unflatten(found.direction, program.point)
        along = matrix @ found.direction
    else:
        basis, reduced, found = _generate_columns(program, rows, settings, generator)
        if found.direction is None:
            return None, found
        direction = tuple(
            sum(
                (c * b for c, b in zip(found.direction.tolist(), parts, strict=True)),
                torch.zeros(()),
            )
            for parts in zip(*basis, strict=True)
        )
        along = reduced @ found.direction
    gradient = selected_gradient(program, choices)
    witness = Witness(
        direction=direction,
        choices=dict(choices),
        gradient=gradient,
        rows=along,
        kinks=rows.kinks.numpy(),
    )
    return witness, found


def _generate_columns(
    program: Program, rows: RowOperator, settings: Settings, generator: torch.Generator
) -> tuple[list[tuple[torch.Tensor, ...]], NDArray[np.float64], Feasibility]:
    """Solve A d > 0 in a growing subspace.

    The basis starts with the bias shifts of Theorems 1, 4 and 6 (for each layer with rows, the
    sum of its rows, restricted to small parameters) and grows by ``A^T y`` for the multipliers y
    that the restricted problem returns: the direction that helps most where the basis falls short.
    """
    basis: list[tuple[torch.Tensor, ...]] = []
    columns: list[NDArray[np.float64]] = []

    def add(direction: tuple[torch.Tensor, ...]) -> None:
        size = max((float(p.abs().max()) for p in direction if p.numel()), default=0.0)
        if not size > 0:
            return
        # Powers of two keep the columns exact.
        direction = tuple(p / 2.0 ** np.frexp(size)[1] for p in direction)
        basis.append(direction)
        columns.append(rows.times(direction).to(torch.float64).numpy())

    for direction in _bias_shifts(rows):
        add(direction)
    if not basis:
        add(random_tangents(program, generator))
    best = find_witness(np.stack(columns, 1), margin=_MARGIN, deadline=program.deadline)
    for _ in range(settings.rounds):
        if best.outcome is Outcome.WITNESS:
            break
        y = best.multipliers
        before = len(basis)
        if y is not None and np.any(y > 0):
            y = np.maximum(y, 0.0)
            pull = rows.transposed_times(torch.from_numpy(y))
            if _vanishes(rows, y, pull):
                break  # a contradiction in all variables, which no direction resolves
            add(pull)
        if len(basis) == before:
            add(random_tangents(program, generator))
        best = find_witness(np.stack(columns, 1), margin=_MARGIN, deadline=program.deadline)
    return basis, np.stack(columns, 1), best


def _vanishes(
    rows: RowOperator, y: NDArray[np.float64], combined: tuple[torch.Tensor, ...]
) -> bool:
    """Whether a combination of rows vanishes next to the largest of its terms, up to rounding."""
    own = np.where(np.arange(y.size) == int(y.argmax()), y, 0.0)
    return peak(combined) <= _VANISHING * peak(rows.transposed_times(torch.from_numpy(own)))


def _bias_shifts(rows: RowOperator) -> list[tuple[torch.Tensor, ...]]:
    """For every operation with rows: the sum of its rows, on vectors only and on everything."""
    found = []
    sites = rows.program.analysis.ordered()
    for site in sites:
        own = (rows.kinks >= site.first) & (rows.kinks < site.first + site.touch.count)
        if not bool(own.any()):
            continue
        total = rows.transposed_times(own.to(rows.program.dtype))
        small = tuple(p if p.dim() <= 1 else torch.zeros_like(p) for p in total)
        # Signs rather than sums: every neuron's own bias counts alike.
        found.append(tuple(torch.sign(p) for p in small))
        found.append(total)
    return found
