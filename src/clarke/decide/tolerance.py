"""How close two gradients must be to count as equal: relative to scale and to the dtype used."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from clarke.capture import Trace

_ROUNDINGS = 4096  # a deep network's backward pass accumulates thousands of roundings
SHARE = 1e-3  # rounding_noise() is for tensors whose scale is smaller still
REPLAY_SPACING = torch.finfo(torch.float64).eps  # of the numbers in which programs are replayed
SINGLE = 1e-7  # float64 programs: some kernels hold constants in float32


def relative_tolerance(trace: Trace) -> float:
    """Relative error to expect of AD's gradient, from the coarsest dtype in the program."""
    return min(max(_ROUNDINGS * coarsest_epsilon(trace), SINGLE), 0.25)


def coarsest_epsilon(trace: Trace) -> float:
    """The relative spacing of numbers in the coarsest floating point type of a program."""
    kinds = {d for d in trace.slot_dtypes.values() if d.is_floating_point}
    found = (torch.finfo(d).eps for d in kinds)
    return float(max(found, default=torch.finfo(torch.float64).eps))


def relative_difference(
    left: Sequence[torch.Tensor],
    right: Sequence[torch.Tensor],
    floor: float = 0.0,
    noise: Sequence[float] = (),
) -> float:
    """Largest difference of two gradients, each tensor relative to its own largest entry.

    A tensor's own scale counts with at least the part `SHARE` of the whole gradient's. `floor` is
    a further lower bound of the scale. Differences up to `noise`, one number per tensor, count as
    zero. NaN gives infinity.
    """
    whole = max(peak(left), peak(right))
    allowed = noise or [0.0] * len(left)
    worst = 0.0
    for a, b, n in zip(left, right, allowed, strict=True):
        if a.numel() == 0:
            continue
        gap = float((a.detach().to(torch.float64) - b.detach().to(torch.float64)).abs().max())
        scale = max(_peak(a), _peak(b), SHARE * whole, floor)
        if math.isnan(gap):
            return float("inf")
        if gap > n:
            worst = max(worst, gap / scale if scale > 0 else gap)
    return worst


def peak(tensors: Sequence[torch.Tensor]) -> float:
    """The largest absolute entry of a gradient."""
    return max((_peak(t) for t in tensors), default=0.0)


def _peak(tensor: torch.Tensor) -> float:
    return float(tensor.detach().abs().max()) if tensor.numel() else 0.0
