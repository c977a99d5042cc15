"""The form of an example."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True)
class Example:
    """A program and the point at which its gradient is judged.

    Attributes:
        name: What to type after `clarke examples`.
        formula: The function, for people.
        function: The program: one argument for each entry of `point`.
        point: Values of the arguments: numbers, or tuples for vectors.
        source: Where the case comes from.
    """

    name: str
    formula: str
    function: Callable[..., torch.Tensor]
    point: tuple[float | tuple[float, ...], ...]
    source: str

    @property
    def explanation(self) -> str:
        """The first paragraph of the program's docstring, as one line."""
        text = inspect.getdoc(self.function) or ""
        return " ".join(text.split("\n\n", maxsplit=1)[0].split())

    def inputs(self) -> tuple[torch.Tensor, ...]:
        """Fresh float64 leaves at the point."""
        return tuple(
            torch.tensor(value, dtype=torch.float64, requires_grad=True) for value in self.point
        )
