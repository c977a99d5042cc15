"""What a set answers besides membership, as arguments: smallest element, vertices, slopes, rank.

A certificate of one of these holds the vector that the answer is about: the smallest element, or
the direction of a slope; zeros where it is about none.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from clarke.constraints import flatten, unflatten
from clarke.deadline import UNLIMITED
from clarke.decide.ballset import BallSet
from clarke.decide.certificate import Argument, Certificate
from clarke.decide.exact import rounding_of_set
from clarke.decide.limits import set_limits
from clarke.decide.limitset import LimitSet
from clarke.decide.live import find_live
from clarke.decide.membership import Member, allowed_for, direction_into, recomputed_set
from clarke.decide.recomputed import Defect
from clarke.decide.source import (
    Source,
    is_hull_known,
    listed_vertices,
    placed,
    rank_of,
    smallest_element,
)
from clarke.decide.verification import fresh_generator
from clarke.errors import InputError, UnsupportedError
from clarke.numerics import SET_ROUNDINGS, UNIT
from clarke.steering import select_along, selected_gradient
from clarke.steering.cones import with_cones

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from clarke.deadline import Deadline
    from clarke.decide.dependent import Rank
    from clarke.decide.regularset import RegularSet
    from clarke.steering import Program

    Array = NDArray[np.float64]
    Tensors = tuple[torch.Tensor, ...]

Answer = Literal["min_norm", "vertices", "rank", "directional"]

_SEED = 0x5EED  # no judge begins with it
_DIRECTED = 4096  # elements for which directions are looked for


@dataclass(frozen=True, eq=False)
class Smallest(Argument):
    """The vector is the element of smallest norm, or lies near to it.

    It is in the set, and `<x, p> >= <x, x> - short` for all elements p: so the smallest is no
    farther from it than the root of `short`, which is zero but for what a computation leaves.

    Attributes:
        member: That it is in the set.
        short: By how much.
    """

    judges: ClassVar[bool] = False

    member: Member
    short: float

    def check(self, program: Program, vector: Tensors, *, run: bool) -> None:
        """Check that it is a member, and hold it against the set computed from scratch."""
        if not self.member.inside:
            raise Defect("the vector is not proved to be in the set")
        self.member.check(program, vector, run=run)
        member, x = self.member, flatten(vector)
        found = recomputed_set(program, exact=member.exact, regular=member.regular)
        room = member.allowed + rounding_of_set(program, found)
        if not 0 <= self.short < np.inf:
            raise Defect("by how much the smallest element may be shorter is no number")
        if short_of(found, x) > self.short + float(np.abs(x) @ room):
            raise Defect("some element of the set lies nearer to zero")


@dataclass(frozen=True, eq=False)
class Slope(Argument):
    """The derivative along the vector, `lim (f(w + t d) - f(w)) / t`, is this.

    Attributes:
        slope: The number.
        exact: As in `Member`.
    """

    judges: ClassVar[bool] = False

    slope: float
    exact: bool = False

    def check(self, program: Program, vector: Tensors, *, run: bool) -> None:  # noqa: ARG002 - nothing to run
        """Select pieces along the direction anew, where selections describe the set."""
        find_live(with_cones(program), fresh_generator())
        own = slope_along(program, flatten(vector))
        size = np.abs(gradient_along(program, flatten(vector))) @ np.abs(flatten(vector))
        if not abs(own - self.slope) <= SET_ROUNDINGS * UNIT * float(size):
            raise Defect("the derivative along the direction is another one")


@dataclass(frozen=True, eq=False)
class Vertices(Argument):
    """These are the vertices of the set, and there are no others.

    Attributes:
        elements: (k, n) the vertices.
        directions: (k, n) for each, a direction around which it is the only gradient.
        exact: As in `Member`.
    """

    judges: ClassVar[bool] = False

    elements: Array
    directions: Array
    exact: bool = False

    @staticmethod
    def of(source: Source, elements: Array, deadline: Deadline) -> Vertices:
        """A direction for every vertex.

        Raises:
            UnsupportedError: For one there is none at hand.
        """
        limits = source.listed(deadline).certain()
        if limits is None or limits.count > _DIRECTED:
            raise UnsupportedError(
                "The vertices have no proof that could be kept: their directions are too many. "
                "`contains` proves single vectors."
            )
        found: list[Array] = []
        every = [direction_into(cells) for _, cells in limits.combinations()]
        points = limits.elements()
        for own in elements:
            near = np.argsort(np.abs(points - own).max(axis=1), kind="stable").tolist()
            found.append(next(d for i in near if (d := every[i]) is not None))
        return Vertices(elements, np.stack(found), exact=not source.limits.rounding)

    def check(self, program: Program, vector: Tensors, *, run: bool) -> None:  # noqa: ARG002 - nothing to run
        """List the vertices anew, and the gradients along the directions."""
        source = Source(program, replace(set_limits(), rounding=not self.exact), _SEED)
        limits = source.listed(program.deadline)
        allowed = rounding_of_set(program, limits)
        if not all(c.complete for c in limits.components) and not is_hull_known(
            limits, allowed, program.deadline
        ):
            raise Defect("not all vertices are known")
        again = listed_vertices(source, allowed, program.deadline)
        if self.elements.shape != again.shape or self.directions.shape != again.shape:
            raise Defect("the vertices are others in number")
        room = allowed + SET_ROUNDINGS * UNIT * np.abs(again)
        left = list(range(len(again)))
        for own, direction in zip(self.elements, self.directions, strict=True):
            same = [i for i in left if bool((np.abs(again[i] - own) <= room[i]).all())]
            if not same:
                raise Defect("a vertex is none of the set's")
            left.remove(same[0])
            along = gradient_along(program, direction)
            if not bool((np.abs(along - own) <= room[same[0]]).all()):
                raise Defect("the gradient along a direction is not its vertex")


@dataclass(frozen=True, eq=False)
class Independent(Argument):
    """So many of the switching functions' gradients are independent.

    Attributes:
        rank: How many, and within what.
        exact: As in `Member`.
    """

    judges: ClassVar[bool] = False

    rank: Rank
    exact: bool = False

    def check(self, program: Program, vector: Tensors, *, run: bool) -> None:  # noqa: ARG002 - nothing to run
        """Find the rank anew."""
        source = Source(program, replace(set_limits(), rounding=not self.exact), _SEED)
        if rank_of(source.listed(program.deadline)) != self.rank:
            raise Defect("the rank is another one")


def short_of(found: LimitSet | RegularSet | BallSet, x: Array) -> float:
    """The largest ``<x, x> - <x, p>`` over all elements p."""
    if isinstance(found, LimitSet):
        return float(x @ x) - float(x @ found.element(found.extreme(-x)))
    if isinstance(found, BallSet):
        return found.short(x)
    return float(x @ x) + float(found.outer.extreme(-x)[0])


def gradient_along(program: Program, direction: Array) -> Array:
    """(n,) the gradient of the pieces that a direction selects."""
    held = with_cones(program)
    choices, _ = select_along(held, unflatten(direction, program.point))
    return flatten(selected_gradient(held, choices))


def slope_along(program: Program, direction: Array) -> float:
    """The directional derivative."""
    return float(gradient_along(program, direction) @ direction)


def proof_of(
    source: Source, answer: Answer, direction: Array | None, rounding: Array, deadline: Deadline
) -> Certificate:
    """The proof of an answer.

    Args:
        source: The set.
        answer: Which.
        direction: (n,) of a slope.
        rounding: (n,) how far rounding may have moved entries of elements.
        deadline: Of the call.

    Raises:
        InputError: There is no such answer, or a direction is missing or in the way.
        UnsupportedError: It has no proof.
    """
    program, exact = source.program.within(deadline), not source.limits.rounding
    if (direction is None) == (answer == "directional"):
        raise InputError('A direction belongs to "directional", and to no other answer.')
    argument: Argument | None = None
    vector = np.zeros(source.size)
    if answer == "min_norm":
        parts = smallest_element(source, deadline)
        vector = flatten(parts)
        allowed = allowed_for(source.either, parts, None)
        found = placed(source, vector, allowed, deadline)
        if not found.inside:
            found = placed(source, vector, allowed + rounding, deadline)
        short = max(short_of(source.either, vector), 0.0)
        argument = Smallest(found, short) if found.inside else None
    elif answer == "vertices":
        argument = Vertices.of(source, listed_vertices(source, rounding, deadline), deadline)
    elif answer == "rank":
        rank = rank_of(source.listed(deadline))
        argument = None if rank is None else Independent(rank, exact)
    elif direction is not None:
        vector, argument = direction, Slope(slope_along(program, direction), exact)
    if argument is None:
        raise UnsupportedError(
            f'There is no proof of {answer!r} here. It is one of "min_norm", "vertices", '
            '"rank" and "directional", and wants a set that is completely known.'
        )
    kept = program.within(UNLIMITED)
    return Certificate(kept, unflatten(vector, kept.point), argument).sealed()
