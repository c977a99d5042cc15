"""Random points around a program's own, at which what it computes is compared with what it says."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from clarke.constraints.directions import random_tangents
from clarke.numerics import PARTS_ALL, PARTS_ALONE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from clarke.steering import Program

_RADIUS = 0.25
_MOVED = 0.5


def nearby_point(program: Program, generator: torch.Generator) -> tuple[torch.Tensor, ...]:
    """A random point around the program's own, at a distance of its own order."""
    direction = random_tangents(program, generator)
    return tuple(
        p + _RADIUS * d * (1.0 + p.abs()) for p, d in zip(program.point, direction, strict=True)
    )


def nearby_points(
    program: Program, generator: torch.Generator, whole: int, halves: int
) -> Iterator[tuple[torch.Tensor, ...]]:
    """Random points around the program's own, some of which keep some of its coordinates.

    A term that is small beside others shows where these stay zero: of ``1e6 * x - 1e-10 * y**2``
    the second is lost unless x stays. Random halves leave that to chance, so that of few
    coordinates every part moves, of more each one alone, and all but each; of many the same of
    whole variables.

    Args:
        program: The program.
        generator: Private randomness.
        whole: How many points move all coordinates.
        halves: How many more move a random half of them.
    """
    for _ in range(whole):
        yield nearby_point(program, generator)
    size = sum(p.numel() for p in program.point)
    for moves in _parts(program.point):
        yield _moved(program, generator, moves)
    for _ in range(halves):
        yield _moved(program, generator, torch.rand(size, generator=generator) < _MOVED)


def _parts(point: Sequence[torch.Tensor]) -> Iterator[torch.Tensor]:
    """(size,) bool: which coordinates move."""
    sizes = torch.tensor([p.numel() for p in point])
    size = int(sizes.sum())
    if size <= int(PARTS_ALL):
        for number in range(1, 2**size - 1):
            yield torch.tensor([bool(number >> i & 1) for i in range(size)])
        return
    parts = torch.arange(size)
    if size > int(PARTS_ALONE):
        parts = torch.repeat_interleave(torch.arange(len(point)), sizes)
    for part in range(min(int(parts.max()) + 1, int(PARTS_ALONE)) if len(parts) else 0):
        alone = parts == part
        if not bool(alone.all()):
            yield alone
            yield ~alone


def _moved(
    program: Program, generator: torch.Generator, moves: torch.Tensor
) -> tuple[torch.Tensor, ...]:
    own = moves.split([p.numel() for p in program.point])
    return tuple(
        torch.where(m.reshape(p.shape), there, p)
        for m, p, there in zip(own, program.point, nearby_point(program, generator), strict=True)
    )
