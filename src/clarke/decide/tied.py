"""What half precision makes of a program: ties by rounding alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from clarke.numerics import ROUNDED_TIE
from clarke.steering import Pieces

if TYPE_CHECKING:
    from collections.abc import Sequence

    from clarke.capture import Trace
    from clarke.steering import Program

_NARROW = (torch.float16, torch.bfloat16)


def is_narrow(trace: Trace) -> bool:
    """Whether some of a program runs in half precision."""
    return any(d in _NARROW for d in trace.slot_dtypes.values())


def rounded_ties(program: Program) -> torch.Tensor:
    """(count,) bool: touched kinks whose candidates part when the program runs in float64."""
    found = torch.zeros(program.analysis.count, dtype=torch.bool)
    run = program.run(pieces=Pieces.NATURAL, probe=True, grad=False)
    for position, probe in run.probes.items():
        site = program.analysis.sites[position]
        touch, values = site.touch, probe.candidates.detach()
        if not values.is_floating_point() or not values.numel():
            continue
        low = torch.full((touch.count,), torch.inf, dtype=values.dtype)
        high = -low
        low = low.scatter_reduce(0, touch.owner, values, "amin")
        high = high.scatter_reduce(0, touch.owner, values, "amax")
        size = max((float(a.abs().max()) for a in _numbers(probe.call.args)), default=0.0)
        found[site.first : site.first + touch.count] = (high - low) > ROUNDED_TIE * size
    return found


def largest_candidates(program: Program) -> torch.Tensor:
    """(count,) the largest size of each touched kink's candidates in float64."""
    found = torch.zeros(program.analysis.count, dtype=torch.float64)
    run = program.run(pieces=Pieces.NATURAL, probe=True, grad=False)
    for position, probe in run.probes.items():
        site = program.analysis.sites[position]
        own = torch.zeros(site.touch.count, dtype=torch.float64)
        values = probe.candidates.detach().abs().to(torch.float64)
        found[site.first : site.first + site.touch.count] = own.scatter_reduce(
            0, site.touch.owner, values, "amax"
        )
    return found


def _numbers(args: Sequence[Any]) -> list[torch.Tensor]:
    tensors = [a for a in args if isinstance(a, torch.Tensor)]
    return [t for t in tensors if t.is_floating_point() and t.numel()]
