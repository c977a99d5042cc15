"""The verdict where norms are taken of zero among other kinks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from clarke.constraints import flatten, random_tangents, unflatten
from clarke.decide.allowed import allowed_error, rounding_of_selections
from clarke.decide.balls import BallCell, Balls, balls_around
from clarke.decide.certificate import Argument, Certificate, exactly
from clarke.decide.limits import Limits
from clarke.decide.rays import limits_along
from clarke.decide.recomputed import Defect
from clarke.decide.refute import gradients_on_the_other_side
from clarke.decide.verification import check_direction, fresh_generator
from clarke.errors import BudgetError
from clarke.numerics import (
    NORM_SLACK,
    SET_AGREES,
    VERIFIED_CELLS,
    VERIFIED_KINKS,
    VERIFIED_NODES,
)
from clarke.steering.cones import with_cones
from clarke.verdict import Verdict

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from clarke.decide.model import Decision
    from clarke.decide.project import Projection
    from clarke.steering import Program

    Array = NDArray[np.float64]
    Tensors = tuple[torch.Tensor, ...]

_CELLS = 64  # cells in which rays are looked for
_RAYS = 16


@dataclass(frozen=True, eq=False)
class NormSeparation(Argument):
    """The gradient lies outside of the set, where norms are taken of zero.

    Attributes:
        direction: (n,) unit vector with ``<direction, g> > <direction, p>`` for every element p.
        gap: The smallest difference.
        distance: Distance of the gradient to the hull of the elements.
    """

    direction: Array
    gap: float
    distance: float

    @staticmethod
    def claimed(program: Program, gradient: Array, direction: Array) -> NormSeparation:
        """What a direction claims to prove; whether it does is for `check`.

        Raises:
            BudgetError: The selections are out of reach.
        """
        balls = _recomputed(program)
        distance = balls.place(gradient, program).distance
        return NormSeparation(direction, _gap(balls, gradient, direction), distance)

    def check(self, program: Program, vector: Tensors, *, run: bool) -> None:
        """Enumerate again, and separate again."""
        gradient = flatten(vector)
        check_direction(gradient, self.direction)
        balls = _recomputed(program)
        allowed = allowed_error(program, gradient) + roundings(balls, program)
        gap = _gap(balls, gradient, self.direction)
        if not gap > float(np.abs(self.direction) @ allowed):
            raise Defect("the direction does not separate the gradient from the set")
        if not abs(gap - self.gap) <= SET_AGREES * gap:
            raise Defect("the gap is another one")
        distance = balls.place(gradient, program).distance
        if not abs(distance - self.distance) <= SET_AGREES * distance:
            raise Defect("the distance to the set is another one")
        for defect in self.own_defects(program, vector, run=run):
            raise Defect(defect)

    def own_defects(self, program: Program, vector: Tensors, *, run: bool) -> tuple[str, ...]:
        """What the judge asks of its own proof: gradients beside the point."""
        if run and not gradients_on_the_other_side(
            program, flatten(vector), self.direction, 0.25 * self.gap
        ):
            return ("gradients at nearby points are not on the other side",)
        return ()


def _recomputed(program: Program) -> Balls:
    limits = Limits(nodes=int(VERIFIED_NODES), cells=int(VERIFIED_CELLS), kinks=int(VERIFIED_KINKS))
    return balls_around(with_cones(program), fresh_generator(), limits)


def _gap(balls: Balls, gradient: Array, direction: Array) -> float:
    return float(direction @ gradient - direction @ balls.extreme(direction)[1])


def roundings(balls: Balls, program: Program) -> Array:
    """(n,) how far rounding may have moved entries of the elements."""
    found: Array = rounding_of_selections(program) + NORM_SLACK * balls.size()
    return found


@dataclass(frozen=True, eq=False)
class Placed:
    """A gradient beside everything that gradients around a norm of zero can be."""

    program: Program
    balls: Balls
    projection: Projection[tuple[int, tuple[float, ...]]]

    def rays(self, gradient: Tensors) -> list[Tensors]:
        """Directions in the cells, first in those between which the nearest element lies."""
        random = np.random.default_rng(0)
        cells = self.balls.cells
        near = flatten(gradient) - np.mean([c.gradient for c in cells], axis=0)
        used = dict.fromkeys([*(at for at, _ in self.projection.names), *range(_CELLS)])
        rays: list[Array] = []
        for cell in [cells[a] for a in used if a < len(cells)]:
            if isinstance(cell, BallCell):
                for aim in (self.projection.direction, near):
                    rays += cell.directions(aim, random)
            elif cell.direction is not None:
                rays.append(cell.direction)
        point = self.program.point
        return [unflatten(np.ascontiguousarray(r), point) for r in rays if r.any()]

    def nearest(self, gradient: Tensors, generator: torch.Generator) -> Tensors | None:
        """The limit along a ray that is nearest to a gradient."""
        limits = limits_along(self.program, self.rays(gradient), generator)
        points = [w.gradient for w in limits]
        gaps = [float(np.linalg.norm(flatten(p) - flatten(gradient))) for p in points]
        return points[int(np.argmin(gaps))] if points else None

    def refute(self, gradient: Array, allowed: Array) -> NormSeparation | None:
        """A proof that the gradient is outside, if it is."""
        direction = self.projection.direction
        if not direction.any():
            return None
        gap = _gap(self.balls, gradient, direction)
        room = allowed + roundings(self.balls, self.program)
        if not gap > float(np.abs(direction) @ room):
            return None
        return NormSeparation(direction, gap, self.projection.distance)


def judge_norms(
    program: Program,
    gradient: Tensors,
    bounds: Tensors,
    generator: torch.Generator,
    limits: Limits,
    otherwise: Decision,
) -> Decision | list[Tensors]:
    """A refutation, or rays along which the gradient may be a mean of limits.

    Args:
        program: The program.
        gradient: The gradient.
        bounds: How far each entry may be off.
        generator: Private randomness.
        limits: Budget.
        otherwise: The undecided verdict, which names the norms.
    """
    try:
        balls = balls_around(with_cones(program), generator, limits)
        placed = Placed(program, balls, balls.place(flatten(gradient), program))
    except BudgetError:
        return _random_rays(program, generator)
    proof = placed.refute(flatten(gradient), flatten(bounds))
    if proof is None:
        return placed.rays(gradient)
    return replace(
        otherwise,
        verdict=Verdict.NOT_CLARKE,
        reason=f"{Verdict.NOT_CLARKE.value} It is {proof.distance:.3g} away from all that pieces "
        "and directions of norms of zero give.",
        certificate=Certificate(program, exactly(gradient), proof).sealed(),
        theorem="norms among pieces",
        element=placed.nearest(gradient, generator),
    )


def _random_rays(program: Program, generator: torch.Generator) -> list[Tensors]:
    """Rays where nothing better is known, each with its opposite."""
    found = [tuple(random_tangents(program, generator)) for _ in range(_RAYS)]
    return [d for one in found for d in (one, tuple(-x for x in one))]
