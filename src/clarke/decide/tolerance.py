"""How close two gradients must be to count as equal: relative to scale and to the dtype used."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from clarke.capture import Trace

_ROUNDINGS = 4096  # a deep network's backward pass accumulates thousands of roundings
# A tensor whose true gradient vanishes (a bias before BatchNorm) holds rounding noise only, which
# sums over the batch: 5e-7 of the whole gradient's peak was seen in float32, 1e-5 is allowed.
SHARE = 2e-2
_FLOOR = 1e-7  # float64 programs: some kernels hold constants in float32


def relative_tolerance(trace: Trace) -> float:
    """Relative error to expect of AD's gradient, from the coarsest dtype in the program."""
    kinds = {d for d in trace.slot_dtypes.values() if d.is_floating_point}
    eps = max((torch.finfo(d).eps for d in kinds), default=torch.finfo(torch.float64).eps)
    return float(min(max(_ROUNDINGS * eps, _FLOOR), 0.25))


def relative_difference(
    left: Sequence[torch.Tensor], right: Sequence[torch.Tensor], floor: float = 0.0
) -> float:
    """Largest difference of two gradients, each tensor relative to its own largest entry.

    A tensor's own scale counts with at least the part `SHARE` of the whole gradient's, since rounding
    leaves noise of that order in tensors whose true gradient vanishes. `floor` is a further lower
    bound of the scale. NaN gives infinity.
    """
    whole = max(peak(left), peak(right))
    worst = 0.0
    for a, b in zip(left, right, strict=True):
        if a.numel() == 0:
            continue
        gap = float((a.detach().to(torch.float64) - b.detach().to(torch.float64)).abs().max())
        scale = max(_peak(a), _peak(b), SHARE * whole, floor)
        if gap != gap:
            return float("inf")
        worst = max(worst, gap / scale if scale > 0 else gap)
    return worst


def peak(tensors: Sequence[torch.Tensor]) -> float:
    """The largest absolute entry of a gradient."""
    return max((_peak(t) for t in tensors), default=0.0)


def _peak(tensor: torch.Tensor) -> float:
    return float(tensor.detach().abs().max()) if tensor.numel() else 0.0
