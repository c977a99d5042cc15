"""The conditions under which a jump goes to one side: numbers compared with zero."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from clarke.capture import OpRecord, Ref
from clarke.kinks.lowering import Lowerer, Part
from clarke.numerics import FORK_SAME

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass
class Bit:
    """A condition: its numbers, and the comparison with 0 under which it holds."""

    numbers: Part
    compare: Any
    op: OpRecord
    near: tuple[torch.Tensor, ...]
    holds: dict[bytes, Part] = field(default_factory=dict)


class Plain(Lowerer):
    """Runs what a lowerer would write, and writes nothing."""

    def __init__(self) -> None:
        """A lowerer of no operation."""

    def __call__(self, func: Any, *args: Any, **kwargs: Any) -> Part:
        """Run an operation on parts and constants."""
        plain = [a.value if isinstance(a, Part) else a for a in args]
        return Part(Ref(0), func(*plain, **kwargs))


def at_values(value: Any, values: Mapping[int, torch.Tensor]) -> Any:
    """An argument of a record, with its value elsewhere."""
    return Part(value, values[value.slot].detach()) if isinstance(value, Ref) else value


def _upward(compare: Any) -> bool | None:
    """Whether a comparison with 0 holds above (True) or below; None if on neither side alone."""
    name = str(compare).split(".")[1]
    return {"gt": True, "ge": True, "lt": False, "le": False}.get(name)


def same_condition(one: Bit, two: Bit, places: torch.Tensor | None) -> bool | None:
    """Whether a condition holds where another does (True) or does not; None if they differ."""
    sides = _upward(one.compare), _upward(two.compare)
    if (
        not (one.near and two.near)
        or None in sides
        or any(a.shape != b.shape for a, b in zip(one.near, two.near, strict=True))
    ):
        return None
    pick = slice(None) if places is None else places
    ratios = [
        (a.reshape(-1)[pick] / b.reshape(-1)[pick]) for a, b in zip(one.near, two.near, strict=True)
    ]
    here = two.numbers.value.reshape(-1)[pick]
    known = bool(torch.isfinite(torch.stack(ratios)).all()) and bool((here == 0).all())
    if not known or not torch.allclose(ratios[0], ratios[1], rtol=FORK_SAME, atol=0.0):
        return None
    positive = ratios[0] > 0
    if bool(positive.any() != positive.all()):
        return None
    return bool(positive.all()) == (sides[0] == sides[1])
