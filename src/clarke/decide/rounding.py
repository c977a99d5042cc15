"""How far rounding alone can move a gradient that was computed in low precision.

A relative tolerance cannot tell: a tensor whose true gradient vanishes (every bias in front of
BatchNorm) holds nothing but rounding noise, and the noise grows with the batch. So the selection's
gradient is computed twice, in float64 and in float32; their difference is the size of the noise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from clarke.decide.tolerance import coarsest_epsilon
from clarke.errors import ReplayError
from clarke.steering import Pieces, Program, selected_gradient

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_MARGIN = 32.0  # another order of summation gives another error of the same size


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
        One number per variable; zeros for programs in float64, where float32 cannot run, and where
        it overflows: what is lost then is no rounding.
    """
    ratio = coarsest_epsilon(program.analysis.trace) / torch.finfo(torch.float32).eps
    nothing = tuple(0.0 for _ in gradient)
    if ratio < 1:
        return nothing
    coarse = Program(program.analysis, program.variables, torch.float32)
    try:
        if _overflows(program, coarse):
            return nothing
        rounded = selected_gradient(coarse, choices, weights=weights)
    except ReplayError:
        return nothing
    return tuple(
        _MARGIN * ratio * float((a.to(torch.float64) - b).abs().max()) if a.numel() else 0.0
        for a, b in zip(rounded, gradient, strict=True)
    )


def _overflows(fine: Program, coarse: Program) -> bool:
    """Whether values are finite in the one type and not in the other."""
    wide, narrow = (p.run(pieces=Pieces.NATURAL, grad=False).tensors for p in (fine, coarse))
    return any(
        bool((torch.isfinite(wide[s]) & ~torch.isfinite(t)).any())
        for s, t in narrow.items()
        if s in wide and t.is_floating_point() and wide[s].shape == t.shape
    )
