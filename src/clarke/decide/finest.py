"""The smallest step beside a point at which its kinks still see that it has moved."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from clarke.capture import input_slots
from clarke.constraints import tangent
from clarke.decide.confirm import USUAL_FINEST
from clarke.decide.tolerance import peak
from clarke.numerics import CONFIRM_FINER, CONFIRM_MOVES
from clarke.tangents import forward_mode
from clarke.torch_private import unpack_dual

if TYPE_CHECKING:
    from collections.abc import Sequence

    from clarke.steering import Program, Run


def finest_step(program: Program, direction: Sequence[torch.Tensor], spacing: float) -> float:
    """The smallest of the finer steps that moves what every touched kink and branch reads.

    At a step so small that rounding loses it on the way to a kink, the kink is as touched as at the
    point, and AD's gradient is its own there whatever it is beside: that would confirm anything.
    What other operations read may stay where it is.

    Args:
        program: The program.
        direction: A ray.
        spacing: Relative spacing of the numbers in which gradients along the ray are computed.
    """
    size = peak(direction)
    if size == 0:
        return USUAL_FINEST
    scale = peak(program.point)
    factor = max(scale, 1.0) / size
    meant = _watched(program, [factor * d for d in direction])
    finest = USUAL_FINEST
    for step in CONFIRM_FINER:
        moves = [(p + step * factor * d) - p for p, d in zip(program.point, direction, strict=True)]
        if not any(bool((m != 0).any()) for m in moves):
            break
        there = _values(program, moves)
        seen = zip(meant, _watched(program, moves), there, strict=True)
        for (value, slope), (_, moved), beside in seen:
            least = CONFIRM_MOVES * spacing * value.abs()
            sees = (moved.abs() > least) & (moved * slope > 0)
            # At the tip of a norm there is no slope, but another value beside it.
            sees |= ~slope.isfinite() & ((beside - value).abs() > least)
            if not bool((sees | (slope == 0)).all()):
                return finest
        finest = step
    return finest


def _watched(
    program: Program, tangents: Sequence[torch.Tensor]
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """What touched kinks and branches in Python read, with its derivatives along tangents."""
    with forward_mode():
        found = _read(program, program.run(tangents=tuple(tangents), grad=False))
        return [(unpack_dual(t)[0].detach(), tangent(t)) for t in found]


def _values(program: Program, moves: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """The same at a point beside."""
    moved = [p + m for p, m in zip(program.point, moves, strict=True)]
    return _read(program, program.run(moved, grad=False))


def _read(program: Program, run: Run) -> list[torch.Tensor]:
    slots = {r.slot for r in program.analysis.trace.scalar_reads}
    for site in program.analysis.sites.values():
        if site.touch.count:
            slots.update(input_slots(site.touch.op))
    found = [run.tensors[s] for s in sorted(slots) if s in run.tensors]
    return [t for t in found if t.is_floating_point()]
