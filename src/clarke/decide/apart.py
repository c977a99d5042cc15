"""Verdicts from the outer estimate: refuted without enumeration, or regular part by part.

Entries of variables and kinks that have nothing to do with each other are judged apart: a gradient
is wrong as soon as one part of it is, and right if all parts are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from clarke.constraints import flatten, unflatten
from clarke.deadline import UNLIMITED
from clarke.decide.allowed import allowed_error
from clarke.decide.certificate import Argument
from clarke.decide.confirm import confirm
from clarke.decide.freely import moves_freely
from clarke.decide.normal import outer_estimate
from clarke.decide.recomputed import Defect
from clarke.decide.rounding import Rounding
from clarke.decide.tolerance import added, peak, within
from clarke.decide.verification import (
    ad_weights,
    check_direction,
    fresh_generator,
    no_more,
    own_gradient,
)
from clarke.numerics import (
    BESIDE_STEPS,
    FOLLOWS,
    GRANTED,
    OUTSIDE,
    SET_AGREES,
    TOWARD_NOISE,
)
from clarke.steering import Program, natural_gradient, select_along, selected_gradient

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from clarke.deadline import Deadline
    from clarke.decide.outer import Outer

    Array = NDArray[np.float64]
    Mask = NDArray[np.bool_]
    Tensors = tuple[torch.Tensor, ...]

_SAMPLES = 8
_ROUNDS = 100
_MANY = 512  # parts that are looked at one by one


def _fresh(program: Program) -> Outer:
    """The outer estimate of a program, from nothing but the program and its point."""
    return outer_estimate(program, fresh_generator(), program.deadline)


@dataclass(frozen=True, eq=False)
class OuterSeparation(Argument):
    """The gradient lies outside of everything that pieces chosen freely can give.

    Attributes:
        direction: (n,) unit vector with ``<direction, g> > <direction, p>`` for every element p.
        gap: The difference.
        distance: The distance of the part of the gradient that was looked at.
        kinks: The touched kinks of that part.
    """

    direction: Array
    gap: float
    distance: float
    kinks: tuple[int, ...]

    def check(self, program: Program, vector: Tensors, *, run: bool) -> None:
        """Compute the estimate from scratch and separate again; with `run`, look nearby as well."""
        gradient = flatten(vector)
        check_direction(gradient, self.direction)
        outer = _fresh(program)
        gap = outer.gap(gradient, self.direction)
        allowed = allowed_error(program, gradient)
        if not gap > float(np.abs(self.direction) @ allowed):
            raise Defect("the direction does not separate the gradient from the estimate")
        own = refute_outside(outer, gradient, allowed)
        if own is None or own.kinks != self.kinks:
            raise Defect("the part that is apart from the estimate is another one")
        if not abs(gap - self.gap) <= SET_AGREES * gap:
            raise Defect("the gap is another one")
        if not abs(own.distance - self.distance) <= SET_AGREES * own.distance:
            raise Defect("the distance to the estimate is another one")
        if run and not self._nearby_on_the_other_side(program, gradient):
            raise Defect("gradients at nearby points are not on the other side")

    def own_defects(self, program: Program, vector: Tensors, *, run: bool) -> tuple[str, ...]:
        """What the judge asks of its own proof: gradients beside the point."""
        if run and not self._nearby_on_the_other_side(program, flatten(vector)):
            return ("gradients at nearby points are not on the other side",)
        return ()

    def _nearby_on_the_other_side(self, program: Program, gradient: Array) -> bool:
        """Gradients just beside the point must be separated from g as the estimate is."""
        generator = torch.Generator().manual_seed(1)
        limit = float(self.direction @ gradient)
        for _ in range(_SAMPLES):
            direction = _random(program, generator)
            for step in BESIDE_STEPS:
                found = flatten(natural_gradient(program, _moved(program, direction, step)))
                if not limit - float(self.direction @ found) > 0.25 * self.gap:
                    return False
        return True


@dataclass(frozen=True, eq=False)
class OneWay(Argument):
    """The gradient is a mean of gradients of pieces that bend one way, or combine in all ways.

    There the generalized gradients are the means of the candidates' gradients for *any* weights at
    each kink (the sum rule is an equality), so the weights are the proof.

    Attributes:
        shares: (L,) the weights of the candidates at all atoms of the program's outer estimate.
        bounds: For each entry, how far it may be off.
    """

    shares: Array
    bounds: Tensors

    def check(self, program: Program, vector: Tensors, *, run: bool) -> None:
        """Compute the structure from scratch and check signs, weights and their mean again."""
        outer = _fresh(program)
        if self.shares.shape != outer.atoms.owner.shape:
            raise Defect("the weights do not fit the kinks")
        mean = unflatten(outer.mean(self.shares), program.point)
        weights = ad_weights(program)
        own = own_gradient(program)
        coarse = Rounding(program, own, weights=weights)
        replay = Rounding(program, own, weights=weights, double=True)
        if not no_more(self.bounds, added(coarse.most, replay.most), GRANTED):
            raise Defect("more counts as rounding than the program can leave")
        least = added(replay.bounds, roundings_of(outer, program))
        if not within(mean, vector, least) and coarse.vague(vector):
            raise Defect("what rounding can do is too much for the gradient to tell anything")
        found = self.wrong(outer, program, vector, run=run)
        if found:
            raise Defect(found)

    def wrong(self, outer: Outer, program: Program, vector: Tensors, *, run: bool) -> str:
        """What is wrong with the proof for an estimate; empty if nothing is."""
        atoms = outer.atoms
        if not is_the_set(outer):
            return "the function bends both ways"
        if not atoms.are_shares(self.shares):
            return "the weights are not convex"
        mean = unflatten(outer.mean(self.shares), program.point)
        if not within(mean, vector, added(self.bounds, roundings_of(outer, program))):
            return "the mean of the candidates' gradients is not the gradient"
        if run and not _follows(outer, program, flatten(mean)):
            return "gradients at nearby points do not follow the directional derivative"
        return ""


def _follows(outer: Outer, program: Program, mean: Array) -> bool:
    """Beside the point, along d, the slope must be the estimate's largest or smallest.

    Part by part it is one or the other; in every one of them no less, or no more, than that of
    the gradient.
    """
    generator = torch.Generator().manual_seed(1)
    if not regular_in_parts(outer):
        return _stays_inside(outer, program, generator)
    convex = np.zeros(len(mean), dtype=bool)
    for atoms, entries in outer.parts():
        if outer.bends(1.0, atoms):
            convex |= entries
    for _ in range(_SAMPLES):
        direction = _random(program, generator)
        slopes = [
            flatten(natural_gradient(program, _moved(program, direction, step)))
            for step in BESIDE_STEPS
        ]
        for entries, sign in ((convex, 1.0), (~convex, -1.0)):
            own = np.where(entries, flatten(direction), 0.0)
            wanted = sign * outer.extreme(sign * own)[0]
            size = float((outer.noise + np.abs(mean)) @ np.abs(own)) + abs(wanted)
            if not any(abs(float(s @ own) - wanted) <= FOLLOWS * size for s in slopes):
                return False
            if sign * (wanted - float(mean @ own)) < -FOLLOWS * size:
                return False
    return True


def _stays_inside(outer: Outer, program: Program, generator: torch.Generator) -> bool:
    """Gradients beside the point are no further in a direction than the estimate reaches."""
    for _ in range(_SAMPLES):
        direction, across = (_random(program, generator) for _ in range(2))
        along = flatten(across)
        high, low = outer.extreme(along)[0], -outer.extreme(-along)[0]
        room = FOLLOWS * (float(outer.noise @ np.abs(along)) + abs(high) + abs(low))
        slopes = [
            flatten(natural_gradient(program, _moved(program, direction, step)))
            for step in BESIDE_STEPS
        ]
        if not any(low - room <= float(s @ along) <= high + room for s in slopes):
            return False
    return True


def roundings_of(outer: Outer, program: Program) -> tuple[torch.Tensor, ...]:
    """What adding up the estimate's terms may do to the entries of a mean."""
    return unflatten(OUTSIDE * outer.noise, program.point)


def regular_in_parts(outer: Outer) -> bool:
    """Whether every part of the estimate is the set itself."""
    return outer.regular() or all(outer.regular(atoms) for atoms, _ in outer.parts())


def is_the_set(outer: Outer) -> bool:
    """Whether the estimate is the set itself: by how pieces bend, or since all of them occur."""
    return regular_in_parts(outer) or moves_freely(outer)


def _random(program: Program, generator: torch.Generator) -> tuple[torch.Tensor, ...]:
    return tuple(torch.randn(p.shape, dtype=p.dtype, generator=generator) for p in program.point)


def _moved(
    program: Program, direction: Sequence[torch.Tensor], step: float
) -> tuple[torch.Tensor, ...]:
    scale = max(1.0, peak(program.point))
    return tuple(p + step * scale * d for p, d in zip(program.point, direction, strict=True))


def refute_outside(
    outer: Outer,
    gradient: Array,
    allowed: Array,
    deadline: Deadline = UNLIMITED,
) -> OuterSeparation | None:
    """A proof that a gradient is outside of the estimate, or None; part by part where there are.

    The whole is looked at first, a few rounds only: what is far outside shows at once.
    """
    atoms = outer.atoms
    everything = np.ones(atoms.count, dtype=bool), np.ones(len(gradient), dtype=bool)
    parts = [everything, *(_worst_entry(outer, p, gradient) for p in outer.parts())]
    for kinks, entries in parts if len(parts) <= _MANY else parts[:1]:
        part, columns = outer.restricted(kinks, entries)
        target = gradient[columns]
        near = part.project(target, _ROUNDS, deadline)
        if part.gap(target, near.direction) <= float(np.abs(near.direction) @ allowed[columns]):
            continue
        direction = np.zeros(len(gradient))
        direction[columns] = near.direction
        gap = outer.gap(gradient, direction)
        if gap > float(np.abs(direction) @ allowed):
            mine = sorted({n for j in np.flatnonzero(kinks) for n in atoms.kinks[j]})
            return OuterSeparation(direction, gap, near.distance, tuple(mine))
    return None


def _worst_entry(outer: Outer, part: tuple[Mask, Mask], gradient: Array) -> tuple[Mask, Mask]:
    """Of entries without kinks, of which each is a part, the one that is farthest off."""
    atoms, entries = part
    if bool(atoms.any()):
        return part
    off = np.abs(gradient - outer.base)
    size = np.maximum(np.maximum(np.abs(gradient), outer.noise), np.finfo(np.float64).tiny)
    own = np.zeros_like(entries)
    own[int(np.argmax(np.where(entries, off / size, -1.0)))] = True
    return atoms, own


def limit_beside(
    program: Program, toward: Array, generator: torch.Generator
) -> tuple[torch.Tensor, ...] | None:
    """The limiting gradient along a direction close to one, if the gradients there show it."""
    noise = flatten(_random(program, generator))
    direction = unflatten(toward + TOWARD_NOISE * noise, program.point)
    choices, _ = select_along(program, direction)
    found = selected_gradient(program, choices)
    shown = confirm(lambda point: natural_gradient(program, point), program.point, direction, found)
    return found if shown.confirmed else None
