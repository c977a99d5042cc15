"""Whether a vector is in the Clarke subdifferential, with a proof either way."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch

from clarke.constraints import flatten
from clarke.decide.ballset import BallSet
from clarke.decide.certificate import Argument, Certificate
from clarke.decide.exact import recomputed_limits, rounding_of_set
from clarke.decide.limits import set_limits
from clarke.decide.limitset import LimitSet, separates
from clarke.decide.live import norm_of_zero
from clarke.decide.recomputed import Defect
from clarke.decide.regularset import RegularSet
from clarke.decide.verification import fresh_generator, same_numbers
from clarke.errors import InputError, UnsupportedError
from clarke.feasibility import verify_membership
from clarke.numerics import ASKED_ROUNDINGS, GRANTED, SET_AGREES
from clarke.steering import Program, unit_roundoff
from clarke.steering.cones import with_cones

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from clarke.decide.cells import Cell

    Array = NDArray[np.float64]
    Tensors = tuple[torch.Tensor, ...]


@dataclass(frozen=True, eq=False)
class Member(Argument):
    """A vector is in the Clarke subdifferential, or is not.

    Attributes:
        inside: True, False, or None if selections that could be neither proved nor excluded
            decide, or rounding does.
        distance: Euclidean distance to the set (to what is certain, if inside is not False).
        elements: (k, n) elements of the set whose convex combination is the vector, if inside:
            limiting gradients, or where `shares` is given means of the pieces' gradients.
        weights: (k,) their weights.
        direction: (n,) unit vector that separates, if outside.
        allowed: (n,) how far each entry may be off and the vector still be a member.
        atoms: For each element, the selection in each group of kinks, among those proved.
        asked: The tolerance that the caller named, if any.
        exact: Rows that depend on others but for rounding were not taken to do so exactly.
        regular: All pieces bend one way, so that nothing had to be listed.
        shares: (k, L) then, for each element, the weights of the pieces at all kinks.
        directions: (k, n) for each element, a direction around which it is the gradient; found when
            it is saved, for a checker that has no list of cells.
    """

    judges: ClassVar[bool] = False

    inside: bool | None
    distance: float
    elements: Array
    weights: Array
    direction: Array | None
    allowed: Array
    atoms: tuple[tuple[int, ...], ...] = ()
    asked: float | None = None
    exact: bool = False
    regular: bool = False
    shares: Array | None = None
    directions: Array | None = None

    def check(self, program: Program, vector: Tensors, *, run: bool) -> None:  # noqa: ARG002 - nothing to run
        """Compute the set again and check the proof in exact arithmetic."""
        if self.inside is None:
            raise Defect("nothing was proved")
        target = flatten(vector)
        found = recomputed_set(program, exact=self.exact, regular=self.regular)
        self._check_allowed(program, vector, found)
        if self.directions is not None and (self.regular or not self.inside):
            raise Defect("directions of elements belong to a list of them")
        if isinstance(found, RegularSet):
            self._check_regular(found, target)
            return
        if isinstance(found, BallSet):
            self._check_balls(found, target)
            return
        if self.shares is not None:
            raise Defect("weights of pieces prove nothing where pieces bend both ways")
        if self.inside:
            self._check_inside(found.certain(), target)
        else:
            self._check_outside(found, target)

    def _check_allowed(
        self, program: Program, vector: Tensors, limits: LimitSet | RegularSet | BallSet
    ) -> None:
        """Neither more nor less may count as rounding than follows from program and vector."""
        least = allowed_for(limits, vector, self.asked)
        if self.allowed.shape != least.shape:
            raise Defect("there is not one bound for every entry")
        most = least
        if self.asked is None:
            most = most + rounding_of_set(program, limits)
        if not bool(((self.allowed >= least / GRANTED) & (self.allowed <= GRANTED * most)).all()):
            raise Defect("more or less counts as rounding than the program can leave")
        if not self.inside and not bool((self.allowed >= most / GRANTED).all()):
            raise Defect("less counts as rounding than the program can leave")

    def with_directions(self, program: Program) -> Member:
        """The same with a direction for every element, where the set is a list of cells."""
        if not self.inside or self.regular or self.directions is not None:
            return self
        limits = recomputed_set(program, exact=self.exact, regular=False)
        certain = limits.certain() if isinstance(limits, LimitSet) else None
        if certain is None:
            return self
        found = [direction_into(cells) for cells in _cells_of(certain, self.atoms)]
        kept = [d for d in found if d is not None]
        complete = len(kept) == len(self.atoms)
        return replace(self, directions=np.stack(kept)) if complete else self

    def _check_directions(self, certain: LimitSet) -> None:
        d = self.directions
        if d is None:
            return
        if d.shape != self.elements.shape or not np.isfinite(d).all():
            raise Defect("there is not one direction for every element")
        for own, cells in zip(d, _cells_of(certain, self.atoms), strict=True):
            if not all(bool((c.rows @ own > 0).all()) for c in cells):
                raise Defect("a direction does not point to where its element is the gradient")

    def _check_inside(self, certain: LimitSet | None, target: Array) -> None:
        if self.direction is not None:
            raise Defect("a direction separates nothing from a set that holds it")
        if certain is None or len(self.atoms) != len(self.elements):
            raise Defect("the elements are not proved limiting gradients")
        sizes = [len(c.changes) for c in certain.components]
        for atom, element in zip(self.atoms, self.elements, strict=True):
            fits = len(atom) == len(sizes) and all(
                0 <= a < s for a, s in zip(atom, sizes, strict=True)
            )
            if not fits or not same_numbers(certain.element(atom), element):
                raise Defect("the elements are not those of the set")
        self._check_directions(certain)
        self._check_mean(target)

    def _check_mean(self, target: Array) -> None:
        exact = self.weights @ self.elements
        if not verify_membership(self.elements, self.weights, target, allowed=self.allowed):
            raise Defect("the elements do not add up to the vector")
        self._check_distance(float(np.linalg.norm(exact - target)))

    def _check_regular(self, found: RegularSet, target: Array) -> None:
        """Weights at every kink, or a direction, against the set computed from scratch."""
        if self.inside:
            if self.direction is not None or self.atoms or self.shares is None:
                raise Defect("what proves a vector inside is a weight for every piece")
            self._check_shares(found, self.shares, target)
            self._check_mean(target)
            return
        d = self._unit_direction(target)
        if self.shares is not None:
            raise Defect("elements that add up to a vector are no proof that it is outside")
        if not found.gap(target, d) > float(np.abs(d) @ self.allowed):
            raise Defect("the direction does not separate the vector from the set")
        self._check_distance(found.place(target, self.allowed).distance)

    def _check_balls(self, found: BallSet, target: Array) -> None:
        """Limits along directions of closed cells, or a direction, held against all cells."""
        if self.shares is not None:
            raise Defect("weights of pieces prove nothing where pieces bend both ways")
        if not self.inside:
            d = self._unit_direction(target)
            if not found.gap(target, d) > float(np.abs(d) @ self.allowed):
                raise Defect("the direction does not separate the vector from the set")
            self._check_distance(found.place(target, self.allowed).distance)
            return
        ends = self.directions
        if self.direction is not None or ends is None or ends.shape != self.elements.shape:
            raise Defect("what proves a vector inside is a direction for every element")
        if len(self.atoms) != len(ends) or not all(len(a) == 1 for a in self.atoms):
            raise Defect("there is not one cell for every element")
        for (cell,), own, element in zip(self.atoms, ends, self.elements, strict=True):
            way = found.way(cell, own)
            if way is None or not same_numbers(way.element, element):
                raise Defect("the elements are not limits along their directions")
        self._check_mean(target)

    def _check_shares(self, found: RegularSet, shares: Array, target: Array) -> None:
        atoms = found.outer.atoms
        if shares.shape != (len(self.elements), len(atoms.form)):
            raise Defect("there is not one weight for every piece")
        room = found.roundings(target)
        for own, element in zip(shares, self.elements, strict=True):
            if not atoms.are_shares(own):
                raise Defect("the weights of the pieces are not convex")
            if not bool((np.abs(found.element(own) - element) <= room).all()):
                raise Defect("the elements are not those of the set")

    def _unit_direction(self, target: Array) -> Array:
        d = self.direction
        if d is None or d.shape != target.shape:
            raise Defect("no direction separates the vector from the set")
        if len(self.elements) or len(self.weights) or self.atoms:
            raise Defect("elements that add up to a vector are no proof that it is outside")
        if not abs(float(np.linalg.norm(d)) - 1) <= SET_AGREES:
            raise Defect("the direction is not a unit vector")
        return d

    def _check_outside(self, limits: LimitSet, target: Array) -> None:
        d = self._unit_direction(target)
        if not separates(limits, target - np.sign(d) * self.allowed, d):
            raise Defect("the direction does not separate the vector from the set")
        self._check_distance(limits.place(target, self.allowed).distance)

    def _check_distance(self, found: float) -> None:
        same = found == self.distance or abs(found - self.distance) <= SET_AGREES * found
        if not same:
            raise Defect("the distance to the set is another one")


@dataclass(frozen=True, eq=False, repr=False)
class Membership:
    """Whether a vector is in the Clarke subdifferential, with proof.

    Attributes:
        certificate: The proof, of which everything else is read.
    """

    certificate: Certificate

    @property
    def found(self) -> Member:
        """What the certificate says: elements and weights, or a direction, and more."""
        argument = self.certificate.argument
        if not isinstance(argument, Member):
            raise InputError("A certificate of a gradient is no answer about a vector.")
        return argument

    @property
    def inside(self) -> bool | None:
        """True, False, or None where rounding, or selections that nobody settled, decide."""
        return self.found.inside

    @property
    def distance(self) -> float:
        """Euclidean distance to the set (to what is certain of it, if `inside` is not False)."""
        return self.found.distance

    @property
    def elements(self) -> Array:
        """(k, n) elements of the set whose convex combination is the vector, if inside.

        Limiting gradients, or means of the pieces' gradients where all pieces bend one way.
        """
        return self.found.elements

    @property
    def weights(self) -> Array:
        """(k,) their weights."""
        return self.found.weights

    @property
    def direction(self) -> Array | None:
        """(n,) a unit vector that separates, if outside."""
        return self.found.direction

    def __repr__(self) -> str:
        return f"Membership({self})"

    def __str__(self) -> str:
        if self.inside is None:
            return "undecided: not proved inside, and not proved outside"
        if not self.inside:
            return f"outside: {self.distance:.4g} away from the set"
        if self.found.regular:
            return "inside: a mean of the pieces' gradients, and all pieces bend one way"
        return f"inside: a convex combination of {len(self.weights)} limiting gradient(s)"

    def __bool__(self) -> bool:
        if self.inside is None:
            raise UnsupportedError(
                "Membership is undecided here: some selections could be neither proved nor "
                "excluded, or the vector is as far away as rounding may move it. Look at "
                ".inside, which is None."
            )
        return self.inside

    def verify(self, *, run: bool = True, seconds: float | None = None) -> bool:
        """Whether the certificate holds; as `Certificate.verify`."""
        return self.certificate.verify(run=run, seconds=seconds)


def _cells_of(limits: LimitSet, atoms: Sequence[Sequence[int]]) -> Iterator[list[Cell]]:
    """The cells, one of each component, that elements are made of."""
    for atom in atoms:
        yield [c.cells[i] for c, i in zip(limits.components, atom, strict=True)]


def direction_into(cells: Sequence[Cell]) -> Array | None:
    """A direction into all of some cells, of components whose rows are independent."""
    own = [c.direction for c in cells if c.direction is not None]
    if len(own) < len(cells):
        return None
    if len(own) == 1:
        return own[0]
    rows = np.concatenate([c.rows for c in cells])
    along = np.concatenate([c.rows @ d for c, d in zip(cells, own, strict=True)])
    found: Array = np.linalg.lstsq(rows, along, rcond=None)[0]
    return found if bool((rows @ found > 0).all()) else None


def shaped_like(
    point: Sequence[torch.Tensor], vector: Sequence[torch.Tensor] | torch.Tensor
) -> Tensors:
    """A vector that may come in one piece as one tensor for each variable, with own memory."""
    given = (vector,) if isinstance(vector, torch.Tensor) else vector
    parts = tuple(p.detach().clone() for p in given)
    if [p.shape for p in parts] == [p.shape for p in point]:
        return parts
    whole = torch.cat([p.reshape(-1) for p in parts])
    each = zip(whole.split([p.numel() for p in point]), point, strict=True)
    return tuple(v.reshape(p.shape) for v, p in each)


def recomputed_set(
    program: Program, *, exact: bool, regular: bool
) -> LimitSet | RegularSet | BallSet:
    """The set from nothing but the program, as a membership says that it was found.

    Raises:
        Defect: All pieces were said to bend one way, and they do not.
    """
    if not regular and norm_of_zero(program, fresh_generator()) is not None:
        return BallSet.of(program, fresh_generator(), set_limits())
    if not regular:
        return recomputed_limits(with_cones(program), replace(set_limits(), rounding=not exact))
    found = RegularSet.of(program, fresh_generator(), program.deadline)
    if found is None:
        raise Defect("the function bends both ways")
    return found


def allowed_for(
    limits: LimitSet | RegularSet | BallSet,
    vector: Sequence[torch.Tensor],
    asked: float | None,
) -> Array:
    """(n,) how far entries of a vector may be off, apart from roundings of the set itself."""
    target = flatten(vector)
    if asked is not None:
        sizes = np.maximum(np.abs(target), limits.spans(np.zeros(len(target))))
        own: Array = asked * sizes
        return own
    kinds = {p.dtype for p in vector if p.is_floating_point()} or {torch.float64}
    relative = ASKED_ROUNDINGS * max(unit_roundoff(d) for d in kinds)
    found: Array = relative * np.abs(target) + limits.roundings(target)
    return found
