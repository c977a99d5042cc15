"""Whether a vector is in the Clarke subdifferential, with a proof either way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from clarke.constraints import flatten
from clarke.decide.limitset import separates
from clarke.decide.refute import recomputed_limits
from clarke.decide.rounding import rounding_noise
from clarke.decide.tolerance import REPLAY_SPACING
from clarke.decide.verification import Defect, Recomputed, same_numbers
from clarke.errors import UnsupportedError
from clarke.feasibility import verify_membership
from clarke.numerics import SET_AGREES
from clarke.steering import Program, select_along, selected_gradient

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from clarke.decide.limitset import LimitSet

    Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Membership(Recomputed):
    """Whether a vector is in the Clarke subdifferential, with proof.

    Attributes:
        inside: True, False, or None if selections that could be neither proved nor excluded
            decide, or rounding does.
        distance: Euclidean distance to the set (to what is certain, if inside is not False).
        elements: (k, n) limiting gradients whose convex combination is the vector, if inside.
        weights: (k,) their weights.
        direction: (n,) unit vector that separates, if outside.
        target: (n,) the vector asked about.
        tolerance: Relative distance at which it counts as a member.
        noise: (n,) absolute error of each entry that counts as rounding as well.
        atoms: For each element, the selection in each group of kinks, among those proved.
        vector: The vector as it was given, one tensor per variable.
        asked: The tolerance that the caller named, if any.
        program: What ran.
        point: Where.
        seal: Binds all of this.
    """

    inside: bool | None
    distance: float
    elements: Array
    weights: Array
    direction: Array | None
    target: Array
    tolerance: float
    noise: Array
    atoms: tuple[tuple[int, ...], ...]
    vector: tuple[torch.Tensor, ...]
    asked: float | None
    program: Program
    point: tuple[torch.Tensor, ...]
    seal: str = ""

    def __bool__(self) -> bool:
        if self.inside is None:
            raise UnsupportedError(
                "Membership is undecided here: some selections could be neither proved nor "
                "excluded, or the vector is as far away as rounding may move it. Look at "
                ".inside, which is None."
            )
        return self.inside

    def recompute(self, program: Program, *, run: bool) -> None:  # noqa: ARG002 - nothing to run
        """Compute the set again and check the proof in exact arithmetic."""
        if self.inside is None:
            raise Defect("nothing was proved")
        size = sum(p.numel() for p in program.point)
        if self.target.shape != (size,) or not same_numbers(flatten(self.vector), self.target):
            raise Defect("the vector is not the one that was asked about")
        allowed = rounding_of(self.vector) if self.asked is None else self.asked
        if self.tolerance != allowed:
            raise Defect("the tolerance is not that of the vector's type")
        if self.noise.shape != self.target.shape:
            raise Defect("there is not one bound for every entry")
        if self.noise.any() and not same_noise(self.noise, noise_of(program)):
            raise Defect("more counts as rounding than the program can leave")
        limits = recomputed_limits(program)
        if self.inside:
            self._check_inside(limits.certain())
        else:
            self._check_outside(limits)

    def _check_inside(self, certain: LimitSet | None) -> None:
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
        exact = self.weights @ self.elements
        near = np.abs(self.target - exact) <= self.noise
        target = np.where(near, exact, self.target)
        if not verify_membership(self.elements, self.weights, target, self.tolerance):
            raise Defect("the elements do not add up to the vector")
        self._check_distance(float(np.linalg.norm(exact - self.target)))

    def _check_outside(self, limits: LimitSet) -> None:
        d = self.direction
        if d is None or d.shape != self.target.shape:
            raise Defect("no direction separates the vector from the set")
        if len(self.elements) or len(self.weights) or self.atoms:
            raise Defect("elements that add up to a vector are no proof that it is outside")
        if not abs(float(np.linalg.norm(d)) - 1) <= SET_AGREES:
            raise Defect("the direction is not a unit vector")
        if not separates(limits, self.target, d):
            raise Defect("the direction does not separate the vector from the set")
        bound = self.tolerance * limits.scale(self.target)
        least = bound
        if self.noise.any():
            least = float(np.abs(d) @ np.maximum(self.noise, bound))
        gap = float(d @ self.target - d @ limits.element(limits.extreme(d)))
        if not gap > (1 - SET_AGREES) * least:
            raise Defect("the vector is no further from the set than rounding may move it")
        self._check_distance(limits.nearest(self.target).distance)

    def _check_distance(self, found: float) -> None:
        if not abs(found - self.distance) <= SET_AGREES * found:
            raise Defect("the distance to the set is another one")


def rounding_of(vector: Sequence[torch.Tensor]) -> float:
    """Relative distance that counts as rounding in a vector of this type."""
    kinds = {p.dtype for p in vector if p.is_floating_point()} or {torch.float64}
    return max(1e-7, 16 * max(torch.finfo(d).eps for d in kinds))


def noise_of(program: Program) -> Array:
    """(n,) how far rounding alone may have moved the entries of gradients in the set.

    By AD's selection and those along a line: a piece of slope zero tells nothing of another's.
    """
    generator = torch.Generator().manual_seed(0)
    line = [torch.randn(p.shape, generator=generator, dtype=torch.float64) for p in program.point]
    selections: list[dict[int, torch.Tensor] | None] = [None]
    selections += [select_along(program, tuple(s * p for p in line))[0] for s in (1, -1)]
    sizes = [p.numel() for p in program.point]
    found = [
        rounding_noise(
            program,
            selected_gradient(program, chosen, program.point),
            chosen,
            epsilon=REPLAY_SPACING,
        )
        for chosen in selections
    ]
    return np.repeat(np.max(found, axis=0), sizes)


def same_noise(claimed: Array, allowed: Array) -> bool:
    """Whether bounds are those that follow from the program, up to the rounding of bounds."""
    return bool((np.abs(claimed - allowed) <= SET_AGREES * allowed).all())
