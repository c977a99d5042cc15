"""Whether values jump, or are steep, where a guard's comparison is tied beside the point.

Rays from the point do not see it: ``(x * x + y * y) * (x > 0)`` comes back to 0 along every one.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch

from clarke.constraints import flatten, random_tangents, unflatten
from clarke.decide.beside import Beside
from clarke.kinks.steps import ComparisonRule
from clarke.numerics import (
    BESIDE_GRID,
    BESIDE_PARTS,
    SURFACE_ROUNDINGS,
)
from clarke.steering import Pieces

if TYPE_CHECKING:
    from collections.abc import Sequence

    from clarke.steering import Program

_SURFACES = 8  # ties whose surface is visited


def jumps_on_surfaces(
    program: Program, generator: torch.Generator, *, equalities: bool = False
) -> str:
    """Where values jump beside the point on the surface on which a guard's comparison is tied.

    ``(x * x + y * y) * (x > 0)`` comes back to 0 along every ray, and jumps by y * y beside it.

    Args:
        program: The program.
        generator: Private randomness.
        equalities: Only where ``==`` and ``!=`` are tied: what holds there holds nowhere beside.
    """
    count = sum(p.numel() for p in program.point)
    if count == 1:
        return ""
    for position, site in program.analysis.sites.items():
        if not isinstance(site.rule, ComparisonRule) or (equalities and not site.rule.isolated):
            continue
        for kink in range(min(site.touch.count, _SURFACES)):
            where = f"{site.touch.op.shown} at {site.touch.op.location}"
            for sign in (1.0, -1.0, 1.0, -1.0):
                on = _on_surface(program, position, kink, sign, generator)
                if on is not None and _parts_at(program, on, generator):
                    return f"Values jump beside the point, where {where} is tied."
                if on is None and not site.rule.isolated:
                    return f"Where {where} is tied beside the point was not found."
    return ""


def _on_surface(
    program: Program, position: int, kink: int, sign: float, generator: torch.Generator
) -> list[torch.Tensor] | None:
    """A point beside the program's own at which a comparison is tied as well."""
    start = [
        p + 0.25 * d
        for p, d in zip(program.point, random_tangents(program, generator), strict=True)
    ]
    slopes = []
    for at in (program.point, start):
        run = program.run(at, probe=True)
        value = run.probes[position].switching.reshape(-1)[kink]
        if not value.requires_grad:
            return None
        grads = torch.autograd.grad(value, run.leaves, materialize_grads=True)
        slopes.append(flatten(tuple(g.detach() for g in grads)))
    direction = sign * np.abs(flatten(random_tangents(program, generator)))
    direction[1::2] *= 1.0 if float(torch.randn((), generator=generator)) > 0 else -1.0
    direction += np.sign(direction)  # far enough for a jump by a square to be seen
    if bool((slopes[0] != 0).any()):
        normal = slopes[0]
        direction = direction - normal * float(direction @ normal) / float(normal @ normal)
    direction = np.where(slopes[1] != 0, direction if slopes[0].any() else 0.0, direction)
    # Few digits, so that sums of them are exact.
    direction = np.round(direction / float(BESIDE_GRID)) * float(BESIDE_GRID)
    if not direction.any():
        return None
    moved = [
        p + 0.25 * d
        for p, d in zip(program.point, unflatten(direction, program.point), strict=True)
    ]
    run = program.run(moved, probe=True, grad=False)
    tied = float(run.probes[position].switching.reshape(-1)[kink]) == 0
    return moved if tied else None


def _parts_at(program: Program, point: Sequence[torch.Tensor], generator: torch.Generator) -> bool:
    """Whether values around another point leave its own by more than a multiple of the distance."""
    beside = Beside(program, generator, pieces=Pieces.NATURAL, deadline=program.deadline)
    here = beside.look(point)
    least = SURFACE_ROUNDINGS * torch.finfo(program.dtype).eps * max(abs(here.value), 1.0)
    for _ in range(2):
        ray = random_tangents(program, generator)
        for sign in (1.0, -1.0):
            rates = []
            for step in BESIDE_PARTS:
                moved = [p + sign * step * d for p, d in zip(point, ray, strict=True)]
                near = beside.look(moved)
                # Beside a quotient of differences values are rounding, the more the nearer.
                own = here.error + near.error
                rounding = max(own, least) if math.isfinite(own) else least
                rates.append((abs(near.value - here.value) - rounding) / step)
            # Not a number is not near either.
            if not rates[1] <= 1.2 * abs(rates[0]) + 2 * rounding / BESIDE_PARTS[0]:
                return True
    return False
