"""How far roundings move values of a replay: found by making random errors."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import torch

from clarke.capture import all_finite
from clarke.errors import ReplayError
from clarke.numerics import ERROR_SIZES, ROUNDING_MARGIN, SAMPLES
from clarke.steering import Errors

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from clarke.steering import Program

K = TypeVar("K")


def noise_of(
    program: Program,
    values: Mapping[K, torch.Tensor],
    again: Callable[[Errors], Mapping[K, torch.Tensor]],
    doing: str = "telling values from rounding",
) -> dict[K, torch.Tensor] | None:
    """How far roundings in float64 may move some values, by making random errors.

    None where these lead out of a function's domain.

    Args:
        program: For its deadline.
        values: The values, by whatever name.
        again: The same, computed with errors.
        doing: As it completes "Time ran out while ...".
    """
    noise = {key: torch.zeros_like(own) for key, own in values.items()}
    for seed in range(int(SAMPLES)):
        program.deadline.ask(doing)
        for size in ERROR_SIZES:
            try:
                other = again(Errors(seed, size, double=True))
            except ReplayError:
                continue
            if all_finite(list(other.values())):
                break
        else:
            return None
        factor = float(ROUNDING_MARGIN) / size
        for key, own in values.items():
            noise[key] = torch.maximum(noise[key], factor * (other[key] - own).abs())
    return noise
