"""Curvature that values do not show: slopes at one point beside, entry by entry.

Beside ``1e10 * x0`` a product of two other coordinates drowns, wherever both move and x0 does too.
In a gradient every coordinate has an entry of its own: of the product the entries of its two
factors move, which the large term leaves alone. So one random point tells for all coordinates.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import torch

from clarke.constraints import flatten
from clarke.constraints.nearby import nearby_point
from clarke.constraints.noise import noise_of
from clarke.errors import ReplayError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from clarke.steering import Errors, Program, Run

    Point = Sequence[torch.Tensor] | None

_APART = 16  # operations with kinks that are looked at one by one, so that none hides another


def bends(
    program: Program, weights: Mapping[int, torch.Tensor], generator: torch.Generator
) -> bool:
    """Whether slopes of a switching function or candidate differ at a random point nearby.

    Args:
        program: The program.
        weights: Mixtures of the kinks' pieces, by site position.
        generator: Private randomness.
    """
    moved = nearby_point(program, generator)
    seed = int(torch.randint(2**31, (), generator=generator))
    change = partial(_change, program, weights, moved, seed)
    found = change(None)
    if not any(bool((c != 0).any()) for c in found.values()):
        return False
    try:
        noise = noise_of(program, found, change)
    except ReplayError:
        return True
    if noise is None:
        return True
    return any(not bool((found[g].abs() <= noise[g]).all()) for g in found)  # NaN bends


def _change(
    program: Program,
    weights: Mapping[int, torch.Tensor],
    moved: Sequence[torch.Tensor],
    seed: int,
    errors: Errors | None,
) -> dict[int, torch.Tensor]:
    """By group of sites, (n,) by how much the slopes of a random combination differ."""
    slopes = []
    for point in (None, moved):
        run = program.run(point, weights=weights, probe=True, errors=errors)
        slopes.append(dict(_slopes(program, run, seed)))
    here, there = slopes
    return {group: there[group] - here[group] for group in here}


def _slopes(program: Program, run: Run, seed: int) -> Iterator[tuple[int, torch.Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    apart = len(run.probes) <= _APART
    sums: dict[int, torch.Tensor] = {}
    for position in sorted(run.probes):
        probe = run.probes[position]
        for values in (probe.switching, probe.candidates):
            factors = torch.randn(values.shape, dtype=torch.float64, generator=generator)
            group = position if apart else 0
            own = (values * factors).sum() if values.requires_grad else torch.zeros(())
            sums[group] = sums.get(group, torch.zeros(())) + own
    size = sum(p.numel() for p in program.point)
    for group, total in sums.items():
        program.deadline.ask("comparing slopes beside the point")
        if not total.requires_grad:
            yield group, torch.zeros(size, dtype=torch.float64)
            continue
        gradient = torch.autograd.grad(total, run.leaves, retain_graph=True, materialize_grads=True)
        yield group, torch.from_numpy(flatten(gradient))
