"""`clarke.subdifferential`: the set itself, for small problems."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from clarke.constraints import flatten, unflatten
from clarke.decide.detached import numbers_read
from clarke.decide.extreme import vertex_indices
from clarke.decide.hazards import obstacle
from clarke.decide.limits import Limits
from clarke.decide.limitset import LimitSet, separates
from clarke.decide.refute import (
    distinct,
    enumerate_exactly,
    joint_direction,
    rounding_of_set,
)
from clarke.errors import BudgetError, InputError, UnsupportedError
from clarke.feasibility import find_witness, verify_membership
from clarke.numerics import ASKED_ROUNDINGS
from clarke.prepare import prepared
from clarke.steering import Program, analyse, select_along, selected_gradient, unit_roundoff

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    Array = NDArray[np.float64]
    Vector = Sequence[torch.Tensor] | torch.Tensor

_TOLERANCE = 1e-9
_LISTED = 20_000


@dataclass(frozen=True, eq=False)
class Membership:
    """Whether a vector is in the Clarke subdifferential, with proof.

    Attributes:
        inside: True, False, or None if selections that could be neither proved nor excluded
            decide, or rounding does.
        distance: Euclidean distance to the set (to what is certain, if inside is not False).
        elements: (k, n) limiting gradients whose convex combination is the vector, if inside.
        weights: (k,) their weights.
        direction: (n,) unit vector that separates, if outside.
        target: (n,) the vector asked about.
        allowed: (n,) how far each entry may be off and the vector still be a member.
    """

    inside: bool | None
    distance: float
    elements: Array
    weights: Array
    direction: Array | None
    target: Array
    allowed: Array
    _limits: LimitSet

    def __bool__(self) -> bool:
        if self.inside is None:
            raise UnsupportedError(
                "Membership is undecided here: some selections could be neither proved nor "
                "excluded, or the vector is as far away as rounding may move it. Look at "
                ".inside, which is None."
            )
        return self.inside

    def verify(self) -> bool:
        """Re-check the proof in exact rational arithmetic; False if there is none."""
        if self.inside is None:
            return False
        if self.inside:
            return bool(
                verify_membership(self.elements, self.weights, self.target, allowed=self.allowed)
            )
        if self.direction is None:
            return False
        nearest = self.target - np.sign(self.direction) * self.allowed
        return separates(self._limits, nearest, self.direction)


@dataclass(frozen=True, eq=False)
class Stationarity:
    """Whether zero is in the set, and where to go if the function still decreases.

    Attributes:
        stationary: Zero is a Clarke gradient (None: undecided).
        descent: One tensor per variable along which the function decreases to first order, or
            None if none was found.
        slope: The directional derivative along `descent`.
    """

    stationary: bool | None
    descent: tuple[torch.Tensor, ...] | None
    slope: float


def subdifferential(
    function: Callable[..., Any],
    inputs: Sequence[torch.Tensor] | torch.Tensor = (),
    *,
    wrt: Sequence[torch.Tensor] | None = None,
    limits: Limits | None = None,
    seed: int = 0,
) -> Subdifferential:
    """The Clarke subdifferential of ``function(*inputs)``.

    Args:
        function: Returns a tensor with one element.
        inputs: Its arguments.
        wrt: Leaves to differentiate with respect to; default as in `clarke.check`.
        limits: Budget of the enumeration.
        seed: Seed of the private random generator.

    Raises:
        InputError: The call cannot be answered.
        UnsupportedError: Selections of pieces do not describe the program here.
        BudgetError: Too many kinks, or too many selections; says how many.
    """
    with prepared(function, inputs, wrt) as run:
        analysis = analyse(run.trace, run.registry)
        blocked = obstacle(analysis, sees_values=False)
        if blocked is not None:
            raise UnsupportedError(f"The set cannot be computed: {blocked.reason}")
        read = numbers_read(run.trace)
        if read:
            raise UnsupportedError(
                f"The set cannot be computed: {read[0]}, and what that decides beside the point "
                "cannot be seen. Read it outside of the function."
            )
        program = Program(analysis, run.slots)
        generator = torch.Generator().manual_seed(seed)
        exact = enumerate_exactly(
            program, generator, limits or Limits(nodes=200_000, cells=10_000, kinks=256)
        )
    if not exact.limits.finite:
        raise UnsupportedError(
            "The set cannot be computed: autograd's gradient with fixed pieces is NaN or infinite "
            "here. clarke.check names the operation and, where there is one, a finite element."
        )
    return Subdifferential(program, exact.limits, run.gradient)


class Subdifferential:
    """A Clarke subdifferential as the hull of limiting gradients; see `subdifferential`.

    Vectors go in and come out as one tensor per variable; a single tensor stands for itself.
    """

    def __init__(
        self, program: Program, limits: LimitSet, gradient: tuple[torch.Tensor, ...]
    ) -> None:
        self._program = program
        self._limits = limits
        self._gradient = gradient

    @property
    def gradient(self) -> tuple[torch.Tensor, ...]:
        """What AD returned."""
        return self._gradient

    @property
    def limits(self) -> LimitSet:
        """The limiting gradients as sums of independent groups."""
        return self._limits

    @property
    def complete(self) -> bool:
        """Every selection was either proved active or excluded: the set is exactly known."""
        return all(cell.certain for c in self._limits.components for cell in c.cells)

    def bouligand(self) -> torch.Tensor:
        """(k, n) the elements of the Bouligand subdifferential, variables flattened in order.

        Raises:
            BudgetError: More than 20 000 combinations; ask `contains` or `min_norm` instead.
            UnsupportedError: The set is not completely known; see `found`.
        """
        self._require_complete()
        return self.found()

    def found(self) -> torch.Tensor:
        """(k, n) the limiting gradients that directions prove: all of them where `complete`.

        Raises:
            BudgetError: As `bouligand`.
        """
        limits = self._limits.certain()
        if limits is None:
            return torch.zeros(0, len(self._limits.base), dtype=torch.float64)
        return torch.from_numpy(distinct(self._listed(limits), self._rounding))

    def vertices(self) -> torch.Tensor:
        """(k, n) the vertices of the Clarke subdifferential, variables flattened in order.

        Raises:
            BudgetError: As `bouligand`.
            UnsupportedError: As `bouligand`.
        """
        points = self.bouligand().numpy()
        return torch.from_numpy(points[vertex_indices(points, _TOLERANCE)])

    def contains(self, vector: Vector, *, tolerance: float | None = None) -> Membership:
        """Whether a vector is in the set, with a certificate either way.

        Args:
            vector: One tensor per variable, or a single tensor.
            tolerance: Error of an entry that counts as rounding, relative to the larger of that
                entry and its largest value in the set. By default 16 roundings of the vector's
                type, and as much as rounding may leave of what the set is computed from.
        """
        target = self._flat(vector)
        sizes = np.maximum(np.abs(target), self._limits.spans(np.zeros(len(target))))
        relative = _rounding_of(vector) if tolerance is None else tolerance
        allowed = relative * (np.abs(target) if tolerance is None else sizes)
        if tolerance is not None:
            return self._contains(target, allowed)
        found = self._contains(target, allowed + self._limits.roundings(target))
        # What cancels in the set's computation is looked for where it could matter.
        return found if found.inside else self._contains(target, allowed + self._rounding)

    def _contains(self, target: Array, allowed: Array) -> Membership:
        certain = self._limits.certain()
        near = None if certain is None else certain.place(target, allowed)
        if certain is not None and near is not None and near.inside:
            elements = np.stack([certain.element(a) for a in near.atoms])
            weights = np.asarray(near.weights)
            distance = float(np.linalg.norm(weights @ elements - target))
            return Membership(
                True, distance, elements, weights, None, target, allowed, self._limits
            )
        far = self._limits.place(target, allowed)
        distance = far.distance if near is None or far.inside is False else near.distance
        nothing = np.zeros((0, len(target)))
        return Membership(
            None if far.direction is None else False,
            distance,
            nothing,
            np.zeros(0),
            far.direction,
            target,
            allowed,
            self._limits,
        )

    def min_norm(self) -> tuple[torch.Tensor, ...]:
        """The element of smallest Euclidean norm, one tensor per variable.

        Raises:
            UnsupportedError: The set is not completely known.
        """
        self._require_complete()
        near = self._limits.nearest(np.zeros(len(self._limits.base)))
        return unflatten(near.point, self._program.point)

    def directional(self, direction: Vector) -> float:
        """The directional derivative ``lim (f(w + t d) - f(w)) / t``, t falling to zero."""
        parts = unflatten(self._flat(direction), self._program.point)
        choices, _ = select_along(self._program, parts)
        return float(flatten(selected_gradient(self._program, choices)) @ flatten(parts))

    def is_stationary(self) -> Stationarity:
        """Whether zero is in the set; and a direction of first-order descent if there is one."""
        zero = np.zeros(len(self._limits.base))
        inside = self.contains(unflatten(zero, self._program.point)).inside
        best: tuple[float, Array] | None = None
        for direction in self._descent_candidates():
            norm = float(np.linalg.norm(direction))
            if norm == 0:
                continue
            unit = direction / norm
            slope = self.directional(unflatten(unit, self._program.point))
            if best is None or slope < best[0]:
                best = (slope, unit)
        if best is None or best[0] >= -float(np.abs(best[1]) @ self._rounding):
            return Stationarity(inside, None, 0.0)
        return Stationarity(inside, unflatten(best[1], self._program.point), best[0])

    def plot(self, path: str | None = None) -> Any:
        """Draw the set in two or three dimensions with AD's gradient (needs the extra `plot`).

        Args:
            path: Where to save the picture; None only returns the figure.

        Raises:
            InputError: The variables have another number of entries than 2 or 3.
        """
        from clarke.report.picture import draw_set

        size = len(self._limits.base)
        if size not in (2, 3):
            raise InputError(f"A picture needs 2 or 3 variables, not {size}. Pass fewer in `wrt`.")
        figure = draw_set(self.vertices().numpy(), flatten(self._gradient))
        if path is not None:
            figure.savefig(path)
        return figure

    # ---------------------------------------------------------------- private

    def _flat(self, vector: Vector) -> Array:
        parts = [vector] if isinstance(vector, torch.Tensor) else list(vector)
        flat = flatten(parts)
        if len(flat) != len(self._limits.base):
            raise InputError(
                f"The vector has {len(flat)} entries; the variables have {len(self._limits.base)}."
            )
        return flat

    @cached_property
    def _rounding(self) -> Array:
        """(n,) how far rounding alone may have moved the entries of gradients in the set."""
        return rounding_of_set(self._program, self._limits)

    @staticmethod
    def _listed(limits: LimitSet) -> Array:
        if limits.count > _LISTED:
            raise BudgetError(
                f"The set has {limits.count} combinations of pieces, too many to list. contains(), "
                "min_norm() and directional() answer without listing them."
            )
        return limits.elements()

    def _require_complete(self) -> None:
        if not self.complete:
            raise UnsupportedError(
                "The set is known only from below: some selections could be neither proved nor "
                "excluded (their switching functions agree to first order). .found() lists what "
                "is proved, and .contains() answers where that decides."
            )

    def _descent_candidates(self) -> list[Array]:
        """Steepest descent of the hull, and for every cell a direction in it that goes down."""
        limits = self._limits.certain()
        if limits is None:
            return []
        found = [-limits.nearest(np.zeros(len(limits.base))).point]
        if limits.count > _LISTED:
            # Component by component: the cell with the steepest own descent.
            direction, _ = joint_direction(
                [
                    min(
                        zip(c.cells, c.changes, strict=True),
                        key=lambda pair: _slope(pair[0].direction, pair[1]),
                    )[0]
                    for c in limits.components
                ],
                len(limits.base),
            )
            return [*found, direction]
        if len(limits.components) > 1:
            cells = [c.cells for c in limits.components]
            for atom in np.ndindex(*[len(c) for c in cells]):
                picked = [c[i] for c, i in zip(cells, atom, strict=True)]
                direction, rows = joint_direction(picked, len(limits.base))
                found += _downhill(rows, limits.element(atom), direction)
            return found
        for cell in limits.components[0].cells:
            if cell.direction is not None:
                found += _downhill(cell.rows, cell.gradient, cell.direction)
        return found


def _rounding_of(vector: Vector) -> float:
    parts = [vector] if isinstance(vector, torch.Tensor) else list(vector)
    kinds = {p.dtype for p in parts if p.is_floating_point()} or {torch.float64}
    return ASKED_ROUNDINGS * max(unit_roundoff(d) for d in kinds)


def _slope(direction: Array | None, gradient: Array) -> float:
    return float("inf") if direction is None else float(direction @ gradient)


def _downhill(rows: Array, gradient: Array, inside: Array) -> list[Array]:
    """A direction in a cell along which its own gradient descends, if there is one."""
    if float(gradient @ inside) < 0:
        return [inside]
    stacked = np.concatenate([rows, -gradient[None, :]])
    if not np.any(gradient):
        return []
    outcome = find_witness(stacked)
    return [] if outcome.direction is None else [outcome.direction]
