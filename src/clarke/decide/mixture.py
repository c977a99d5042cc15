"""Write AD's gradient as a convex combination of witnessed selections."""

from __future__ import annotations

import itertools
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
    SET_ROUNDINGS,
    UNIT,
)
from clarke.steering import select_along, selected_gradient

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from clarke.constraints import Relevance
    from clarke.deadline import Deadline
    from clarke.decide.model import Settings
    from clarke.steering import Program

    Mixed = tuple[tuple[Witness, ...], tuple[float, ...]]  # witnesses with convex weights

_ENUMERATED = 8  # dimensions of selections below which all of them are soon enumerated
_PER_SIDE = 8  # selections for each dimension
_MOST_SIDES = 1024
_FEW = 8  # witnesses up to which a mixture is looked for after every one
_LONGEST = 512  # selections of a turn, up to which a whole one is tried
_PLACES = 2.0**30  # of a turn: weights are equal up to this


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
    if settings.selections < 2:
        return None
    directions = _opposites(program, relevance, settings, generator)
    found = _some(program, directions, 2, relevance, generator)
    return combined(found, gradient, allowed, program.deadline) if len(found) > 1 else None


@rung("mixing selections along directions")
def mix_directions(
    program: Program,
    gradient: Sequence[torch.Tensor],
    relevance: Relevance,
    settings: Settings,
    generator: torch.Generator,
    allowed: NDArray[np.float64],
) -> Mixed | None:
    """The same with the selections along many random directions and their opposites.

    Of n random sides, among them opposite ones, a point well inside of their hull is a mixture as
    soon as they are a few times more than its dimension: Wendel (1962) for symmetric sides. All
    directions share a part along which the kinks at which AD takes one piece take it.
    """
    sides = _sides(program, relevance)
    if not _ENUMERATED <= sides <= _MOST_SIDES // 4:
        return None
    directions = _opposites(program, relevance, settings, generator)
    most = min(_PER_SIDE * sides, _MOST_SIDES)
    found: list[Witness] = []
    while len(found) < most:
        wanted = max(2 * len(found), sides)
        more = _some(program, directions, wanted - len(found), relevance, generator)
        if not more:
            break
        found += more
        mixed = combined(found, gradient, allowed, program.deadline)
        if mixed is not None:
            return mixed
    return None


def _sides(program: Program, relevance: Relevance) -> int:
    """Of how many dimensions the selections that AD mixes are, at most."""
    total = 0
    for site in program.analysis.sites.values():
        touch = site.touch
        mixed = touch.mixed() & relevance.relevant[site.first : site.first + touch.count]
        total += int((mixed[touch.owner] & (touch.weights > 0)).sum()) - int(mixed.sum())
    return total


def _opposites(
    program: Program, relevance: Relevance, settings: Settings, generator: torch.Generator
) -> Iterator[tuple[torch.Tensor, ...]]:
    """Random directions and their opposites, along which AD's pieces stay where it takes one."""
    taken = relevance.relevant & ~relevance.mixed
    base = None
    if bool(taken.any()):
        base, _ = witness_selection(program, {}, taken, settings, generator)
        if base is None:
            return
    rows = None if base is None else build_rows(program, {}, taken)
    while True:
        direction = random_tangents(program, generator)
        for sign in (1.0, -1.0):
            turned = tuple(sign * d for d in direction)
            if base is None or rows is None:
                yield turned
                continue
            ahead, aside = rows.times(base.direction), rows.times(turned)
            against = aside < 0
            step = float((ahead[against] / -aside[against]).min()) if bool(against.any()) else 1.0
            yield tuple(b + 0.5 * step * t for b, t in zip(base.direction, turned, strict=True))


def _some(
    program: Program,
    directions: Iterator[tuple[torch.Tensor, ...]],
    count: int,
    relevance: Relevance,
    generator: torch.Generator,
) -> list[Witness]:
    """The witnesses along the next directions."""
    found: list[Witness] = []
    for direction in itertools.islice(directions, count):
        program.deadline.ask("{} of {} selections", len(found), count)
        witness = _along(program, direction, relevance, generator)
        if witness is not None:
            found.append(witness)
    return found


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
    rows = build_rows(program, choices, relevance.relevant | own, direction)
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
    pairs; ties that AD shares among several elements are taken in turn (`turn_of_selections`). Both
    follow from AD being affine in the proxies of kinks that no path joins (docs/theory.md).
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
        mixed = combined(found, gradient, allowed, program.deadline)
        if mixed is not None:
            return mixed
    return None


def combined(
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
    """Vertex selections in AD's support, in turns of which AD's gradient is a mean.

    Each with whether it completes a turn. At least one turn, if it is not too long.
    """
    number, last = 0, settings.selections
    while number < last:
        turn = turn_of_selections(program, relevance, generator)
        if number == 0 and len(turn) <= _LONGEST:
            last = max(last, len(turn))
        for place, (choices, _) in enumerate(turn[: last - number]):
            number += 1
            yield choices, place == len(turn) - 1 or number == last


def turn_of_selections(
    program: Program, relevance: Relevance, generator: torch.Generator
) -> list[tuple[dict[int, torch.Tensor], float]]:
    """Vertex selections with shares that give every mixed kink's candidates AD's weights.

    A pointer goes once around every kink, whose candidates take their weights of the way, from
    another place on at each. Wherever any of the pointers passes on to the next candidate, a
    selection begins: of ties of two and of three there are four, with shares 1/3, 1/6, 1/6, 1/3.
    """
    begins: dict[int, torch.Tensor] = {}
    for position, site in program.analysis.sites.items():
        touch = site.touch
        if touch.count == 0:
            continue
        mixed = touch.mixed() & relevance.relevant[site.first : site.first + touch.count]
        if not bool(mixed.any()):
            continue
        supported = (touch.weights > 0).to(torch.float64)
        before = touch.weights.to(torch.float64).cumsum(0) - touch.weights
        rank = supported.cumsum(0) - 1
        starts = torch.full((2, touch.count), torch.inf, dtype=torch.float64)
        low = torch.where(supported > 0, torch.stack([before, rank]), torch.inf)
        starts.scatter_reduce_(1, touch.owner.expand(2, -1), low, "amin")
        before, rank = before - starts[0][touch.owner], rank - starts[1][touch.owner]
        sizes = torch.zeros(touch.count, dtype=torch.float64).index_add(0, touch.owner, supported)
        first = (torch.rand(sizes.shape, dtype=torch.float64, generator=generator) * sizes).floor()
        is_first = (rank == first[touch.owner]) & (supported > 0)
        offset = torch.zeros(touch.count, dtype=torch.float64)
        offset[touch.owner[is_first]] = before[is_first]
        begin = ((before - offset[touch.owner]) * _PLACES).round() % _PLACES
        begins[position] = torch.where((supported > 0) & mixed[touch.owner], begin, torch.inf)
    places = [b[b.isfinite()] for b in begins.values()]
    ends = [*torch.cat(places).unique().tolist(), _PLACES] if places else [0.0, _PLACES]
    turn = []
    for place, end in itertools.pairwise(ends):
        choices = {}
        for position, begin in begins.items():
            touch = program.analysis.sites[position].touch
            passed = torch.where(begin <= place, begin, -1.0)
            latest = torch.full((touch.count,), -1.0, dtype=torch.float64)
            latest.scatter_reduce_(0, touch.owner, passed, "amax")
            picked = touch.chosen()
            at = (passed >= 0) & (passed == latest[touch.owner])
            picked[touch.owner[at]] = touch.members[at]
            choices[position] = picked
        turn.append((choices, (end - place) / _PLACES))
    return turn
