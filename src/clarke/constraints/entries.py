"""Tell small slopes from rounding errors entry by entry.

A tangent adds up all variables: beside one that moves a value by 1e8, another's 1e-6 drowns, and
whether that is rounding does not show (`clarke.constraints.linearity` finds no rule in it). A
gradient keeps them apart: an entry is rounding only beside the terms of that entry.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from clarke.errors import ReplayError
from clarke.numerics import NULL_OWN
from clarke.steering import Errors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from clarke.steering import Program, Site

    # Values (m,) computed with errors, or without, and the variables that they depend on.
    Values = Callable[[Errors | None], tuple[torch.Tensor, Sequence[torch.Tensor]]]

_MOST = 64  # values that are looked at one by one
_ENTRIES = 10_000  # variables; of more, sums of many terms, it takes seconds and finds rounding
_SIGNS = 8  # terms that cancel do so under all signs once in 2^8 times


def vary_in_an_entry(program: Program, values: Values, suspects: torch.Tensor) -> torch.Tensor:
    """Which of the suspects have a gradient with an entry that is no rounding.

    Args:
        program: For its deadline.
        values: What to differentiate, (m,).
        suspects: (m,) bool; of very many, or of very many variables, none is looked at.
    """
    found = torch.zeros_like(suspects)
    which = suspects.nonzero().flatten().tolist()
    entries = sum(p.numel() for p in program.point)
    if not which or len(which) > _MOST or entries > _ENTRIES:
        return found
    own = list(gradients(program, *values(None), which))
    if not own:
        return found
    sizes = [[g.abs() for g in gradient] for gradient in own]
    for seed in range(_SIGNS):
        try:
            turned = list(gradients(program, *values(Errors(seed, signs=True)), which))
        except ReplayError:
            return found
        for size, gradient in zip(sizes, turned, strict=True):
            for number, g in enumerate(gradient):
                size[number] = torch.maximum(size[number], g.abs())
    for place, gradient, size in zip(which, own, sizes, strict=True):
        found[place] = any(
            bool((g.abs() > NULL_OWN * s).any()) for g, s in zip(gradient, size, strict=True)
        )
    return found


def less_first(site: Site, values: torch.Tensor) -> torch.Tensor:
    """(M,) values of the candidates, less that of the first of the same kink."""
    values = values.to(torch.float64).reshape(-1)
    first = torch.searchsorted(site.touch.owner, torch.arange(site.touch.count))
    return values - values[first][site.touch.owner]


def gradients(
    program: Program,
    values: torch.Tensor,
    leaves: Sequence[torch.Tensor],
    which: Sequence[int],
) -> Iterator[tuple[torch.Tensor, ...]]:
    """The gradients of some of (m,) values, one after the other; none where nothing varies."""
    if not values.requires_grad:
        return
    for done, place in enumerate(which):
        program.deadline.ask("differentiating {} of {} slopes", done, len(which))
        yield torch.autograd.grad(values[place], leaves, retain_graph=True, materialize_grads=True)
