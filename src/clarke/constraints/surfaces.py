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
from clarke.numerics import ON_SURFACE, SIDES_APART, SIDES_LEFT

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from clarke.steering import Program, Run
    from clarke.steering.uses import MaskUse

_MOST = 16  # comparisons looked at; their surfaces are visited one by one
_NEWTON = 6
_SLACK = 100.0


def jumps_beside(
    program: Program,
    weights: Mapping[int, torch.Tensor],
    start: Sequence[torch.Tensor],
    skip: torch.Tensor,
    sizes: Sequence[float],
) -> torch.Tensor:
    """(count,) comparisons whose sides differ somewhere on the surface of their tie.

    Args:
        program: The program.
        weights: Mixtures of the other kinks, by site position.
        start: A random point near the program's own, from which the surface is approached.
        skip: (count,) kinks that need no look.
        sizes: The usual size of what masks pick from, use by use: a difference far below it may be
            what Newton's method has left.
    """
    found = torch.zeros(program.analysis.count, dtype=torch.bool)
    sites = program.analysis.sites
    # One of each operation first: elements of one operation are mostly alike.
    ties: list[tuple[int, int, int]] = []
    for position, site in sites.items():
        if isinstance(site.rule, ComparisonRule):
            left = (~skip[site.first : site.first + site.touch.count]).nonzero().squeeze(1)
            ties += [(n, position, i) for n, i in enumerate(left[:_MOST].tolist())]
    for _, position, i in sorted(ties)[:_MOST]:
        kink = sites[position].first + i
        found_there = _run_on_surface(program, weights, start, position, i)
        if found_there is not None and _sides_differ(*found_there, kink, sizes):
            found[kink] = True
    return found


def _run_on_surface(
    program: Program,
    weights: Mapping[int, torch.Tensor],
    start: Sequence[torch.Tensor],
    position: int,
    kink: int,
) -> tuple[Run, float] | None:
    """A replay at a point where one compared difference vanishes, by Newton's method.

    With it, what is left of the difference, relative to that at the start.
    """
    point, first = list(start), 0.0
    for _ in range(_NEWTON):
        run = program.run(point, weights=weights, probe=True)
        value = run.probes[position].switching.reshape(-1)[kink]
        if not value.requires_grad or not bool(torch.isfinite(value)):
            return None
        grads = torch.autograd.grad(value, run.leaves, retain_graph=True, materialize_grads=True)
        size = sum(float((g * g).sum()) for g in grads)
        first = first or abs(float(value.detach()))
        if abs(float(value.detach())) <= ON_SURFACE:
            return run, abs(float(value.detach())) / first if first > 0 else 0.0
        if size == 0:
            return None
        step = float(value.detach()) / size
        point = [p - step * g for p, g in zip(point, grads, strict=True)]
    return None


def _sides_differ(run: Run, left: float, kink: int, sizes: Sequence[float]) -> bool:
    for use, size in zip(run.mask_uses, sizes, strict=True):
        if use.difference is None:
            continue
        own = use.difference.detach()[use.kink == kink]
        scale = _scale_of(use, kink)
        # What grows with the compared difference is as small as Newton's method has left that.
        if bool(
            (
                own.abs() > max(SIDES_APART * max(scale, SIDES_LEFT * size), _SLACK * left * size)
            ).any()
        ):
            return True
    return False


def _scale_of(use: MaskUse, kink: int) -> float:
    """The largest value between which a kink decides; other elements may be far larger."""
    if use.table is None or use.labels is None:
        return use.scale
    own = use.table.detach()[:, (use.labels == kink + 1).any(0)]
    return float(own.abs().max()) if own.numel() else use.scale
