"""A tensor in several versions, one for each outcome of some conditions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from clarke.kinks.lowering import Part
from clarke.numerics import FORK_NOISE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from clarke.capture import OpRecord


@dataclass(frozen=True, eq=False)
class Fork:
    """A tensor in several versions.

    Attributes:
        bits: Numbers of the conditions on which it depends.
        parts: Its version for each outcome of these.
        lineage: For conditions with one number for each element, by bit: for every element of the
            tensor 1 + the element of these numbers that decides it, or 0.
    """

    bits: tuple[int, ...]
    parts: Mapping[tuple[bool, ...], Part]
    lineage: Mapping[int, torch.Tensor]


def without(outcome: tuple[bool, ...], place: int) -> tuple[bool, ...]:
    """The outcome in which the condition at a place does not hold."""
    return (*outcome[:place], False, *outcome[place + 1 :])


def noise_of(
    op: OpRecord, args: Sequence[Any], kwargs: Mapping[str, Any], found: Sequence[Part]
) -> float:
    """How far roundings of what an operation reads move its results."""
    sign = 1.0

    def rounded(value: Any) -> Any:
        nonlocal sign
        if isinstance(value, Part):
            if not value.value.is_floating_point():
                return value.value
            sign = -sign
            return value.value * (1.0 + sign * FORK_NOISE)
        if isinstance(value, (list, tuple)):
            return type(value)(rounded(v) for v in value)
        return value

    out = op.func(*[rounded(a) for a in args], **kwargs)
    moved = out if isinstance(out, (list, tuple)) else (out,)
    gaps = [
        (m - f.value).abs().max() + FORK_NOISE * f.value.abs().max()
        for m, f in zip(moved, found, strict=True)
        if f.value.is_floating_point() and f.value.numel() and m.shape == f.value.shape
    ]
    return float(torch.nan_to_num(torch.stack(gaps)).max()) if gaps else 0.0


def agree(a: Part, b: Part, noise: float) -> bool:
    """Whether two versions have the same value."""
    if a.ref == b.ref:
        return True
    if a.value.shape != b.value.shape or a.value.dtype != b.value.dtype:
        return False
    if not a.value.is_floating_point():
        return torch.equal(a.value, b.value)
    if a.value.numel() == 0:
        return True
    return bool((a.value - b.value).abs().max() <= noise)
