"""Directions in which declared constants do not move."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from clarke.constraints import random_tangents
from clarke.kinks.embeddings import held_rows
from clarke.steering import Pieces

if TYPE_CHECKING:
    from clarke.steering import Program


def free_tangents(program: Program, generator: torch.Generator) -> tuple[torch.Tensor, ...]:
    """A random direction that leaves the rows alone which an embedding's padding_idx holds.

    Of a table that is computed, all variables' entries stay that such a row depends on.
    """
    found = random_tangents(program, generator)
    rows = held_rows(program.analysis.recorded.ops)
    computed = rows.keys() - set(program.variables)
    for slot, part in zip(program.variables, found, strict=True):
        if slot in rows:
            part[rows[slot][0]] = 0.0
    if not computed:
        return found
    run = program.run(pieces=Pieces.NATURAL)
    for slot in sorted(computed):
        table = run.tensors.get(slot)
        if table is None or not table.requires_grad:
            continue
        row = table[rows[slot][0]]
        mixed = (row * torch.randn(row.shape, dtype=row.dtype, generator=generator)).sum()
        reached = torch.autograd.grad(mixed, run.leaves, retain_graph=True, materialize_grads=True)
        for part, slope in zip(found, reached, strict=True):
            part[slope != 0] = 0.0
    return found
