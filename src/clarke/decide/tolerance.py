"""How close two gradients are: entry by entry, each against what rounding can do to it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from clarke.numerics import NOISE_BESIDE, RAY_LIMIT, UNIT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from clarke.capture import Trace


REPLAY_SPACING = 2 * UNIT  # of the numbers in which programs are replayed


def coarsest_epsilon(trace: Trace) -> float:
    """The relative spacing of numbers in the coarsest floating point type of a program."""
    kinds = {d for d in trace.slot_dtypes.values() if d.is_floating_point}
    found = (torch.finfo(d).eps for d in kinds)
    return float(max(found, default=torch.finfo(torch.float64).eps))


def relative_difference(
    left: Sequence[torch.Tensor],
    right: Sequence[torch.Tensor],
    sizes: Sequence[torch.Tensor] = (),
    bounds: Sequence[torch.Tensor] = (),
) -> float:
    """Largest difference of two gradients in any entry, relative to that entry.

    An entry counts with at least the size in `sizes`, and as equal up to what `bounds` grant it.
    NaN gives infinity.
    """
    worst = 0.0
    for number, (a, b) in enumerate(zip(left, right, strict=True)):
        if a.numel() == 0:
            continue
        one, two = a.detach().to(torch.float64), b.detach().to(torch.float64)
        size = torch.maximum(one.abs(), two.abs())
        if sizes:
            size = torch.maximum(size, sizes[number])
        gap = (one - two).abs()
        if bounds:
            gap = torch.where(gap <= bounds[number], torch.zeros_like(gap), gap)
        found = torch.where(gap > 0, gap / size, gap)
        worst = max(worst, float(torch.where(torch.isnan(found), torch.inf, found).max()))
    return worst


def peak(tensors: Sequence[torch.Tensor]) -> float:
    """The largest absolute entry of a gradient."""
    return max((float(t.detach().abs().max()) for t in tensors if t.numel()), default=0.0)


def of_tensors(tensors: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    """For every entry the largest of its tensor: sizes for what may nearly vanish."""
    return tuple(torch.full_like(t, peak((t,)), dtype=torch.float64) for t in tensors)


def larger(left: Sequence[torch.Tensor], right: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    """The larger of two bounds, entry by entry."""
    return tuple(torch.maximum(a, b) for a, b in zip(left, right, strict=True))


def added(left: Sequence[torch.Tensor], right: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    """The sum of two bounds, entry by entry."""
    return tuple(a + b for a, b in zip(left, right, strict=True))


def within(
    left: Sequence[torch.Tensor], right: Sequence[torch.Tensor], bounds: Sequence[torch.Tensor]
) -> bool:
    """Whether two gradients differ by no more than `bounds`, in every entry."""
    return all(
        bool(((a.detach().to(torch.float64) - b.detach().to(torch.float64)).abs() <= r).all())
        for a, b, r in zip(left, right, bounds, strict=True)
    )


def ray_bounds(sizes: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    """What an extrapolation along a ray leaves open of entries of these sizes.

    Entries that are roundings of the largest one are taken for zero there.
    """
    lost = NOISE_BESIDE * peak(sizes)
    return tuple(RAY_LIMIT * s + lost for s in sizes)
