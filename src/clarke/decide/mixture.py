"""Write AD's gradient as a convex combination of witnessed selections."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from clarke.constraints import flatten
from clarke.decide.search import witness_selection
from clarke.feasibility import convex_weights

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from clarke.constraints import Relevance
    from clarke.decide.model import Settings, Witness
    from clarke.steering import Program

_FEW = 8  # witnesses up to which a mixture is looked for after every one
_LONGEST = 512  # candidates of a kink that are taken in turn


def mix_witnesses(
    program: Program,
    gradient: Sequence[torch.Tensor],
    relevance: Relevance,
    settings: Settings,
    generator: torch.Generator,
    tolerance: float,
) -> tuple[tuple[Witness, ...], tuple[float, ...]] | None:
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
        mixed = _membership(found, gradient, tolerance)
        if mixed is not None:
            kept = [i for i, w in enumerate(mixed) if w > 0]
            total = sum(mixed[i] for i in kept)
            return tuple(found[i] for i in kept), tuple(mixed[i] / total for i in kept)
    return None


def _membership(
    found: list[Witness], gradient: Sequence[torch.Tensor], tolerance: float
) -> list[float] | None:
    points = np.stack([flatten(w.gradient) for w in found])
    weights = convex_weights(points, flatten(gradient), tolerance=tolerance)
    return None if weights is None else [float(w) for w in weights]


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
