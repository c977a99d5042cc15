"""Kinks that matter although tangents and usual sizes do not show it, beside far larger numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from clarke.constraints.entries import less_first, vary_in_an_entry
from clarke.constraints.linearity import really_vary
from clarke.constraints.noise import noise_of
from clarke.numerics import NULL_OWN
from clarke.tangents import forward_mode
from clarke.torch_private import unpack_dual

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from clarke.steering import Errors, Program, Run
    from clarke.steering.uses import MaskUse

_LARGEST = torch.finfo(torch.float64).max


def tangent(value: torch.Tensor) -> torch.Tensor:
    """The forward-mode tangent of a value, zeros if it has none."""
    found = unpack_dual(value)[1]
    return torch.zeros_like(value) if found is None else found.detach()


def drowned(
    program: Program,
    choices: Mapping[int, torch.Tensor],
    weights: Mapping[int, torch.Tensor],
    null: torch.Tensor,
    suspects: torch.Tensor,
    generator: torch.Generator,
) -> torch.Tensor:
    """(count,) of the kinks that seem null, those with candidates whose slopes really differ.

    Differences that may be rounding are looked at, and those that tangents do not show at all:
    beside what all candidates share in a variable of large units, another's drown.
    """
    sites = [
        s for s in program.analysis.ordered() if bool(null[s.first : s.first + s.touch.count].any())
    ]

    def gaps(run: Run) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        found = [less_first(s, run.probes[s.position].candidates) for s in sites]
        owners = [s.first + s.touch.owner for s in sites]
        for use in run.mask_uses:
            if use.difference is not None:
                found.append(use.difference.to(torch.float64))
                owners.append(use.kink)
        return found, owners

    def along(direction: Sequence[torch.Tensor]) -> torch.Tensor:
        with forward_mode():
            run = program.run(
                choices=choices, weights=weights, tangents=direction, probe=True, grad=False
            )
            return torch.cat([tangent(g) for g in gaps(run)[0]])

    def values(errors: Errors | None) -> tuple[torch.Tensor, Sequence[torch.Tensor]]:
        run = program.run(choices=choices, weights=weights, probe=True, errors=errors)
        return torch.cat(gaps(run)[0]), run.leaves

    own = program.run(choices=choices, weights=weights, probe=True, grad=False)
    owner = torch.cat(gaps(own)[1])
    varying = torch.zeros_like(null[owner])
    if bool((suspects & null).any()):
        varying = really_vary(program, along, (suspects & null)[owner], generator)
    varying |= vary_in_an_entry(program, values, null[owner] & ~varying)
    found = torch.zeros_like(null)
    found[owner[varying]] = True
    return found


def small_jumps(
    program: Program,
    choices: Mapping[int, torch.Tensor],
    weights: Mapping[int, torch.Tensor],
    uses: Sequence[MaskUse],
    open_: torch.Tensor,
) -> torch.Tensor:
    """(count,) of some kinks, comparisons whose sides differ by no rounding of these values.

    What other elements are, or what the result is beside the point, says nothing about a jump: that
    of ``1e17 * x + sign(y)`` at zero is 2.
    """
    found = torch.zeros_like(open_)
    gaps = {
        n: unpack_dual(u.difference)[0].detach()
        for n, u in enumerate(uses)
        if u.difference is not None
    }
    left = {}
    for number, gap in gaps.items():
        use = uses[number]
        left[number] = (gap.abs() > NULL_OWN * _local(use)) & open_[use.kink]
    if not any(bool(part.any()) for part in left.values()):
        return found

    def again(errors: Errors) -> dict[int, torch.Tensor]:
        run = program.run(choices=choices, weights=weights, probe=True, errors=errors, grad=False)
        beside = {n: run.mask_uses[n].difference for n in gaps}
        # What is no number under errors tells of no jump: it counts as rounding, however large.
        return {
            n: gaps[n] if b is None else b.nan_to_num(_LARGEST, _LARGEST) for n, b in beside.items()
        }

    noise = noise_of(program, gaps, again, "telling jumps from rounding")
    if noise is None:
        return found
    for number, gap in gaps.items():
        found[uses[number].kink[left[number] & (gap.abs() > noise[number])]] = True
    return found


def _local(use: MaskUse) -> torch.Tensor | float:
    """The largest of the values that each element may have, for each difference."""
    if use.table is None or use.affected is None or use.elements is None:
        return use.scale
    sizes = unpack_dual(use.table)[0].detach().abs().amax(0)
    return sizes[torch.searchsorted(use.affected, use.elements)]
