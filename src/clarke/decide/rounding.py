"""How far rounding alone can move a gradient.

A relative tolerance cannot tell: a tensor whose true gradient vanishes (every bias in front of
BatchNorm) holds nothing but rounding noise, and the noise grows with the batch. So the selection's
gradient is computed twice, in float64 and in float32; their difference is the size of the noise in
float32, and that in any other type is as many times larger or smaller as its spacing of numbers.

In a type finer than float32 that is a guess: what float32 cannot represent at all says nothing
about roundings there. So it counts only up to some roundings of the largest adjoint times the
largest value of the program, which no term of a gradient exceeds by much.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from clarke.deadline import rung
from clarke.decide.disagree import adjoints
from clarke.decide.tolerance import coarsest_epsilon, peak
from clarke.errors import ReplayError
from clarke.steering import Pieces, Program, selected_gradient

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_MARGIN = 32.0  # another order of summation gives another error of the same size
_SAMPLES, _STEP, _NEAR = 4, 2.0**-12, 1e-2


@rung("bounding roundings")
def rounding_noise(
    program: Program,
    gradient: Sequence[torch.Tensor],
    choices: Mapping[int, torch.Tensor] | None = None,
    weights: Mapping[int, torch.Tensor] | None = None,
    *,
    epsilon: float | None = None,
) -> tuple[float, ...]:
    """For each variable, the largest absolute error that rounding may have left in a gradient.

    Args:
        program: The program, replayed in float64.
        gradient: The selection's gradient there.
        choices: The selection; AD's where silent.
        weights: Mixtures in place of choices.
        epsilon: Spacing of the numbers in which the gradient was computed; by default that of the
            coarsest type in the program, as for AD's own gradient.

    Returns:
        One number per variable; zeros where float32 cannot run, and where it overflows: what is
        lost then is no rounding.
    """
    spacing = coarsest_epsilon(program.analysis.trace) if epsilon is None else epsilon
    ratio = spacing / torch.finfo(torch.float32).eps
    here = program.point
    try:
        coarse = Program(program.analysis, program.variables, torch.float32, program.deadline)
        if _overflows(program, coarse):
            return tuple(0.0 for _ in gradient)
        gaps = _gaps(selected_gradient(coarse, choices, here, weights), gradient)
        most = math.inf
        if ratio < 1:
            most = spacing * _largest_term(program, choices, weights)
            # A point of round numbers may have no rounding error at all, unlike those around it.
            # In float32 there may be kinks so near that its gradient there is another one.
            for moved in _beside(here):
                there = selected_gradient(program, choices, moved, weights)
                own = _gaps(selected_gradient(coarse, choices, moved, weights), there)
                near = [
                    change <= max(gap, _NEAR * peak(gradient))
                    for change, gap in zip(_gaps(there, gradient), own, strict=True)
                ]
                gaps = [
                    max(a, b) if fits else a for a, b, fits in zip(gaps, own, near, strict=True)
                ]
    except ReplayError:
        return tuple(0.0 for _ in gradient)
    return tuple(_MARGIN * min(ratio * gap, most) for gap in gaps)


def _gaps(left: Sequence[torch.Tensor], right: Sequence[torch.Tensor]) -> list[float]:
    """For each variable, the largest absolute difference of two gradients; 0 if not finite."""
    found = [
        float((a.to(torch.float64) - b).abs().max()) if a.numel() else 0.0
        for a, b in zip(left, right, strict=True)
    ]
    return [gap if math.isfinite(gap) else 0.0 for gap in found]


def _largest_term(
    program: Program,
    choices: Mapping[int, torch.Tensor] | None,
    weights: Mapping[int, torch.Tensor] | None,
) -> float:
    """The largest derivative by a value of the program times the largest value, 1 at least."""
    run = program.run(choices=choices, weights=weights)
    values = [t for t in run.tensors.values() if t.is_floating_point()]
    found = max(1.0, peak(tuple(adjoints(run).values()))) * max(1.0, peak(values))
    return found if math.isfinite(found) else 0.0


def _beside(point: Sequence[torch.Tensor]) -> Iterator[tuple[torch.Tensor, ...]]:
    """Points nearby, of numbers that are not round."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(_SAMPLES):
        yield tuple(
            p
            + _STEP
            * torch.where(p == 0, peak((p,)) or 1.0, p.abs())
            * torch.randn(p.shape, generator=generator, dtype=p.dtype).to(p.device)
            for p in point
        )


def _overflows(fine: Program, coarse: Program) -> bool:
    """Whether values are finite in the one type and not in the other."""
    wide, narrow = (
        p.run(fine.point, pieces=Pieces.NATURAL, grad=False).tensors for p in (fine, coarse)
    )
    return any(
        bool((torch.isfinite(wide[s]) & ~torch.isfinite(t)).any())
        for s, t in narrow.items()
        if s in wide and t.is_floating_point() and wide[s].shape == t.shape
    )
