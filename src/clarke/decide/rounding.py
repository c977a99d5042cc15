"""How far rounding alone can move a gradient.

A relative tolerance cannot tell: a tensor whose true gradient vanishes (every bias in front of
BatchNorm) holds nothing but rounding noise, and the noise grows with the batch. So the selection's
gradient is computed twice, in float64 and in float32; their difference is the size of the noise in
float32, and that in any other type is as many times larger or smaller as its spacing of numbers.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from clarke.decide.tolerance import coarsest_epsilon, peak
from clarke.errors import ReplayError
from clarke.steering import Pieces, Program, selected_gradient

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_MARGIN = 32.0  # another order of summation gives another error of the same size
_SAMPLES, _STEP = 4, 2.0**-12


def rounding_noise(
    program: Program,
    gradient: Sequence[torch.Tensor],
    choices: Mapping[int, torch.Tensor] | None = None,
    weights: Mapping[int, torch.Tensor] | None = None,
) -> tuple[float, ...]:
    """For each variable, the largest absolute error that rounding may have left in AD's gradient.

    Args:
        program: The program, replayed in float64.
        gradient: The selection's gradient there.
        choices: The selection; AD's where silent.
        weights: Mixtures in place of choices.

    Returns:
        One number per variable; zeros where float32 cannot run, and where it overflows: what is
        lost then is no rounding.
    """
    ratio = coarsest_epsilon(program.analysis.trace) / torch.finfo(torch.float32).eps
    coarse = Program(program.analysis, program.variables, torch.float32)
    try:
        if _overflows(program, coarse):
            return tuple(0.0 for _ in gradient)
        gaps = _gaps(selected_gradient(coarse, choices, weights=weights), gradient)
        if ratio < 1:
            # A point of round numbers may have no rounding error at all, unlike those around it.
            # In float32 there may be kinks so near that its gradient there is another one.
            for moved in _beside(program.point):
                both = (selected_gradient(p, choices, moved, weights) for p in (coarse, program))
                gaps = [max(pair) for pair in zip(gaps, _gaps(*both), strict=True)]
    except ReplayError:
        return tuple(0.0 for _ in gradient)
    return tuple(_MARGIN * ratio * gap if math.isfinite(gap) else 0.0 for gap in gaps)


def _gaps(left: Sequence[torch.Tensor], right: Sequence[torch.Tensor]) -> list[float]:
    """For each variable, the largest absolute difference of two gradients."""
    return [
        float((a.to(torch.float64) - b).abs().max()) if a.numel() else 0.0
        for a, b in zip(left, right, strict=True)
    ]


def _beside(point: Sequence[torch.Tensor]) -> Iterator[tuple[torch.Tensor, ...]]:
    """Points nearby, of numbers that are not round."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(_SAMPLES):
        yield tuple(
            p
            + (_STEP * (peak((p,)) or 1.0))
            * torch.randn(p.shape, generator=generator, dtype=p.dtype).to(p.device)
            for p in point
        )


def _overflows(fine: Program, coarse: Program) -> bool:
    """Whether values are finite in the one type and not in the other."""
    wide, narrow = (p.run(pieces=Pieces.NATURAL, grad=False).tensors for p in (fine, coarse))
    return any(
        bool((torch.isfinite(wide[s]) & ~torch.isfinite(t)).any())
        for s, t in narrow.items()
        if s in wide and t.is_floating_point() and wide[s].shape == t.shape
    )
