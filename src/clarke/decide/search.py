"""Search for a direction that witnesses a selection."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from clarke.constraints import RowOperator, build_rows, random_tangents, unflatten
from clarke.constraints.drowned import tangent
from clarke.deadline import rung
from clarke.decide.model import Settings, Witness
from clarke.decide.tolerance import peak
from clarke.feasibility import Feasibility, Outcome, find_witness
from clarke.kinks.choices import ChoiceRule
from clarke.numerics import (
    LONGEST_CHAIN,
    ROW_VANISHING,
    WITNESS_MARGIN,
)
from clarke.steering import selected_gradient
from clarke.tangents import forward_mode

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from clarke.steering import Program, Site


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
        found = find_witness(matrix, margin=WITNESS_MARGIN, deadline=program.deadline)
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
        size = peak(direction)
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
    best = find_witness(np.stack(columns, 1), margin=WITNESS_MARGIN, deadline=program.deadline)
    if best.outcome is not Outcome.WITNESS:
        order = _order(rows)
        if order is not None:
            add(order)
            best = find_witness(
                np.stack(columns, 1), margin=WITNESS_MARGIN, deadline=program.deadline
            )
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
        best = find_witness(np.stack(columns, 1), margin=WITNESS_MARGIN, deadline=program.deadline)
    return basis, np.stack(columns, 1), best


def _order(rows: RowOperator) -> tuple[torch.Tensor, ...] | None:
    """A direction that orders what is tied so that it suits all choices of the selection.

    Overlapping windows want chains of elements, each greater than the next, which sums of rows find
    link by link. Here the elements are told by their tangents along a random direction (copies of
    one have the same), their order is the longest path to each, and one backward pass takes it back
    to the variables: exact where the elements are variables, and a good start elsewhere.
    """
    program = rows.program
    sites = _choosing(program, rows.relevant)
    if not sites:
        return None
    with forward_mode():
        direction = random_tangents(program, torch.Generator().manual_seed(0))
        run = program.run(choices=rows.choices, tangents=direction, probe=True, grad=False)
        marks = [tangent(run.probes[s.position].candidates) for s, _ in sites]
    element = torch.cat(marks).unique(return_inverse=True)[1]
    greater, lesser = [], []
    for (site, side), own in zip(sites, element.split([m.numel() for m in marks]), strict=True):
        touch = site.touch
        choice = rows.choices.get(site.position, touch.chosen())
        chosen = touch.members == choice[touch.owner]
        winner = torch.zeros(touch.count, dtype=torch.int64)
        winner[touch.owner[chosen]] = own[chosen]
        matters = rows.relevant[site.first : site.first + touch.count][touch.owner]
        pairs = winner[touch.owner], own
        apart = matters & (pairs[0] != pairs[1])
        high, low = pairs if side > 0 else pairs[::-1]
        greater.append(high[apart])
        lesser.append(low[apart])
    level = _longest_paths(program, torch.cat(greater), torch.cat(lesser), int(element.max()) + 1)
    if level is None:
        return None
    first = torch.full((level.numel(),), element.numel())
    first.scatter_reduce_(0, element, torch.arange(element.numel()), "amin")
    y = torch.zeros(element.numel(), dtype=program.dtype)
    y[first] = level
    still = program.run(choices=rows.choices, probe=True)
    values = torch.cat([still.probes[s.position].candidates for s, _ in sites])
    if not values.requires_grad:
        return None
    grads = torch.autograd.grad((values * y).sum(), still.leaves, materialize_grads=True)
    return tuple(g.detach() for g in grads)


def _choosing(program: Program, relevant: torch.Tensor) -> list[tuple[Site, int]]:
    """Operations with a relevant kink that pick the greatest (1) or the least (-1) of its ties."""
    found = []
    for site in program.analysis.ordered():
        own = relevant[site.first : site.first + site.touch.count]
        if isinstance(site.rule, ChoiceRule) and bool(own.any()):
            side = site.rule.side(site.touch, 0)
            found += [(site, side)] if side else []
    return found


def _longest_paths(
    program: Program, greater: torch.Tensor, lesser: torch.Tensor, count: int
) -> torch.Tensor | None:
    """By element: how many others it must be greater than in a chain; None if it goes round."""
    level = torch.zeros(count, dtype=program.dtype)
    for _ in range(int(LONGEST_CHAIN)):
        program.deadline.ask("ordering {} tied elements", count)
        raised = level.scatter_reduce(0, greater, level[lesser] + 1, "amax")
        if torch.equal(raised, level):
            return level
        level = raised
    return None


def _vanishes(
    rows: RowOperator, y: NDArray[np.float64], combined: tuple[torch.Tensor, ...]
) -> bool:
    """Whether a combination of rows vanishes next to the largest of its terms, up to rounding."""
    own = np.where(np.arange(y.size) == int(y.argmax()), y, 0.0)
    return peak(combined) <= ROW_VANISHING * peak(rows.transposed_times(torch.from_numpy(own)))


def _bias_shifts(rows: RowOperator) -> list[tuple[torch.Tensor, ...]]:
    """For every operation with rows: the sum of its rows, on vectors only and on everything."""
    found: list[tuple[torch.Tensor, ...]] = []
    sites = rows.program.analysis.ordered()
    for site in sites:
        own = (rows.kinks >= site.first) & (rows.kinks < site.first + site.touch.count)
        if not bool(own.any()):
            continue
        rows.program.deadline.ask("shifting biases: {} of {}", len(found) // 2 + 1, len(sites))
        total = rows.transposed_times(own.to(rows.program.dtype))
        small = tuple(p if p.dim() <= 1 else torch.zeros_like(p) for p in total)
        # Signs rather than sums: every neuron's own bias counts alike.
        found.append(tuple(torch.sign(p) for p in small))
        found.append(total)
    return found
