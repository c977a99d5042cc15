"""The tensors among the arguments of one operation, and what reading them says together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from clarke.capture.live import TENSOR

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from clarke.capture.live import Slot
    from clarke.capture.trace import Location


def gather_tensors(values: Iterable[Any], into: list[torch.Tensor]) -> None:
    """Append all tensors among some arguments."""
    for value in values:
        if isinstance(value, torch.Tensor):
            into.append(value)
        elif isinstance(value, (list, tuple)):
            if not is_of_numbers(value):
                gather_tensors(value, into)
        elif isinstance(value, dict):
            gather_tensors(value.values(), into)


def tensors_among(args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[torch.Tensor]:
    """All tensors among some arguments, in order."""
    found: list[torch.Tensor] = []
    gather_tensors(args, found)
    gather_tensors(kwargs.values(), found)
    return found


def is_of_numbers(values: list[Any] | tuple[Any, ...]) -> bool:
    """Whether a list of an operator's arguments holds numbers, as a size or a stride does."""
    # Schemas have no lists of numbers and tensors together.
    return not values or type(values[0]) is int


class Arguments:
    """What one operation reads: its slots, and what they say together."""

    __slots__ = ("_location", "_read", "inputs", "varied")

    def __init__(self, read: Callable[[torch.Tensor, Location], Slot], location: Location) -> None:
        self._read = read
        self._location = location
        self.inputs: list[Slot] = []
        self.varied = False

    def pattern(self, value: Any) -> Any:
        """The value with `TENSOR` in the place of tensors."""
        if isinstance(value, torch.Tensor):
            slot = self._read(value, self._location)
            self.inputs.append(slot)
            if value.requires_grad or slot.virtual:
                self.varied = True
            return TENSOR
        if isinstance(value, (list, tuple)) and not is_of_numbers(value):
            return type(value)([self.pattern(v) for v in value])
        return value
