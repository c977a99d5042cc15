"""AD's gradient as a mixture of the selections next to its own, which is active nowhere nearby."""

from __future__ import annotations

import heapq
import math
from typing import TYPE_CHECKING

import numpy as np
import torch

from clarke.constraints import build_rows
from clarke.deadline import rung
from clarke.decide.mixture import combined
from clarke.decide.search import witness_selection
from clarke.numerics import IN_COMBINATION

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from clarke.constraints import Relevance, RowOperator
    from clarke.decide.mixture import Mixed
    from clarke.decide.model import Settings, Witness
    from clarke.steering import Program

    Turns = frozenset[tuple[int, int]]  # candidates, by number of the kink

_LARGE = 100_000  # variables from which on every try takes seconds
_TRIES = 16
_SIZED = 64  # rows of one contradiction up to which their sizes are computed
_LOOKS = 1000  # selections looked at for one that no known contradiction excludes


@rung("looking for witnesses beside AD's selection")
def mix_neighbours(
    program: Program,
    gradient: Sequence[torch.Tensor],
    relevance: Relevance,
    settings: Settings,
    generator: torch.Generator,
    allowed: NDArray[np.float64],
) -> Mixed | None:
    """The same where AD's own selection is active nowhere nearby, from those next to it.

    The rows of a selection that is not active contradict each other: some non-negative combination
    of them vanishes (Gordan). As long as no other kink changes these rows, that excludes every
    selection with the same candidates at the kinks of the combination: one of them must be turned.
    Of the selections that turn one in every combination found so far, the one is tried next whose
    gradient is nearest to AD's, as far as first order tells.
    """
    large = sum(p.numel() for p in program.point) > _LARGE
    tries = 1 + min(settings.selections, _TRIES if large else settings.selections)
    neighbours = _Neighbours(program)
    found: list[Witness] = []
    while tries > 0:
        turned = neighbours.next()
        if turned is None:
            break
        tries -= 1
        program.deadline.ask(
            "{} selections, {} witnesses so far", len(neighbours.tried), len(found)
        )
        choices = neighbours.choices(turned)
        witness, outcome = witness_selection(
            program, choices, relevance.relevant, settings, generator
        )
        if witness is None:
            if outcome.multipliers is not None:
                rows = build_rows(program, choices, relevance.relevant)
                neighbours.exclude(turned, rows, outcome.multipliers)
            continue
        found.append(witness)
        mixed = combined(found, gradient, allowed, program.deadline)
        if mixed is not None:
            return mixed
    return None


class _Neighbours:
    """Selections beside AD's, nearest first, without those that a known contradiction excludes."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self._chosen: dict[int, int] = {}
        self._adjoints: torch.Tensor | None = None
        self._costs: dict[int, float] = {}
        self._excluded: list[Turns] = []
        self._queue: list[tuple[float, int, Turns]] = [(0.0, 0, frozenset())]
        self._seen: set[Turns] = {frozenset()}
        self.tried: set[Turns] = set()

    def next(self) -> Turns | None:
        """What the next selection turns (AD's own comes first, and turns nothing), or None."""
        for _ in range(_LOOKS):
            self._program.deadline.ask()
            if not self._queue:
                break
            cost, _, turned = heapq.heappop(self._queue)
            # Down the cheapest turns at once: level by level there may be too many on the way.
            while True:
                clash = next((c for c in self._excluded if self._has_all(turned, c)), None)
                if clash is None:
                    if turned in self.tried:
                        break
                    self.tried.add(turned)
                    return turned
                wider = self._turn_one(turned, clash, cost)
                if wider is None:
                    break
                cost, turned = wider
        return None

    def exclude(self, turned: Turns, rows: RowOperator, multipliers: NDArray[np.float64]) -> None:
        """Note that the rows of a selection contradict each other."""
        used = np.flatnonzero(multipliers > IN_COMBINATION * multipliers.max())
        own = dict(turned)
        kinks = np.unique(rows.kinks.numpy()[used]).tolist()
        self._look_up_costs(rows, used.tolist())
        self._excluded.append(frozenset((k, own.get(k, self._own(k))) for k in kinks))
        cost = sum(self._cost(k) for k, _ in turned)
        heapq.heappush(self._queue, (cost, len(self._seen), turned))  # its successors are wanted

    def choices(self, turned: Turns) -> dict[int, torch.Tensor]:
        """The selection by site position."""
        choices: dict[int, torch.Tensor] = {}
        for kink, candidate in turned:
            site = self._program.analysis.site_of(kink)
            if site.position not in choices:
                choices[site.position] = site.touch.chosen().clone()
            choices[site.position][kink - site.first] = candidate
        return choices

    def _turn_one(self, turned: Turns, clash: Turns, cost: float) -> tuple[float, Turns] | None:
        """Queue the selections that turn another kink of a contradiction; the cheapest, if any."""
        cheapest: tuple[float, Turns] | None = None
        already = {kink for kink, _ in turned}
        for kink, candidate in sorted(clash):
            touch = self._program.analysis.site_of(kink).touch
            place = kink - self._program.analysis.site_of(kink).first
            for other in [] if kink in already else touch.members[touch.owner == place].tolist():
                wider = turned | {(kink, other)}
                if other != candidate and wider not in self._seen:
                    self._seen.add(wider)
                    total = cost + self._cost(kink)
                    heapq.heappush(self._queue, (total, len(self._seen), wider))
                    if cheapest is None or total < cheapest[0]:
                        cheapest = total, wider
        return cheapest

    def _has_all(self, turned: Turns, candidates: Turns) -> bool:
        own = dict(turned)
        return all(own.get(k, self._own(k)) == c for k, c in candidates)

    def _own(self, kink: int) -> int:
        if kink not in self._chosen:
            site = self._program.analysis.site_of(kink)
            self._chosen[kink] = int(site.touch.chosen()[kink - site.first])
        return self._chosen[kink]

    def _cost(self, kink: int) -> float:
        return self._costs.get(kink, math.inf)

    def _look_up_costs(self, rows: RowOperator, used: list[int]) -> None:
        """How far the gradient moves when a kink is turned: its adjoint times the size of its row.

        Sizes take a backward pass each: of very many rows they are taken for equal.
        """
        if self._adjoints is None:
            run = self._program.run(nudge=True)
            count = self._program.analysis.count
            nudges, target = run.nudges, run.output.sum()
            self._adjoints = (
                torch.zeros(count) if nudges is None else nudges.adjoints(target, count)
            )
        for row in used:
            self._program.deadline.ask()
            kink = int(rows.kinks[row])
            if kink in self._costs:
                continue
            size = 1.0
            if len(used) <= _SIZED:
                one = torch.zeros(rows.kinks.numel(), dtype=self._program.dtype)
                one[row] = 1.0
                size = math.sqrt(sum(float((p * p).sum()) for p in rows.transposed_times(one)))
            self._costs[kink] = float(self._adjoints[kink]) * size
