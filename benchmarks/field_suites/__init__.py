"""Programs that call public losses and layers of other libraries, as their documentation does."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

RANDOM, ZEROS, EQUAL = "random", "zeros", "equal"


@dataclass(frozen=True)
class Program:
    """A call with the shapes of its variables.

    Attributes:
        name: What is called.
        function: The call.
        shapes: Of the variables.
        low, high: Bounds of the entries of random points; None for normal ones.
        points: Where people start from, beside random points.
    """

    name: str
    function: Callable[..., Any]
    shapes: tuple[tuple[int, ...], ...]
    low: float | None = None
    high: float = 1.0
    points: tuple[str, ...] = (RANDOM, ZEROS, EQUAL)

    def at(self, point: str) -> tuple[torch.Tensor, ...]:
        """The variables at a point."""
        generator = torch.Generator().manual_seed(zlib.crc32(self.name.encode()))
        return tuple(self._filled(s, point, generator).requires_grad_() for s in self.shapes)

    def _filled(
        self, shape: tuple[int, ...], point: str, generator: torch.Generator
    ) -> torch.Tensor:
        if point == ZEROS:
            return torch.zeros(shape, dtype=torch.float64)
        if point == EQUAL:
            return torch.full(shape, 0.5, dtype=torch.float64)
        if self.low is None:
            return torch.randn(shape, generator=generator, dtype=torch.float64)
        random = torch.rand(shape, generator=generator, dtype=torch.float64)
        return self.low + (self.high - self.low) * random


def inside(name: str, function: Callable[..., Any], *shapes: tuple[int, ...]) -> Program:
    """A program on numbers between 0 and 1, or on positive ones: none starts at 0."""
    return Program(name, function, shapes, 0.1, 0.9, (RANDOM, EQUAL))


def anywhere(name: str, function: Callable[..., Any], *shapes: tuple[int, ...]) -> Program:
    """A program on all numbers."""
    return Program(name, function, shapes)
