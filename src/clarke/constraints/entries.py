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

_LOOKS = 128  # sums that are looked at to find which values vary
LOOKED_AT = 10_000  # variables; of more, sums of many terms, it takes seconds and finds rounding
_SIGNS = 8  # terms that cancel do so under all signs once in 2^8 times


def vary_in_an_entry(program: Program, values: Values, suspects: torch.Tensor) -> torch.Tensor:
    """Which of the suspects have a gradient with an entry that is no rounding.

    Sums with random factors are looked at, which vanish if all their values do: first of all, then
    of halves of what varies. Where that takes too many, what is left counts as varying.

    Args:
        program: For its deadline.
        values: What to differentiate, (m,).
        suspects: (m,) bool; of very many variables, none is looked at.
    """
    found = torch.zeros_like(suspects)
    which = suspects.nonzero().flatten()
    entries = sum(p.numel() for p in program.point)
    if not which.numel() or entries > LOOKED_AT:
        return found
    own, leaves = values(None)
    if not own.requires_grad:
        return found
    generator = torch.Generator().manual_seed(0)
    factors = torch.rand(own.shape, dtype=own.dtype, generator=generator) + 1
    turned: list[tuple[torch.Tensor, Sequence[torch.Tensor]]] = []

    def turns() -> Iterator[tuple[torch.Tensor, Sequence[torch.Tensor]]]:
        for seed in range(_SIGNS):
            if seed == len(turned):
                turned.append(values(Errors(seed, signs=True)))
            yield turned[seed]

    def varies(part: torch.Tensor) -> bool:
        left = _Left(_summed(program, own, leaves, factors, part))
        try:
            for others, of in turns():
                if not left:
                    return False
                if others.requires_grad:
                    left.without_roundings(_summed(program, others, of, factors, part))
        except ReplayError:
            return True
        return bool(left)

    _halve(which, varies, found)
    return found


def _halve(
    which: torch.Tensor, varies: Callable[[torch.Tensor], bool], found: torch.Tensor
) -> None:
    """Note in `found` what varies, of halves of halves; where that takes too many, all of it."""
    open_, looked = [which], 0
    while open_:
        part = open_.pop()
        if looked == _LOOKS:
            found[part] = True
            continue
        looked += 1
        if varies(part):
            if part.numel() == 1:
                found[part] = True
            else:
                open_.extend(part.tensor_split(2))


class _Left:
    """Entries of a gradient that are not known to be roundings: those that are not zero."""

    def __init__(self, gradient: Sequence[torch.Tensor]) -> None:
        self._gradient = gradient
        self._where = [(g != 0).nonzero(as_tuple=True) for g in gradient]

    def __bool__(self) -> bool:
        return any(at[0].numel() for at in self._where)

    def without_roundings(self, other: Sequence[torch.Tensor]) -> None:
        """Leave out what is nothing beside the same entry under other roundings."""
        for n, (g, o, at) in enumerate(zip(self._gradient, other, self._where, strict=True)):
            large = g[at].abs() > NULL_OWN * o[at].abs()
            self._where[n] = tuple(i[large] for i in at)


def _summed(
    program: Program,
    values: torch.Tensor,
    leaves: Sequence[torch.Tensor],
    factors: torch.Tensor,
    part: torch.Tensor,
) -> tuple[torch.Tensor, ...]:
    """The gradient of the sum of some of the values, each times its factor."""
    program.deadline.ask("looking for small slopes in {} values", part.numel())
    total = (values[part] * factors[part]).sum()
    return torch.autograd.grad(total, leaves, retain_graph=True, materialize_grads=True)


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
