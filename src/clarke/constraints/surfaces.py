"""Whether the two sides of a tied comparison agree all along the surface of the tie.

``(x + y * y) * (x > 0)`` is continuous at the origin and agrees with zero to first order, but jumps
by ``y * y`` where x = 0 beside it. Both sides and the compared difference are analytic, so one
random point of the surface tells: an analytic difference that is not identically zero there is zero
at it with probability zero.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from clarke.kinks.steps import ComparisonRule

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from clarke.steering import Program, Run

_MOST = 16  # comparisons looked at; their surfaces are visited one by one
_NEWTON = 6
_ON = 1e-12
_APART = 1e-7


def jumps_beside(
    program: Program,
    weights: Mapping[int, torch.Tensor],
    start: Sequence[torch.Tensor],
    skip: torch.Tensor,
) -> torch.Tensor:
    """(count,) comparisons whose sides differ somewhere on the surface of their tie.

    Args:
        program: The program.
        weights: Mixtures of the other kinks, by site position.
        start: A random point near the program's own, from which the surface is approached.
        skip: (count,) kinks that need no look.
    """
    found = torch.zeros(program.analysis.count, dtype=torch.bool)
    looked = 0
    for position, site in program.analysis.sites.items():
        if not isinstance(site.rule, ComparisonRule):
            continue
        for i in range(site.touch.count):
            if bool(skip[site.first + i]) or looked >= _MOST:
                continue
            looked += 1
            run = _run_on_surface(program, weights, start, position, i)
            if run is not None and _sides_differ(run, site.first + i):
                found[site.first + i] = True
    return found


def _run_on_surface(
    program: Program,
    weights: Mapping[int, torch.Tensor],
    start: Sequence[torch.Tensor],
    position: int,
    kink: int,
) -> Run | None:
    """A replay at a point where one compared difference vanishes, by Newton's method."""
    point = list(start)
    for _ in range(_NEWTON):
        run = program.run(point, weights=weights, probe=True)
        value = run.probes[position].switching.reshape(-1)[kink]
        if not value.requires_grad or not bool(torch.isfinite(value)):
            return None
        grads = torch.autograd.grad(value, run.leaves, retain_graph=True, materialize_grads=True)
        size = sum(float((g * g).sum()) for g in grads)
        if abs(float(value.detach())) <= _ON:
            return run
        if size == 0:
            return None
        step = float(value.detach()) / size
        point = [p - step * g for p, g in zip(point, grads, strict=True)]
    return None


def _sides_differ(run: Run, kink: int) -> bool:
    for use in run.mask_uses:
        if use.difference is None:
            continue
        own = use.difference.detach()[use.kink == kink]
        if bool((own.abs() > _APART * max(use.scale, 1e-5)).any()):
            return True
    return False
