"""Write AD's gradient as a convex combination of witnessed selections."""

from __future__ import annotations

import heapq
import math
from typing import TYPE_CHECKING

import numpy as np
import torch

from clarke.constraints import build_rows, find_relevant, flatten, random_tangents
from clarke.deadline import rung
from clarke.decide.model import Witness
from clarke.decide.search import witness_selection
from clarke.feasibility import convex_weights
from clarke.numerics import (
    ARRAY_ENTRIES,
    IN_COMBINATION,
    SET_ROUNDINGS,
    UNIT,
)
from clarke.steering import select_along, selected_gradient

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from clarke.constraints import Relevance, RowOperator
    from clarke.deadline import Deadline
    from clarke.decide.model import Settings
    from clarke.steering import Program

    Mixed = tuple[tuple[Witness, ...], tuple[float, ...]]  # witnesses with convex weights
    Turns = frozenset[tuple[int, int]]  # candidates, by number of the kink

_FEW = 8  # witnesses up to which a mixture is looked for after every one
_LONGEST = 512  # candidates of a kink that are taken in turn
_LARGE = 100_000  # variables from which on every try takes seconds
_TRIES = 16
_SIZED = 64  # rows of one contradiction up to which their sizes are computed
_LOOKS = 1000  # selections looked at for one that no known contradiction excludes


def mix_opposites(
    program: Program,
    gradient: Sequence[torch.Tensor],
    relevance: Relevance,
    settings: Settings,
    generator: torch.Generator,
    allowed: NDArray[np.float64],
) -> Mixed | None:
    """The same with the selections along a direction and along its opposite, of any size.

    Where AD takes the mean of two pieces everywhere, and no path joins kinks, it takes the mean of
    these two selections, whatever the direction.
    """
    direction = random_tangents(program, generator)
    found = []
    for sign in (1.0, -1.0):
        witness = _along(program, tuple(sign * d for d in direction), relevance, generator)
        if witness is None or settings.selections < 2:
            return None
        found.append(witness)
    return _combined(found, gradient, allowed, program.deadline)


def _along(
    program: Program,
    direction: tuple[torch.Tensor, ...],
    relevance: Relevance,
    generator: torch.Generator,
) -> Witness | None:
    """The selection that a direction makes, if it leaves no relevant kink open."""
    choices, _ = select_along(program, direction)
    # A kink may matter under this selection and not under AD's.
    own = find_relevant(program, generator, choices=choices).relevant
    rows = build_rows(program, choices, relevance.relevant | own)
    values = rows.times(direction).to(torch.float64)
    if not bool((values > 0).all()):
        return None
    return Witness(
        direction=direction,
        choices=choices,
        gradient=selected_gradient(program, choices),
        rows=values.numpy(),
        kinks=rows.kinks.numpy(),
    )


@rung("mixing witnesses")
def mix_witnesses(
    program: Program,
    gradient: Sequence[torch.Tensor],
    relevance: Relevance,
    settings: Settings,
    generator: torch.Generator,
    allowed: NDArray[np.float64],
) -> Mixed | None:
    """Witnesses and convex weights whose gradients add up to `gradient`, or None.

    Where AD mixes the pieces of a kink half and half, a selection and its complement cancel in
    pairs; ties that AD shares evenly among m elements are taken in turn. Both follow from AD
    being affine in the proxies of kinks that no path joins (docs/theory.md).
    """
    found: list[Witness] = []
    tried: set[tuple[tuple[int, ...], ...]] = set()
    for choices, complete in _selections(program, relevance, settings, generator):
        program.deadline.ask("selection {}", len(tried) + 1)
        name = tuple((p, *c.tolist()) for p, c in sorted(choices.items()))
        witness = None
        if name not in tried:
            tried.add(name)
            witness, _ = witness_selection(
                program, choices, relevance.relevant, settings, generator
            )
        if witness is not None:
            found.append(witness)
        # Of a long turn no part is enough: AD gives every candidate its share.
        if not found or not (complete or (witness is not None and len(found) <= _FEW)):
            continue
        mixed = _combined(found, gradient, allowed, program.deadline)
        if mixed is not None:
            return mixed
    return None


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
        mixed = _combined(found, gradient, allowed, program.deadline)
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


def _combined(
    found: list[Witness],
    gradient: Sequence[torch.Tensor],
    allowed: NDArray[np.float64],
    deadline: Deadline,
) -> Mixed | None:
    """Those of some witnesses, with weights, that have `gradient` as a convex combination."""
    if len(found) * sum(g.numel() for g in gradient) > ARRAY_ENTRIES:
        return None
    points = np.stack([flatten(w.gradient) for w in found])
    room = allowed + SET_ROUNDINGS * UNIT * np.abs(points).max(axis=0)  # of the weights themselves
    weights = convex_weights(points, flatten(gradient), allowed=room, deadline=deadline)
    if weights is None:
        return None
    kept = [i for i, w in enumerate(weights) if w > 0]
    total = float(sum(weights[i] for i in kept))
    return tuple(found[i] for i in kept), tuple(float(weights[i]) / total for i in kept)


def _selections(
    program: Program, relevance: Relevance, settings: Settings, generator: torch.Generator
) -> Iterator[tuple[dict[int, torch.Tensor], bool]]:
    """Vertex selections in AD's support; consecutive ones rotate every mixed kink's candidates.

    Each with whether it completes a turn. At least one turn, if it is not too long.
    """
    starts: dict[int, torch.Tensor] = {}
    number, last = 0, settings.selections
    while number < last:
        choices: dict[int, torch.Tensor] = {}
        longest = 1
        for position, site in program.analysis.sites.items():
            touch = site.touch
            if touch.count == 0:
                continue
            mixed = touch.mixed() & relevance.relevant[site.first : site.first + touch.count]
            if not bool(mixed.any()):
                continue
            supported = touch.weights > 0
            sizes = torch.zeros(touch.count, dtype=torch.int64).index_add(
                0, touch.owner, supported.to(torch.int64)
            )
            longest = max(longest, int(sizes[mixed].max()))
            start = starts.get(position)
            if start is None:
                start = torch.randint(0, 1 << 30, (touch.count,), generator=generator)
                starts[position] = start
            wanted = (start + number) % sizes.clamp(min=1)
            rank = torch.cumsum(supported.to(torch.int64), 0) - 1
            first = torch.full((touch.count,), 1 << 60, dtype=torch.int64)
            first.scatter_reduce_(
                0, touch.owner, torch.where(supported, rank, torch.full_like(rank, 1 << 60)), "amin"
            )
            members = touch.members[supported]
            picked = members[(first + wanted).clamp(max=members.numel() - 1)]
            choices[position] = torch.where(mixed, picked, touch.chosen())
        number += 1
        last = max(last, longest) if longest <= _LONGEST else last
        complete = number % longest == 0
        yield choices, complete or number == last
        if complete:
            starts.clear()  # start from other places
