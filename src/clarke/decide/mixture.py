"""Write AD's gradient as a convex combination of witnessed selections."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np
import torch

from clarke.constraints import build_rows, flatten
from clarke.decide.search import witness_selection
from clarke.feasibility import convex_weights

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from clarke.constraints import Relevance
    from clarke.decide.model import Settings, Witness
    from clarke.steering import Program

    Mixed = tuple[tuple[Witness, ...], tuple[float, ...]]  # witnesses with convex weights

_FEW = 8  # witnesses up to which a mixture is looked for after every one
_LONGEST = 512  # candidates of a kink that are taken in turn
_LARGE = 100_000  # variables from which on every try takes seconds
_TRIES = 8
_IN_COMBINATION = 1e-6  # multipliers, relative to the largest, of rows that a contradiction needs


def mix_witnesses(
    program: Program,
    gradient: Sequence[torch.Tensor],
    relevance: Relevance,
    settings: Settings,
    generator: torch.Generator,
    tolerance: float,
) -> Mixed | None:
    """Witnesses and convex weights whose gradients add up to `gradient`, or None.

    Where AD mixes the pieces of a kink half and half, a selection and its complement cancel in
    pairs; ties that AD shares evenly among m elements are taken in turn. Both follow from AD
    being affine in the proxies of kinks that no path joins (docs/theory.md).
    """
    found: list[Witness] = []
    tried: set[tuple[tuple[int, ...], ...]] = set()
    for choices, complete in _selections(program, relevance, settings, generator):
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
        mixed = _combined(found, gradient, tolerance)
        if mixed is not None:
            return mixed
    return None


def mix_neighbours(
    program: Program,
    gradient: Sequence[torch.Tensor],
    relevance: Relevance,
    settings: Settings,
    generator: torch.Generator,
    tolerance: float,
) -> Mixed | None:
    """The same where AD's own selection is active nowhere nearby, from those next to it.

    Its rows contradict each other: some non-negative combination of them vanishes (Gordan). The
    kinks of that combination are turned, one, two or more at a time, to other candidates.
    """
    rows = build_rows(program, {}, relevance.relevant)
    _, outcome = witness_selection(program, {}, relevance.relevant, settings, generator)
    if outcome.multipliers is None:
        return None
    used = outcome.multipliers > _IN_COMBINATION * outcome.multipliers.max()
    kinks = np.unique(rows.kinks.numpy()[used])
    found: list[Witness] = []
    sizes = range(1, len(kinks) + 1)
    turned = (t for n in sizes for t in itertools.combinations(kinks.tolist(), n))
    large = sum(p.numel() for p in program.point) > _LARGE
    tries = min(settings.selections, _TRIES if large else settings.selections)
    for choices in itertools.islice(_with_candidates(program, turned), tries):
        witness, _ = witness_selection(program, choices, relevance.relevant, settings, generator)
        if witness is None:
            continue
        found.append(witness)
        mixed = _combined(found, gradient, tolerance)
        if mixed is not None:
            return mixed
    return None


def _with_candidates(
    program: Program, turned: Iterable[tuple[int, ...]]
) -> Iterator[dict[int, torch.Tensor]]:
    """AD's selection with some kinks at other candidates: all ways for each set of kinks."""
    for kinks in turned:
        sites = [program.analysis.site_of(k) for k in kinks]
        places = [k - s.first for k, s in zip(kinks, sites, strict=True)]
        own = [int(s.touch.chosen()[i]) for s, i in zip(sites, places, strict=True)]
        others = [
            [m for m in s.touch.members[s.touch.owner == i].tolist() if m != o]
            for s, i, o in zip(sites, places, own, strict=True)
        ]
        for picked in itertools.product(*others):
            choices = {
                p: s.touch.chosen().clone()
                for p, s in program.analysis.sites.items()
                if any(s is other for other in sites)
            }
            for site, place, member in zip(sites, places, picked, strict=True):
                position = next(p for p in choices if program.analysis.sites[p] is site)
                choices[position][place] = member
            yield choices


def _combined(
    found: list[Witness], gradient: Sequence[torch.Tensor], tolerance: float
) -> Mixed | None:
    """Those of some witnesses, with weights, that have `gradient` as a convex combination."""
    points = np.stack([flatten(w.gradient) for w in found])
    weights = convex_weights(points, flatten(gradient), tolerance=tolerance)
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
