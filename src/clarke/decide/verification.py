"""Recompute what a certificate claims from nothing but its program and its point.

Nothing that a judge found is trusted here: values are computed again, touched kinks are found again
by the rules of the default registry, relevance, rows and gradients follow from them, and what holds
with probability one is asked of other random numbers than the judge's. All certificates share this
module and `clarke.decide.recomputed`; each argument adds what only it claims.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from clarke.capture import all_finite
from clarke.constraints import build_rows, find_relevant, flatten
from clarke.decide.confirm import USUAL_FINEST, confirm
from clarke.decide.hazards import LIPSCHITZ
from clarke.decide.rays import is_smooth_along
from clarke.decide.recomputed import Defect
from clarke.decide.vectors import used_vectors
from clarke.feasibility import verify_witness
from clarke.kinks import Hazard
from clarke.numerics import (
    CONFIRMED,
    RAY_LIMIT,
    ROWS_AGREE,
    ROWS_EXACT,
    ROWS_ONE_BY_ONE,
    ROWS_POSITIVE,
    SAME_GRADIENT,
    SET_AGREES,
)
from clarke.steering import Pieces, Program, natural_gradient, selected_gradient
from clarke.steering.cones import with_cones

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from clarke.constraints import Relevance, RowOperator
    from clarke.decide.confirm import Gradient
    from clarke.decide.model import Witness

    Tensors = tuple[torch.Tensor, ...]

_FRESH = 0x5EED  # the judge's generators start from small numbers


@dataclass(frozen=True, eq=False)
class Examined:
    """A witness that holds: its gradient, computed again, and whether it rests on a ray alone."""

    gradient: Tensors
    ray: bool


def fresh_generator() -> torch.Generator:
    """Random numbers that no judge has used."""
    return torch.Generator().manual_seed(_FRESH)


def ad_weights(program: Program) -> dict[int, torch.Tensor]:
    """AD's weights at the operations where it mixes pieces, by site position."""
    return {
        p: s.touch.weights for p, s in program.analysis.sites.items() if bool(s.touch.mixed().any())
    }


def own_gradient(program: Program) -> Tensors:
    """The gradient of AD's own pieces, in float64; norms that the program took of zero stay flat.

    In float64 their arguments may be roundings away from zero, where they have another slope.
    """
    held = with_cones(program)
    return selected_gradient(held, weights=ad_weights(held))


def is_replayed(program: Program, gradient: NDArray[np.float64]) -> bool:
    """Whether AD, with the recorded pieces or as it runs now, returns this at the point."""
    found = (
        own_gradient(program),
        natural_gradient(program),
    )
    return any(same_numbers(flatten(g), gradient) for g in found)


def check_direction(gradient: NDArray[np.float64], direction: NDArray[np.float64]) -> None:
    """Whether a direction can part a gradient from a set.

    Raises:
        Defect: It does not fit the gradient, or is no unit vector.
    """
    if direction.shape != gradient.shape:
        raise Defect("the direction has another shape than the gradient")
    if not abs(float(np.linalg.norm(direction)) - 1) <= SET_AGREES:
        raise Defect("the direction is not a unit vector")


def same_numbers(left: NDArray[np.float64], right: NDArray[np.float64]) -> bool:
    """Whether two arrays are equal, entry by entry, but for a rounding or two."""
    if left.shape != right.shape or not np.isfinite(left).all():
        return False
    return bool((np.abs(left - right) <= SAME_GRADIENT * np.abs(left)).all())


def examine(
    program: Program,
    witness: Witness,
    generator: torch.Generator,
    guarded: Callable[[Program, Relevance], bool],
) -> Examined:
    """Find a witness's kinks, rows and gradient again and compare.

    `guarded` tells whether only guards jump, and not the function around them.

    Raises:
        Defect: It does not hold.
    """
    _check_shapes(program, witness)
    relevance = find_relevant(program, generator, choices=witness.choices)
    if relevance.lost_masks:
        raise Defect("a tied comparison cannot be followed, so that selections say nothing")
    if set(relevance.hazards) - {Hazard.IMPROPER}:
        return _examine_ray(program, witness, relevance, guarded)
    _check_unnamed(program, witness.choices, relevance)
    claimed = torch.zeros(program.analysis.count, dtype=torch.bool)
    claimed[torch.from_numpy(witness.kinks)] = True
    relevant = relevance.relevant | claimed
    rows = build_rows(program, witness.choices, relevant, witness.direction)
    if not np.array_equal(rows.kinks.numpy(), witness.kinks):
        raise Defect("the rows are not those of the relevant kinks")
    if len(witness.kinks):
        along = derivatives_along(rows, witness.direction)
        if not bool((np.abs(along - witness.rows) <= ROWS_AGREE * along).all()):
            raise Defect("the rows along the direction are not what they should be")
    # At null kinks a mixture and a selection differ by roundings.
    for mixture in ({}, {} if witness.choices else ad_weights(program)):
        own = selected_gradient(program, witness.choices, weights=mixture)
        if same_numbers(flatten(own), flatten(witness.gradient)):
            return Examined(own, ray=False)
    raise Defect("the gradient is not that of the selection")


def _check_shapes(program: Program, witness: Witness) -> None:
    for parts in (witness.direction, witness.gradient):
        if [p.shape for p in parts] != [p.shape for p in program.point]:
            raise Defect("a direction or a gradient has another shape than the variables")
        if not all_finite(parts):
            raise Defect("a direction or a gradient is not finite")
    kinks, rows = witness.kinks, witness.rows
    if rows.shape != kinks.shape or rows.ndim != 1:
        raise Defect("rows and their kinks differ in number")
    if len(kinks) and not (kinks.min() >= 0 and kinks.max() < program.analysis.count):
        raise Defect("a row is that of a kink which is not touched")
    for position, choice in witness.choices.items():
        site = program.analysis.sites.get(position)
        if site is None or choice.shape != (site.touch.count,):
            raise Defect("the selection names kinks that are not touched")
        hits = (site.touch.members == choice[site.touch.owner]).to(torch.int64)
        found = torch.zeros(site.touch.count, dtype=torch.int64)
        if not bool((found.index_add(0, site.touch.owner, hits) > 0).all()):
            raise Defect("the selection names a piece that does not meet others at its kink")


def _check_unnamed(
    program: Program, choices: Mapping[int, torch.Tensor], relevance: Relevance
) -> None:
    open_ = relevance.relevant & relevance.mixed
    for position in choices:
        site = program.analysis.sites[position]
        open_[site.first : site.first + site.touch.count] = False
    if bool(open_.any()):
        raise Defect("AD mixes pieces at a relevant kink, and the selection names none of them")


def _examine_ray(
    program: Program,
    witness: Witness,
    relevance: Relevance,
    guarded: Callable[[Program, Relevance], bool],
) -> Examined:
    """A limit along a ray needs a function that is Lipschitz continuous around the point."""
    lipschitz = set(relevance.hazards) <= LIPSCHITZ or guarded(program, relevance)
    if not lipschitz or used_vectors(program.analysis) is not None:
        raise Defect("a point is touched at which no limit of gradients proves anything")
    if len(witness.rows) or witness.choices:
        raise Defect("a point is touched that selections cannot express")
    return Examined(tuple(g.to(torch.float64) for g in witness.gradient), ray=True)


def derivatives_along(rows: RowOperator, direction: Sequence[torch.Tensor]) -> NDArray[np.float64]:
    """(m,) the rows times a direction: in exact arithmetic positive, by more than roundings.

    Very many rows are taken along the direction in one forward pass, with the same margin over what
    its roundings may be.

    Raises:
        Defect: One is not.
    """
    m, n = rows.shape
    failed = Defect("the direction does not satisfy all rows")
    if m > ROWS_ONE_BY_ONE or m * n > ROWS_EXACT:
        values, rounding = rows.times_bounded(direction)
        if not bool((values > rounding).all()):
            raise failed
        return values.to(torch.float64).numpy()
    d = flatten(direction)
    found = np.zeros(m)
    for i in range(m):
        rows.program.deadline.ask("verifying row {} of {}", i + 1, m)
        row = rows.row(i)
        found[i] = row @ d
        if not verify_witness(row[None], d) or found[i] <= ROWS_POSITIVE * (
            np.abs(row) @ np.abs(d)
        ):
            raise failed
    return found


def confirmed(
    program: Program,
    run: Gradient,
    witness: Witness,
    expected: Tensors,
    bounds: Sequence[torch.Tensor],
    generator: torch.Generator,
    finest: float = USUAL_FINEST,
    tolerance: float = CONFIRMED,
) -> bool:
    """Whether gradients along a witness tend to its own, at points that no judge looked at."""
    stretch = 0.5 + 0.4 * float(torch.rand((), generator=generator, dtype=torch.float64))

    def moved(point: Sequence[torch.Tensor]) -> Sequence[torch.Tensor]:
        return run([p + stretch * (q - p) for p, q in zip(program.point, point, strict=True)])

    rest = (program.point, witness.direction, expected, tolerance, bounds, finest)
    return confirm(moved, *rest).confirmed


def check_ray(
    program: Program, witness: Witness, bounds: Tensors, generator: torch.Generator
) -> None:
    """Whether true gradients along a ray tend to the limit claimed, and the ray avoids all kinks.

    Raises:
        Defect: They do not.
    """

    def true(point: Sequence[torch.Tensor]) -> Sequence[torch.Tensor]:
        return natural_gradient(program, point, Pieces.TRUE)

    if not any(bool((d != 0).any()) for d in witness.direction):
        raise Defect("a ray has no direction")
    if not is_smooth_along(program, witness.direction, generator):
        raise Defect("the function is not differentiable along a ray")
    limit = witness.gradient
    if not confirmed(program, true, witness, limit, bounds, generator, tolerance=RAY_LIMIT):
        raise Defect("gradients along a ray do not tend to the limit claimed")


def no_more(
    claimed: Sequence[torch.Tensor], most: Sequence[torch.Tensor], factor: float = 1.0
) -> bool:
    """Whether bounds of rounding are none but those that follow from the program."""
    return len(claimed) == len(most) and all(
        c.shape == m.shape and bool(((c >= 0) & (c <= factor * m)).all())
        for c, m in zip(claimed, most, strict=True)
    )
