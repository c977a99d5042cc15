"""The linear conditions on a direction: gradients of the switching functions of relevant kinks."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
import torch

from clarke.constraints.directions import random_tangents
from clarke.constraints.drowned import tangent
from clarke.constraints.entries import vary_in_an_entry
from clarke.constraints.linearity import really_vary
from clarke.constraints.relevance import is_choice, negligible
from clarke.tangents import forward_mode

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from clarke.steering import Errors, Program, Run


@dataclass(frozen=True, eq=False)
class RowOperator:
    """Rows as an operator: never a dense rows x variables array unless asked for.

    Attributes:
        program: The program.
        choices: The selection under which the rows hold, by site position.
        kinks: (m,) the kink to which each row belongs.
    """

    program: Program
    choices: Mapping[int, torch.Tensor]
    relevant: torch.Tensor
    kinks: torch.Tensor
    _values: torch.Tensor
    _leaves: tuple[torch.Tensor, ...]
    _kept: torch.Tensor
    _orders: Mapping[int, torch.Tensor]

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, variables)."""
        return int(self._values.numel()), sum(p.numel() for p in self.program.point)

    def transposed_times(self, y: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """``A^T y`` as one tensor per variable: one backward pass."""
        if not self._values.requires_grad:
            return tuple(torch.zeros_like(p) for p in self.program.point)
        # Of a sum: given adjoints to start with, autograd loads sympy to compare their shapes.
        weighted = (self._values * y).sum()
        grads = torch.autograd.grad(
            weighted, self._leaves, retain_graph=True, materialize_grads=True
        )
        return tuple(g.detach() for g in grads)

    def times(self, direction: Sequence[torch.Tensor]) -> torch.Tensor:
        """``A d``: one forward-mode pass, whatever the number of rows."""
        with forward_mode():
            run = self.program.run(
                choices=self.choices, tangents=tuple(direction), probe=True, grad=False
            )
            values, _ = self._signed(run)
            return tangent(values)[self._kept]

    def _signed(self, run: Run) -> tuple[torch.Tensor, torch.Tensor]:
        return _signed_rows(self.program, run, self.choices, self.relevant, self._orders)

    def times_bounded(self, direction: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """``A d``, and for every entry how much of it may be rounding."""
        rounding = torch.zeros(self.program.analysis.count, dtype=torch.float64)
        with forward_mode():
            run = self.program.run(
                choices=self.choices, tangents=tuple(direction), probe=True, grad=False
            )
            values, kinks = self._signed(run)
            for position, probe in run.probes.items():
                site = self.program.analysis.sites[position]
                own = slice(site.first, site.first + site.touch.count)
                rounding[own] = negligible(site, probe)
            return tangent(values)[self._kept], rounding[kinks][self._kept]

    def row(self, number: int) -> NDArray[np.float64]:
        """(n,) one row."""
        y = torch.zeros(self.shape[0], dtype=self.program.dtype)
        y[number] = 1.0
        return flatten(self.transposed_times(y))

    def dense(self) -> NDArray[np.float64]:
        """The rows as an (m, n) array, for small systems."""
        rows = np.zeros(self.shape)
        for i in range(len(rows)):
            self.program.deadline.ask("differentiating row {} of {}", i + 1, len(rows))
            rows[i] = self.row(i)
        return rows


def flatten(parts: Sequence[torch.Tensor]) -> NDArray[np.float64]:
    """One float64 vector from one tensor per variable."""
    if not parts:
        return np.zeros(0)
    return torch.cat([p.detach().reshape(-1).to(torch.float64) for p in parts]).cpu().numpy()


def unflatten(
    vector: NDArray[np.float64], like: Sequence[torch.Tensor]
) -> tuple[torch.Tensor, ...]:
    """The inverse of `flatten`, in the shapes of `like`."""
    whole = torch.from_numpy(np.ascontiguousarray(vector))
    parts, at = [], 0
    for p in like:
        parts.append(whole[at : at + p.numel()].reshape(p.shape).to(p.dtype))
        at += p.numel()
    return tuple(parts)


def build_rows(
    program: Program,
    choices: Mapping[int, torch.Tensor],
    relevant: torch.Tensor,
    direction: Sequence[torch.Tensor] = (),
) -> RowOperator:
    """The rows of the relevant kinks under a selection (AD's where `choices` is silent).

    That an element is in the middle of others says not which of these are greater: with a direction
    it is those that are along it.
    """
    run = program.run(choices=choices, probe=True)
    orders = _orders_along(program, choices, relevant, direction)
    values, kinks = _signed_rows(program, run, choices, relevant, orders)
    kept = torch.ones(kinks.numel(), dtype=torch.bool)
    if _has_wide_ties(program, relevant):
        kept = ~_equivalent(program, choices, relevant)
        values, kinks = values[kept], kinks[kept]
    return RowOperator(program, choices, relevant, kinks, values, run.leaves, kept, orders)


def _orders_along(
    program: Program,
    choices: Mapping[int, torch.Tensor],
    relevant: torch.Tensor,
    direction: Sequence[torch.Tensor],
) -> dict[int, torch.Tensor]:
    """By site, how fast each of the elements grows that a relevant kink ranks."""
    ranked = [
        s
        for s in program.analysis.sites.values()
        if s.touch.ranks is not None and bool(relevant[s.first : s.first + s.touch.count].any())
    ]
    if not ranked or not direction:
        return {}
    with forward_mode():
        run = program.run(choices=choices, tangents=tuple(direction), probe=True, grad=False)
        return {s.position: tangent(run.probes[s.position].candidates) for s in ranked}


def _has_wide_ties(program: Program, relevant: torch.Tensor) -> bool:
    """Whether some relevant kink chooses among three or more tied elements."""
    for site in program.analysis.sites.values():
        touch = site.touch
        if touch.count and is_choice(site):
            own = relevant[site.first : site.first + touch.count]
            if bool((torch.bincount(touch.owner, minlength=touch.count)[own] > 2).any()):
                return True
    return False


def _equivalent(
    program: Program, choices: Mapping[int, torch.Tensor], relevant: torch.Tensor
) -> torch.Tensor:
    """(m,) rows between tied elements with equal gradients: swapping these changes nothing.

    They are the paper's set T_j. One tangent pass along a random direction shows them all.
    """
    generator = torch.Generator().manual_seed(0)
    with forward_mode():
        direction = random_tangents(program, generator)
        run = program.run(choices=choices, tangents=direction, probe=True, grad=False)
        values, kinks = _signed_rows(program, run, choices, relevant)
        slopes = tangent(values).abs()
        limit = torch.full((program.analysis.count,), -1.0, dtype=slopes.dtype)
        for position, probe in run.probes.items():
            site = program.analysis.sites[position]
            if is_choice(site):
                limit[site.first : site.first + site.touch.count] = negligible(site, probe)
    equal = slopes <= limit[kinks]
    if not bool(equal.any()):
        return equal

    def along(direction: Sequence[torch.Tensor]) -> torch.Tensor:
        with forward_mode():
            run = program.run(choices=choices, tangents=direction, probe=True, grad=False)
            return tangent(_signed_rows(program, run, choices, relevant)[0])

    def rows(errors: Errors | None) -> tuple[torch.Tensor, Sequence[torch.Tensor]]:
        run = program.run(choices=choices, probe=True, errors=errors)
        return _signed_rows(program, run, choices, relevant)[0], run.leaves

    varying = really_vary(program, along, equal & (slopes > 0), generator)
    return equal & ~(varying | vary_in_an_entry(program, rows, equal & ~varying))


def _signed_rows(
    program: Program,
    run: Run,
    choices: Mapping[int, torch.Tensor],
    relevant: torch.Tensor,
    orders: Mapping[int, torch.Tensor] = MappingProxyType({}),
) -> tuple[torch.Tensor, torch.Tensor]:
    values, kinks = [], []
    for position in sorted(run.probes):
        probe = run.probes[position]
        site = program.analysis.sites[position]
        touch = site.touch
        own = relevant[site.first : site.first + touch.count]
        if not bool(own.any()):
            continue
        choice = choices.get(position)
        if position in orders:
            touch = touch.in_order(orders[position])
        row, kink = site.rule.rows(probe.call, touch, touch.chosen() if choice is None else choice)
        keep = own[kink]
        values.append(row[keep])
        kinks.append(site.first + kink[keep])
    if not values:
        empty = torch.zeros(0, dtype=program.dtype)
        return empty, torch.zeros(0, dtype=torch.int64)
    return torch.cat(values), torch.cat(kinks)
