"""Directions in which declared constants do not move."""

from __future__ import annotations

from typing import TYPE_CHECKING

from clarke.constraints import random_tangents
from clarke.kinks.embeddings import held_rows

if TYPE_CHECKING:
    import torch

    from clarke.steering import Program


def free_tangents(program: Program, generator: torch.Generator) -> tuple[torch.Tensor, ...]:
    """A random direction that leaves the rows alone which an embedding's padding_idx holds."""
    found = random_tangents(program, generator)
    rows = held_rows(program.analysis.recorded.ops)
    for slot, part in zip(program.variables, found, strict=True):
        if slot in rows:
            part[rows[slot][0]] = 0.0
    return found
