"""`clarke.subdifferential`: the set itself, for small problems."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from clarke.constraints import flatten, resolve, unflatten
from clarke.deadline import UNLIMITED, Deadline
from clarke.decide.detached import declared_rate, numbers_read
from clarke.decide.extreme import vertex_indices
from clarke.decide.hazards import obstacle
from clarke.decide.limits import Limits
from clarke.decide.limitset import LimitSet
from clarke.decide.membership import Membership, allowed_for
from clarke.decide.refute import (
    distinct,
    enumerate_exactly,
    joint_direction,
    rounding_of_set,
)
from clarke.errors import BudgetError, InputError, OutOfTimeError, UnsupportedError
from clarke.feasibility import find_witness
from clarke.numerics import (
    SET_SECONDS,
    VERTEX_TOLERANCE,
)
from clarke.prepare import prepared
from clarke.steering import Program, analyse, select_along, selected_gradient
from clarke.undo import leaves_no_trace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    Array = NDArray[np.float64]
    Vector = Sequence[torch.Tensor] | torch.Tensor

_LISTED = 20_000


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


@leaves_no_trace
def subdifferential(
    function: Callable[..., Any],
    inputs: Sequence[torch.Tensor] | torch.Tensor = (),
    *,
    wrt: Sequence[torch.Tensor] | None = None,
    limits: Limits | None = None,
    seed: int = 0,
    seconds: float | None = SET_SECONDS,
) -> Subdifferential:
    """The Clarke subdifferential of ``function(*inputs)``.

    Args:
        function: Returns a tensor with one element.
        inputs: Its arguments.
        wrt: Leaves to differentiate with respect to; default as in `clarke.check`.
        limits: Budget of the enumeration.
        seed: Seed of the private random generator.
        seconds: Time limit of clarke's own work, without the first run of the function; None for
            no limit.

    Raises:
        InputError: The call cannot be answered.
        UnsupportedError: Selections of pieces do not describe the program here.
        BudgetError: Too many kinks, or too many selections; says how many.
        OutOfTimeError: No answer in time (a `BudgetError`); says how far it got.
    """
    with prepared(function, inputs, wrt, seconds) as run:
        analysis = analyse(run.trace, run.registry, run.deadline)
        analysis = resolve(analysis, run.registry, run.slots, run.deadline)
        blocked = obstacle(analysis, sees_values=False)
        if blocked is not None:
            raise UnsupportedError(f"The set cannot be computed: {blocked.reason}")
        read = numbers_read(run.trace)
        if read:
            raise UnsupportedError(
                f"The set cannot be computed: {read[0]}, and what that decides beside the point "
                "cannot be seen. Read it outside of the function."
            )
        program = Program(analysis, run.slots, deadline=run.deadline)
        declared = declared_rate(analysis, run.slots, run.values, run.deadline)
        if declared is not None:
            raise UnsupportedError(f"The set cannot be computed: {declared.reason}")
        generator = torch.Generator().manual_seed(seed)
        exact = enumerate_exactly(
            program, generator, limits or Limits(nodes=200_000, cells=10_000, kinks=256)
        )
    if not exact.limits.finite:
        raise UnsupportedError(
            "The set cannot be computed: autograd's gradient with fixed pieces is NaN or infinite "
            "here. clarke.check names the operation and, where there is one, a finite element."
        )
    return Subdifferential(program.within(UNLIMITED), exact.limits, run.gradient)


class Subdifferential:
    """A Clarke subdifferential as the hull of limiting gradients; see `subdifferential`.

    Vectors go in and come out as one tensor per variable; a single tensor stands for itself.
    What may take long takes `seconds`, its time limit (None: no limit), and raises
    `OutOfTimeError` (a `BudgetError`) when it ends.
    """

    def __init__(
        self, program: Program, limits: LimitSet, gradient: tuple[torch.Tensor, ...]
    ) -> None:
        self._program = program
        self._limits = limits
        self._gradient = gradient

    def __repr__(self) -> str:
        found = f"combinations of pieces={self._limits.count}"
        return f"Subdifferential({found}, complete={self.complete}, AD={self._gradient})"

    @property
    def gradient(self) -> tuple[torch.Tensor, ...]:
        """What AD returned."""
        return self._gradient

    @property
    def program(self) -> Program:
        """What ran."""
        return self._program

    @property
    def limits(self) -> LimitSet:
        """The limiting gradients as sums of independent groups."""
        return self._limits

    @property
    def complete(self) -> bool:
        """Every selection was either proved active or excluded: the set is exactly known."""
        return all(cell.certain for c in self._limits.components for cell in c.cells)

    @leaves_no_trace
    def bouligand(self, *, seconds: float | None = SET_SECONDS) -> torch.Tensor:
        """(k, n) the elements of the Bouligand subdifferential, variables flattened in order.

        Raises:
            BudgetError: More than 20 000 combinations; ask `contains` or `min_norm` instead.
            UnsupportedError: The set is not completely known; see `found`.
        """
        self._require_complete()
        return self.found(seconds=seconds)

    @leaves_no_trace
    def found(self, *, seconds: float | None = SET_SECONDS) -> torch.Tensor:
        """(k, n) the limiting gradients that directions prove: all of them where `complete`.

        Raises:
            BudgetError: As `bouligand`.
        """
        with Deadline.after(seconds) as deadline:
            return torch.from_numpy(self._found(deadline))

    def _found(self, deadline: Deadline) -> Array:
        limits = self._limits.certain()
        if limits is None:
            return np.zeros((0, len(self._limits.base)))
        return distinct(self._listed(limits), self._rounding, deadline)

    @leaves_no_trace
    def vertices(self, *, seconds: float | None = SET_SECONDS) -> torch.Tensor:
        """(k, n) the vertices of the Clarke subdifferential, variables flattened in order.

        Raises:
            BudgetError: As `bouligand`.
            UnsupportedError: As `bouligand`.
        """
        self._require_complete()
        with Deadline.after(seconds) as deadline:
            points = self._found(deadline)
            return torch.from_numpy(points[vertex_indices(points, VERTEX_TOLERANCE, deadline)])

    @leaves_no_trace
    def contains(
        self,
        vector: Vector,
        *,
        tolerance: float | None = None,
        seconds: float | None = SET_SECONDS,
    ) -> Membership:
        """Whether a vector is in the set, with a certificate either way.

        Args:
            vector: One tensor per variable, or a single tensor.
            tolerance: Error of an entry that counts as rounding, relative to the larger of that
                entry and its largest value in the set. By default 16 roundings of the vector's
                type, and as much as rounding may leave of what the set is computed from.
            seconds: Time limit.
        """
        target = self._flat(vector)
        parts = (vector,) if isinstance(vector, torch.Tensor) else tuple(vector)
        allowed = allowed_for(self._limits, parts, target, tolerance)
        with Deadline.after(seconds) as deadline:
            found = self._contains(target, allowed, deadline)
            if not found.inside and tolerance is None:
                # What cancels in the set's computation is looked for where it could matter.
                found = self._contains(target, allowed + self._rounding, deadline)
            parts = tuple(p.detach().clone() for p in parts)
            return replace(found, vector=parts, asked=tolerance).sealed()

    def _contains(self, target: Array, allowed: Array, deadline: Deadline) -> Membership:
        certain = self._limits.certain()
        near = None if certain is None else certain.place(target, allowed, deadline)
        if certain is not None and near is not None and near.inside:
            elements = np.stack([certain.element(a) for a in near.atoms])
            weights = np.asarray(near.weights)
            distance = float(np.linalg.norm(weights @ elements - target))
            rest = (target, allowed, near.atoms, (), None, self._program, self._program.point)
            return Membership(True, distance, elements, weights, None, *rest)
        far = self._limits.place(target, allowed, deadline)
        distance = far.distance if near is None or far.inside is False else near.distance
        return Membership(
            None if far.direction is None else False,
            distance,
            np.zeros((0, len(target))),
            np.zeros(0),
            far.direction,
            target,
            allowed,
            (),
            (),
            None,
            self._program,
            self._program.point,
        )

    @leaves_no_trace
    def min_norm(self, *, seconds: float | None = SET_SECONDS) -> tuple[torch.Tensor, ...]:
        """The element of smallest Euclidean norm, one tensor per variable.

        Raises:
            UnsupportedError: The set is not completely known.
        """
        self._require_complete()
        with Deadline.after(seconds) as deadline:
            near = self._limits.nearest(np.zeros(len(self._limits.base)), deadline)
        return unflatten(near.point, self._program.point)

    @leaves_no_trace
    def directional(self, direction: Vector, *, seconds: float | None = SET_SECONDS) -> float:
        """The directional derivative ``lim (f(w + t d) - f(w)) / t``, t falling to zero."""
        with Deadline.after(seconds) as deadline:
            return self._slope_along(self._flat(direction), deadline)

    @leaves_no_trace
    def is_stationary(self, *, seconds: float | None = SET_SECONDS) -> Stationarity:
        """Whether zero is in the set; and a direction of first-order descent if there is one.

        Of many cells as many are looked at for a direction as time allows.
        """
        zero = np.zeros(len(self._limits.base))
        best: tuple[float, Array] | None = None
        with Deadline.after(seconds) as deadline:
            at = unflatten(zero, self._program.point)
            inside = self.contains(at, seconds=None if seconds is None else deadline.left).inside
            with suppress(OutOfTimeError):
                for direction in self._descent_candidates(deadline):
                    norm = float(np.linalg.norm(direction))
                    if norm == 0:
                        continue
                    unit = direction / norm
                    slope = self._slope_along(unit, deadline)
                    if best is None or slope < best[0]:
                        best = (slope, unit)
        if best is None or best[0] >= -float(np.abs(best[1]) @ self._rounding):
            return Stationarity(inside, None, 0.0)
        return Stationarity(inside, unflatten(best[1], self._program.point), best[0])

    def _slope_along(self, direction: Array, deadline: Deadline) -> float:
        program = self._program.within(deadline)
        choices, _ = select_along(program, unflatten(direction, program.point))
        return float(flatten(selected_gradient(program, choices)) @ direction)

    @leaves_no_trace
    def plot(self, path: str | None = None, *, seconds: float | None = SET_SECONDS) -> Any:
        """Draw the set in two or three dimensions with AD's gradient (needs the extra `plot`).

        Args:
            path: Where to save the picture; None only returns the figure.
            seconds: Time limit of computing what is drawn.

        Raises:
            InputError: The variables have another number of entries than 2 or 3.
        """
        from clarke.report.picture import draw_set

        size = len(self._limits.base)
        if size not in (2, 3):
            raise InputError(f"A picture needs 2 or 3 variables, not {size}. Pass fewer in `wrt`.")
        figure = draw_set(self.vertices(seconds=seconds).numpy(), flatten(self._gradient))
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

    def _descent_candidates(self, deadline: Deadline) -> Iterator[Array]:
        """Steepest descent of the hull, and for every cell a direction in it that goes down."""
        limits = self._limits.certain()
        if limits is None:
            return
        yield -limits.nearest(np.zeros(len(limits.base)), deadline).point
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
            yield direction
        elif len(limits.components) > 1:
            cells = [c.cells for c in limits.components]
            for atom in np.ndindex(*[len(c) for c in cells]):
                picked = [c[i] for c, i in zip(cells, atom, strict=True)]
                direction, rows = joint_direction(picked, len(limits.base))
                yield from _downhill(rows, limits.element(atom), direction, deadline)
        else:
            for cell in limits.components[0].cells:
                if cell.direction is not None:
                    yield from _downhill(cell.rows, cell.gradient, cell.direction, deadline)


def _slope(direction: Array | None, gradient: Array) -> float:
    return float("inf") if direction is None else float(direction @ gradient)


def _downhill(rows: Array, gradient: Array, inside: Array, deadline: Deadline) -> list[Array]:
    """A direction in a cell along which its own gradient descends, if there is one."""
    if float(gradient @ inside) < 0:
        return [inside]
    stacked = np.concatenate([rows, -gradient[None, :]])
    if not np.any(gradient):
        return []
    outcome = find_witness(stacked, deadline=deadline)
    return [] if outcome.direction is None else [outcome.direction]
