"""Random directions in the space of a program's variables."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from clarke.steering import Program


def random_tangents(program: Program, generator: torch.Generator) -> tuple[torch.Tensor, ...]:
    """A standard normal direction in the space of the program's variables."""

    def one(like: torch.Tensor) -> torch.Tensor:
        program.deadline.ask("drawing a direction")
        return torch.randn(like.shape, dtype=program.dtype, generator=generator)

    return tuple(one(p) for p in program.point)
