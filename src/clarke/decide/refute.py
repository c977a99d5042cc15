"""The exact answer: all limiting gradients, membership in their hull, or separation from it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from clarke.constraints import build_rows, flatten, unflatten
from clarke.deadline import UNLIMITED, rung
from clarke.decide.components import enumerate_components
from clarke.decide.elements import distinct
from clarke.decide.enumerate import Enumeration
from clarke.decide.guards import lipschitz_around_guards
from clarke.decide.limits import Limits
from clarke.decide.limitset import Component, LimitSet, separates
from clarke.decide.live import Live, find_live
from clarke.decide.meeting import check_meeting, only_branches
from clarke.decide.model import Witness
from clarke.decide.normal import outer_estimate
from clarke.decide.rounding import allowed_error, rounding_of_selections
from clarke.decide.verification import (
    Defect,
    WithoutSelection,
    fresh_generator,
    is_replayed,
)
from clarke.errors import BudgetError
from clarke.feasibility import find_witness, verify_witness
from clarke.numerics import (
    GRANTED,
    QUOTIENT_RADII,
    QUOTIENT_ROUNDINGS,
    QUOTIENT_SHARE,
    QUOTIENT_STEPS,
    REFUTED_STEPS,
    SAME_GRADIENT,
    SET_AGREES,
    VERIFIED_CELLS,
    VERIFIED_KINKS,
    VERIFIED_NODES,
)
from clarke.steering import Pieces, natural_gradient, selected_gradient

if TYPE_CHECKING:
    from collections.abc import Container, Sequence

    from numpy.typing import NDArray

    from clarke.constraints import Relevance
    from clarke.decide.cells import Cell
    from clarke.decide.outer import Outer
    from clarke.decide.regularset import RegularSet
    from clarke.steering import Program, Run

    Array = NDArray[np.float64]

_SAMPLES = 8
_STEPS = tuple(zip(REFUTED_STEPS[::2], REFUTED_STEPS[1::2], strict=True))


@dataclass(frozen=True, eq=False)
class Exact:
    """The selections around a point.

    Attributes:
        limits: Gradients of all selections that could not be excluded.
        live: The kinks that were branched on.
    """

    limits: LimitSet
    live: Live


class _Rate(NamedTuple):
    """A difference quotient, and how far roundings may have moved it."""

    value: float
    noise: float


@dataclass(frozen=True, eq=False)
class Refutation(WithoutSelection):
    """Proof that a gradient is not a Clarke gradient.

    Attributes:
        program: What ran.
        point: The point w.
        gradient: (n,) AD's gradient.
        replayed: The recorded operations give this gradient, in float64. If not, it is the one that
            was handed to the judge, and only that it is none of the program's is proved.
        limits: The gradients of all selections that could not be excluded.
        direction: (n,) unit vector with ``<direction, g> > <direction, p>`` for every element p.
        gap: The smallest difference.
        distance: Distance of g to the hull of the elements.
        allowed: (n,) how far every entry may be off; the direction separates all such vectors.
        part: The touched kinks that were enumerated, where only the entries that depend on them
            are refuted; the set's elements are zero in all others. Empty for the whole.
        seal: Binds all of this; see `clarke.decide.verification.seal_of`.
    """

    program: Program
    point: tuple[torch.Tensor, ...]
    gradient: Array
    replayed: bool
    limits: LimitSet
    direction: Array
    gap: float
    distance: float
    allowed: Array
    part: tuple[int, ...] = ()
    seal: str = ""

    @property
    def points(self) -> Array:
        """(k, n) the distinct elements, for sets of up to 4096 combinations."""
        if self.limits.count > 4096:
            return np.zeros((0, len(self.gradient)))
        points = self.limits.elements()
        return points[distinct(points, self.allowed, UNLIMITED)]

    def recompute(self, program: Program, *, run: bool) -> None:
        """Enumerate again, with every exclusion; separate in exact arithmetic."""
        if self.gradient.shape != (sum(p.numel() for p in program.point),):
            raise Defect("the gradient has another shape than the variables")
        if self.replayed != is_replayed(program, self.gradient):
            raise Defect("AD's gradient of the program is not the one that is refuted")
        entries = np.ones(len(self.gradient), dtype=bool)
        if self.part:
            entries = part_entries(program, self.part)
            live = find_live(program, fresh_generator())
            if live.branches:
                raise Defect("a step has no parts that can be judged apart")
            limits = part_limits(program, live, self.part, entries, fresh_generator(), verified())
        else:
            limits = recomputed_limits(program)
        check_same(self.limits, limits)
        self._check_allowed(program, limits, entries)
        if bool((self.direction[~entries] != 0).any()):
            raise Defect("the direction leaves the part that is refuted")
        own = replace(self, program=program, limits=limits)
        own._check_separation(np.where(entries, self.gradient, 0.0))  # noqa: SLF001 - a copy of this one
        if run and not own.beside_on_the_other_side():
            raise Defect("gradients at nearby points are not on the other side")

    def _check_allowed(
        self, program: Program, limits: LimitSet, entries: NDArray[np.bool_]
    ) -> None:
        least = allowed_error(program, replayed=self.replayed) + rounding_of_set(program, limits)
        shape = self.allowed.shape == self.gradient.shape
        if not shape or not bool((self.allowed >= np.where(entries, least, 0.0) / GRANTED).all()):
            raise Defect("less counts as rounding than the program can leave")

    def _check_separation(self, gradient: Array) -> None:
        if self.direction.shape != self.gradient.shape:
            raise Defect("the direction has another shape than the gradient")
        if not abs(float(np.linalg.norm(self.direction)) - 1) <= SAME_GRADIENT:
            raise Defect("the direction is not a unit vector")
        nearest = gradient - np.sign(self.direction) * self.allowed
        if not separates(self.limits, nearest, self.direction, self.program.deadline):
            raise Defect("the direction does not separate the gradient from the set")
        far = self.limits.element(self.limits.extreme(self.direction))
        gap = float(self.direction @ gradient - self.direction @ far)
        distance = self.limits.place(gradient, self.allowed, self.program.deadline).distance
        if not abs(gap - self.gap) <= SET_AGREES * gap:
            raise Defect("the gap is another one")
        if not abs(distance - self.distance) <= SET_AGREES * distance:
            raise Defect("the distance to the set is another one")

    def own_defects(self, *, run: bool) -> tuple[str, ...]:
        """What the judge asks of its own proof: separation, and gradients beside the point."""
        if not separates(self.limits, self.gradient, self.direction, self.program.deadline):
            return ("the direction does not separate the gradient from the set",)
        if run and not self.beside_on_the_other_side():
            return ("gradients at nearby points are not on the other side",)
        return ()

    def beside_on_the_other_side(self) -> bool:
        """Gradients beside the point, or rates of values there, must be on the set's side."""
        return self.nearby_on_the_other_side() or self._values_on_the_other_side()

    def nearby_on_the_other_side(self) -> bool:
        """Gradients just beside the point must be separated from g as the set is."""
        return gradients_on_the_other_side(
            self.program, self.gradient, self.direction, 0.25 * self.gap
        )

    def _values_on_the_other_side(self) -> bool:
        """The function's own values near the point must change as the set says, not as g says.

        This asks no derivative formula: at points nearby the rate along `direction` is taken from
        values alone, with two steps that must agree.
        """
        generator = torch.Generator().manual_seed(1)
        limit = float(self.direction @ self.gradient)
        along = unflatten(self.direction, self.program.point)
        for _ in range(_SAMPLES):
            ray = [torch.randn(p.shape, dtype=p.dtype, generator=generator) for p in along]
            for radius in QUOTIENT_RADII:
                near = [p + radius * d for p, d in zip(self.program.point, ray, strict=True)]
                rates = [self._rate(near, along, radius * s) for s in QUOTIENT_STEPS]
                allowed = QUOTIENT_SHARE * self.gap
                if any(not r.noise <= allowed for r in rates):
                    return False
                if not abs(rates[0].value - rates[1].value) <= allowed:
                    return False
                if not limit - rates[1].value > 0.25 * self.gap:
                    return False
        return True

    def _rate(
        self, near: Sequence[torch.Tensor], along: Sequence[torch.Tensor], step: float
    ) -> _Rate:
        ends = [
            [p + sign * step * d for p, d in zip(near, along, strict=True)] for sign in (1.0, -1.0)
        ]
        runs = [self.program.run(tuple(e), pieces=Pieces.NATURAL, grad=False) for e in ends]
        high, low = (float(r.output) for r in runs)
        # Further results serve backward passes, and may hold memory that was never written to.
        first = {op.outputs[0] for op in self.program.analysis.recorded.ops if op.outputs}
        size = max(largest_value(r, first) for r in runs)
        noise = QUOTIENT_ROUNDINGS * torch.finfo(torch.float64).eps * size / step
        return _Rate((high - low) / (2 * step), noise)


def gradients_on_the_other_side(
    program: Program, gradient: Array, direction: Array, gap: float
) -> bool:
    """Whether gradients just beside the point are separated from another by more than a gap.

    At a distance that rounding loses they are that one itself, and prove nothing.
    """
    limit = float(direction @ gradient)

    def separated(steps: tuple[float, ...]) -> bool:
        generator = torch.Generator().manual_seed(1)
        for _ in range(_SAMPLES):
            ray = [torch.randn(p.shape, dtype=p.dtype, generator=generator) for p in program.point]
            for step in steps:
                moved = [p + step * d for p, d in zip(program.point, ray, strict=True)]
                value = float(direction @ flatten(natural_gradient(program, moved)))
                if not limit - value > gap:
                    return False
        return True

    return any(separated(steps) for steps in _STEPS)


def largest_value(run: Run, slots: Container[int | None]) -> float:
    """The largest finite number in some tensors of a replay: the measure of its roundings."""
    found = [
        float(torch.nan_to_num(t.detach().abs(), 0.0, 0.0, 0.0).max())
        for s, t in run.tensors.items()
        if s in slots and t.is_floating_point() and t.numel()
    ]
    return max(found, default=1.0)


def rounding_of_set(program: Program, limits: LimitSet | RegularSet) -> Array:
    """(n,) how far rounding alone may have moved entries of the set's elements."""
    found: Array = rounding_of_selections(program) + limits.roundings(np.zeros(limits.size))
    return found


@rung("enumerating all selections")
def enumerate_exactly(
    program: Program,
    generator: torch.Generator,
    limits: Limits | None = None,
    live: Live | None = None,
) -> Exact:
    """Enumerate the selections around the program's point.

    Args:
        program: The program.
        generator: Private randomness.
        limits: Budget.
        live: The kinks to branch on, if they are known.

    Raises:
        BudgetError: The problem is too large, or selections do not describe it.
    """
    live = find_live(program, generator) if live is None else live
    found = enumerate_components(program, live, generator, limits)
    if live.branches:
        check_meeting(program, [c for part in found.components for c in part.cells])
    return Exact(found, live)


def lipschitz_around_steps(program: Program, relevance: Relevance) -> bool:
    """Whether guards and branches alone jump, and not the function around them."""
    if lipschitz_around_guards(program, relevance):
        return True
    if not only_branches(program, relevance):
        return False
    try:
        recomputed_limits(program)
    except BudgetError:
        return False
    return True


def recomputed_limits(program: Program, limits: Limits | None = None) -> LimitSet:
    """All selections that cannot be excluded, enumerated again for a verification.

    Args:
        program: The program.
        limits: Budget, if another than a verdict's.

    Raises:
        BudgetError: That is out of reach.
    """
    return enumerate_exactly(program, fresh_generator(), limits or verified()).limits


def verified() -> Limits:
    """How much a verification enumerates."""
    return Limits(nodes=int(VERIFIED_NODES), cells=int(VERIFIED_CELLS), kinks=int(VERIFIED_KINKS))


def part_entries(program: Program, kinks: Sequence[int]) -> NDArray[np.bool_]:
    """(n,) which entries of a gradient depend on some kinks, and on no others.

    Raises:
        Defect: The kinks are no part of the program: some entry depends on others as well.
    """
    outer = outer_estimate(program, fresh_generator(), program.deadline)
    for atoms, entries in outer.parts():
        if kinks_of(outer, atoms) == tuple(kinks):
            return entries
    raise Defect("the kinks are no part of the program that can be judged apart")


def kinks_of(outer: Outer, atoms: NDArray[np.bool_]) -> tuple[int, ...]:
    """The touched kinks behind a part of an outer estimate."""
    return tuple(sorted({n for j in np.flatnonzero(atoms) for n in outer.atoms.kinks[j]}))


def part_limits(
    program: Program,
    live: Live,
    kinks: Sequence[int],
    entries: NDArray[np.bool_],
    generator: torch.Generator,
    limits: Limits,
) -> LimitSet:
    """The set of a part, its kinks enumerated alone; zero in all entries of others.

    Args:
        program: The program.
        live: Which kinks can change the gradient.
        kinks: The touched kinks on which the part's entries depend.
        entries: (n,) which entries these are.
        generator: Private randomness.
        limits: Budget.

    Raises:
        BudgetError: The part is too large.
    """
    mask = torch.zeros_like(live.kinks)
    mask[list(kinks)] = live.kinks[list(kinks)]
    cells = Enumeration(program, Live(mask, live.constant, live.affine), generator, limits).run()
    changes = np.zeros((len(cells.cells), len(entries)))
    for row, cell in zip(changes, cells.cells, strict=True):
        row[entries] = cell.gradient[entries]
    return LimitSet(np.zeros(len(entries)), (Component(changes, cells.cells, cells.exclusions),))


def check_same(claimed: LimitSet, found: LimitSet) -> None:
    """Whether a certificate lists the selections and exclusions that were enumerated again.

    Directions may differ from run to run where they are searched in a random subspace: they are
    held against the rows.

    Raises:
        Defect: One is missing, or another one.
    """
    differs = Defect("the selections around the point are not those of the certificate")
    if len(claimed.components) != len(found.components):
        raise differs
    _check_alike(claimed.base, found.base, differs)
    for mine, own in zip(claimed.components, found.components, strict=True):
        _check_alike(mine.changes, own.changes, differs)
        if len(mine.cells) != len(own.cells) or len(mine.exclusions) != len(own.exclusions):
            raise differs
        for a, b in zip(mine.cells, own.cells, strict=True):
            _check_cell(a, b, differs)
        for c, d in zip(mine.exclusions, own.exclusions, strict=True):
            _check_alike(c.rows, d.rows, differs)


def _check_cell(claimed: Cell, found: Cell, differs: Defect) -> None:
    for mine, own in (
        ({k: v.numpy() for k, v in claimed.choices.items()}, found.choices),
        (claimed.own, found.own),
    ):
        if sorted(mine) != sorted(own) or not all(
            np.array_equal(mine[k], np.asarray(own[k])) for k in mine
        ):
            raise differs
    _check_alike(claimed.gradient, found.gradient, differs)
    _check_alike(claimed.rows, found.rows, differs)
    if not np.array_equal(claimed.kinks, found.kinks):
        raise differs
    if claimed.direction is None:
        # Less is claimed than is known.
        return
    if found.direction is None or claimed.direction.shape != found.direction.shape:
        raise differs
    if len(found.rows) and not verify_witness(found.rows, claimed.direction):
        raise Defect("the direction of a selection does not satisfy its rows")


def _check_alike(claimed: Array, found: Array, differs: Defect) -> None:
    if claimed.shape != found.shape:
        raise differs
    size = float(np.abs(found).max(initial=0.0))
    if not bool((np.abs(claimed - found) <= SAME_GRADIENT * size).all()):
        raise differs


def mix_cells(
    exact: Exact, program: Program, gradient: Array, allowed: Array
) -> tuple[tuple[Witness, ...], tuple[float, ...]] | None:
    """Witnesses and weights that write the gradient by certain elements, or None."""
    limits = exact.limits.certain()
    if limits is None:
        return None
    single = _equal_element(limits, gradient, allowed)
    if single is not None:
        return (witness_of(limits, single, program),), (1.0,)
    placed = limits.place(gradient, allowed, program.deadline)
    if not placed.inside:
        return None
    total = sum(placed.weights)
    return (
        tuple(witness_of(limits, atom, program) for atom in placed.atoms),
        tuple(w / total for w in placed.weights),
    )


def _equal_element(limits: LimitSet, gradient: Array, allowed: Array) -> tuple[int, ...] | None:
    """An element equal to the gradient, if the set is small enough to look at all of it."""
    if limits.count > 4096:
        return None
    equal = np.flatnonzero((np.abs(limits.elements() - gradient) <= allowed).all(axis=1))
    if not len(equal):
        return None
    best = int(equal[0])
    sizes = [len(c.changes) for c in limits.components]
    atom: list[int] = []
    for size in reversed(sizes):
        atom.append(best % size)
        best //= size
    return tuple(reversed(atom))


def witness_of(limits: LimitSet, atom: Sequence[int], program: Program) -> Witness:
    """One element of a certain set as a witness: one direction inside all its cells at once."""
    cells = [c.cells[i] for c, i in zip(limits.components, atom, strict=True)]
    direction = unflatten(joint_direction(cells, len(limits.base))[0], program.point)
    choices = joint_choices(cells)
    kinks = torch.zeros(program.analysis.count, dtype=torch.bool)
    for cell in cells:
        kinks[torch.from_numpy(cell.kinks)] = True
    rows = build_rows(program, choices, kinks, direction)
    return Witness(
        direction=direction,
        choices=choices,
        gradient=selected_gradient(program, choices),
        rows=rows.times(direction).to(torch.float64).numpy(),
        kinks=rows.kinks.numpy(),
    )


def joint_choices(cells: Sequence[Cell]) -> dict[int, torch.Tensor]:
    """The choices of several components, each of which leaves the others' kinks alone."""
    choices: dict[int, torch.Tensor] = {}
    for cell in cells:
        for position, choice in cell.choices.items():
            if position not in choices:
                choices[position] = choice.clone()
                continue
            mine = torch.from_numpy(cell.pinned(position))
            choices[position][mine] = choice[mine]
    return choices


def joint_direction(cells: Sequence[Cell], size: int) -> tuple[Array, Array]:
    """A direction inside all cells, and all their rows.

    The components' rows span independent spaces, so some direction agrees with each cell's own
    direction on that cell's rows.
    """
    rows = [c.rows for c in cells if len(c.rows)]
    if not rows:
        return np.ones(size), np.zeros((0, size))
    stacked = np.concatenate(rows)
    if len(rows) == 1:
        own = next(c.direction for c in cells if len(c.rows))
        return (np.ones(size) if own is None else own), stacked
    targets = np.concatenate(
        [_unit(c.rows @ c.direction) for c in cells if len(c.rows) and c.direction is not None]
    )
    direction = np.linalg.lstsq(stacked, targets, rcond=None)[0]
    if not bool(np.all(stacked @ direction > 0)):
        found = find_witness(stacked)
        if found.direction is not None:
            direction = found.direction
    return direction, stacked


def _unit(values: Array) -> Array:
    return values / float(np.abs(values).max())


def refute(exact: Exact, program: Program, gradient: Array, allowed: Array) -> Refutation | None:
    """A proof that the gradient is outside of the hull of everything possible, or None."""
    if not exact.limits.count:
        return None
    placed = exact.limits.place(gradient, allowed, program.deadline)
    if placed.direction is None:
        return None
    return Refutation(
        program=program,
        point=program.point,
        gradient=gradient,
        replayed=is_replayed(program, gradient),
        limits=exact.limits,
        direction=placed.direction,
        gap=placed.gap,
        distance=placed.distance,
        allowed=allowed,
    )


def refute_part(
    program: Program,
    live: Live,
    kinks: Sequence[int],
    entries: NDArray[np.bool_],
    gradient: Array,
    allowed: Array,
    generator: torch.Generator,
    limits: Limits,
) -> Refutation | None:
    """A proof that some entries of a gradient are wrong, or None; their kinks are enumerated alone.

    Args:
        program: The program.
        live: Which kinks can change the gradient.
        kinks: The touched kinks on which these entries of a selection's gradient depend.
        entries: (n,) which they are.
        gradient: (n,) the gradient.
        allowed: (n,) how far its entries may be off.
        generator: Private randomness.
        limits: Budget.

    Raises:
        BudgetError: The part is too large.
    """
    own = part_limits(program, live, kinks, entries, generator, limits)
    if not own.count:
        return None
    target = np.where(entries, gradient, 0.0)
    room = np.where(entries, allowed + rounding_of_set(program, own), 0.0)
    placed = own.place(target, room, program.deadline)
    if placed.direction is None:
        return None
    return Refutation(
        program=program,
        point=program.point,
        gradient=gradient,
        replayed=is_replayed(program, gradient),
        limits=own,
        direction=placed.direction,
        gap=placed.gap,
        distance=placed.distance,
        allowed=room,
        part=tuple(kinks),
    )


def nearest_correct(exact: Exact, gradient: Array) -> Array | None:
    """A limiting gradient close to AD's, among those that are known."""
    limits = exact.limits.known()
    if limits is None:
        return None
    if limits.count <= 4096:
        points = limits.elements()
        best: Array = points[int(np.linalg.norm(points - gradient, axis=1).argmin())]
        return best
    # Too many to compare: in every component the change that helps most on its own.
    total = limits.base.copy()
    for c in limits.components:
        gaps = np.linalg.norm(total + c.changes - gradient, axis=1)
        total = total + c.changes[int(gaps.argmin())]
    return total
