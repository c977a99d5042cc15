"""Local minima where first order is flat: curvature on the critical cone of every cell.

Switching functions are affine here, so that a cell C is a polyhedral cone of steps, on which the
function is smooth: ``f(w + d) = f(w) + g d + d'Hd / 2 + o(|d|^2)``, with ``g d >= 0`` for all d of
C. Where ``d'Hd`` is positive for all ``d != 0`` of the critical cone ``K = {d in C: g d = 0}``, the
function grows in C; where it is negative for one, it falls along that one. Where it is zero at
least, a quadratic function does not fall (Majthay 1971; Contesse 1980). With ``g = sum m_j u_j``,
the u_j rows of C and ``m_j >= 0``, K is the face of C on which the rows with ``m_j > 0`` vanish.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.optimize import linprog, nnls

from clarke.constraints import flatten, unflatten
from clarke.constraints.nearby import nearby_points
from clarke.constraints.relevance import Mixing, random_mixtures
from clarke.decide.exact import enumerate_exactly
from clarke.decide.minimum import LocalMinimum
from clarke.decide.mixed import joint_choices, joint_direction
from clarke.decide.source import slopes_around
from clarke.errors import OutOfTimeError
from clarke.numerics import (
    CURVATURE_SAME,
    CURVATURE_STEP,
    HULL_RANK,
    JUMP_ROUNDINGS,
    MINIMUM_FLAT,
    VALUES_SAME,
)
from clarke.steering.cones import with_cones

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from clarke.deadline import Deadline
    from clarke.decide.minimum import Slope
    from clarke.decide.source import Source
    from clarke.steering import Program

    Array = NDArray[np.float64]
    Pieces = Mapping[int, torch.Tensor]

_HALVES = 4  # points beside, at which a random half of the coordinates moves


@dataclass(frozen=True, eq=False)
class Curved:
    """What curvature says where no slope is negative.

    Attributes:
        minimum: The point is a minimum (True), it is none (False); None: not known.
        strict: The function grows in every direction.
        direction: One along which it falls, if it does.
        curvature: Its second derivative there.
    """

    minimum: bool | None
    strict: bool | None
    direction: Array | None = None
    curvature: float = 0.0


@dataclass(frozen=True, eq=False)
class _Piece:
    """A smooth function around the point: its Hessian, and whether it is quadratic."""

    hessian: Array
    quadratic: bool


def local_minimum(source: Source, allowed: Array, slope: Slope, deadline: Deadline) -> LocalMinimum:
    """Whether a point is a local minimum: by slopes, else by curvature.

    Args:
        source: The set, completely known.
        allowed: (n,) rounding of its elements.
        slope: Gives the directional derivative.
        deadline: Asked cell by cell; curvature that it ends stays unknown.
    """
    point = source.program.point
    slopes = slopes_around(source, allowed, slope, deadline)
    if slopes.falls is not None:
        falls = unflatten(slopes.falls, point)
        return LocalMinimum(False, False, falls, slope(slopes.falls, deadline), 1)
    if slopes.rises:
        return LocalMinimum(True, True, None, 0.0, 1)
    if not slopes.flat:  # some slope is slight: zero but for rounding, or negative
        return LocalMinimum(None, None, None, 0.0, None)
    if source.is_piecewise_linear:
        return LocalMinimum(True, slopes.rises, None, 0.0, 1)
    told = Curved(None, None)
    with suppress(OutOfTimeError):
        told = curvature_around(source, allowed, deadline)
    down = None if told.direction is None else unflatten(told.direction, point)
    order = None if told.minimum is None else 2
    return LocalMinimum(told.minimum, told.strict, down, 0.0, order, told.curvature)


def curvature_around(source: Source, allowed: Array, deadline: Deadline) -> Curved:
    """Whether the point is a minimum, where directional derivatives leave it open."""
    if not source.live.affine:
        return Curved(None, None)  # cells are curved
    program, generator = with_cones(source.program.within(deadline)), source.generator()
    shared = _shared_piece(program, generator)
    if shared is not None:
        lowest = float(np.linalg.eigvalsh(_balanced(shared.hessian)[0])[0])
        if lowest > MINIMUM_FLAT:
            return Curved(True, True)
        if source.regular is not None:
            room = len(shared.hessian) * JUMP_ROUNDINGS
            return Curved(True if shared.quadratic and lowest >= -room else None, None)
    if source.regular is not None:
        return Curved(None, None)
    limits = source.listed(deadline)
    resting = ~(source.live.kinks | source.live.constant)
    if shared is None and bool(resting.any()):
        # Kinks that do not change the gradient may change the curvature, as that of x * |x| does.
        every = replace(source.live, kinks=~source.live.constant)
        limits = enumerate_exactly(program, generator, source.limits, every).limits
    told = Curved(True, True)
    for atom, own in limits.combinations():
        deadline.ask("looking at the curvature in {} cells", limits.count)
        rows = joint_direction(own, limits.size)[1]
        rows = rows / np.linalg.norm(rows, axis=1, keepdims=True) if len(rows) else rows
        face = _critical_face(rows, limits.element(atom), allowed)
        piece = shared or _piece(program, generator, choices=joint_choices(own))
        if face is None or piece is None:
            told = Curved(None, None)
            continue
        found = _in_cell(piece, rows, face, deadline)
        if found.minimum is False:
            if all(c.certain for c in own):
                return found
            found = Curved(None, None)
        told = Curved(_all(told.minimum, found.minimum), _all(told.strict, found.strict))
    return told


def _all(*told: bool | None) -> bool | None:
    if False in told:
        return False
    return None if None in told else True


def _critical_face(rows: Array, gradient: Array, allowed: Array) -> list[int] | None:
    """The rows that vanish on a cell's critical cone; None where rounding hides which do."""
    if not len(rows):
        return [] if bool((np.abs(gradient) <= allowed).all()) else None
    try:
        shares, _ = nnls(rows.T, gradient)
    except RuntimeError:
        return None
    room = allowed + JUMP_ROUNDINGS * (np.abs(gradient) + np.abs(rows).T @ shares)
    if bool((np.abs(rows.T @ shares - gradient) > room).any()):
        return None
    clear = shares > MINIMUM_FLAT * max(float(shares.max()), float(np.abs(gradient).max()))
    slight = ~clear & (shares > float(allowed.max()))
    return None if bool(slight.any()) else np.flatnonzero(clear).tolist()


def _in_cell(piece: _Piece, rows: Array, face: list[int], deadline: Deadline) -> Curved:
    hessian, units = _balanced(piece.hessian)
    lowest, direction = _lowest_on_cone(hessian, rows * units, face, deadline)
    if lowest > MINIMUM_FLAT:
        return Curved(True, True)
    if direction is None or abs(lowest) > len(hessian) * JUMP_ROUNDINGS:
        if direction is None or lowest > -MINIMUM_FLAT:
            return Curved(None, None)  # between what rounding leaves and what is clear
        along = direction * units
        along = along / np.linalg.norm(along)
        return Curved(False, False, along, float(along @ piece.hessian @ along))
    return Curved(True, False) if piece.quadratic else Curved(None, None)


def _balanced(hessian: Array) -> tuple[Array, Array]:
    """A Hessian in units of the variables in which its rows are of size one, and these units."""
    sizes = np.abs(hessian).max(axis=1, initial=0.0)
    units = 1.0 / np.sqrt(np.where(sizes > 0, sizes, 1.0))
    return hessian * units * units[:, None], units


def _lowest_on_cone(
    hessian: Array, rows: Array, face: list[int], deadline: Deadline
) -> tuple[float, Array | None]:
    """The smallest ``d'Hd`` over unit vectors of ``{rows d >= 0, rows[face] d = 0}``.

    It is taken inside of a face, where it is the smallest eigenvalue of H on that face's space: a
    local minimum of the Rayleigh quotient is a global one. Spaces are searched from the largest
    on; one with a positive smallest eigenvalue ends its branch, that value being a lower bound.
    """
    sizes = np.linalg.norm(rows, axis=1, keepdims=True) if len(rows) else np.ones((0, 1))
    rows = rows / sizes
    seen: set[frozenset[int]] = set()
    waiting = [frozenset(face)]
    best: tuple[float, Array | None] = (np.inf, None)
    while waiting:
        fixed = waiting.pop()
        if fixed in seen:
            continue
        seen.add(fixed)
        deadline.ask("looking at the curvature on {} faces of a cell", len(seen))
        space = _null_space(rows[sorted(fixed)], len(hessian))
        if not space.shape[1]:
            continue
        values, axes = np.linalg.eigh(space.T @ hessian @ space)
        lowest = float(values[0])
        if lowest >= best[0]:
            continue
        if lowest > MINIMUM_FLAT:
            best = (lowest, None)
            continue
        inside = _in_cone(space @ axes[:, values <= lowest + MINIMUM_FLAT], rows)
        if inside is not None:
            best = (float(inside @ hessian @ inside), inside)
            continue
        moving = np.abs(rows @ space).max(axis=1) > HULL_RANK
        waiting += [fixed | {int(i)} for i in np.flatnonzero(moving)]
    return best


def _null_space(rows: Array, size: int) -> Array:
    """(n, k) an orthonormal basis of what some rows of size one map to zero."""
    if not len(rows):
        return np.eye(size)
    _, sizes, axes = np.linalg.svd(rows)
    rank = int((sizes > HULL_RANK).sum())
    space: Array = axes[rank:].T
    return space


def _in_cone(space: Array, rows: Array) -> Array | None:
    """A unit vector of a space, given by orthonormal columns, in the cone of some rows."""
    seen = rows @ space
    if not len(rows):
        found: Array | None = space[:, 0]
    elif space.shape[1] == 1:
        sides = [s for s in (1.0, -1.0) if bool((s * seen >= -JUMP_ROUNDINGS).all())]
        found = sides[0] * space[:, 0] if sides else None
    else:
        still = _null_space(seen, space.shape[1])
        if still.shape[1]:
            return np.asarray(space @ still[:, 0], dtype=np.float64)
        most = linprog(
            -seen.sum(axis=0),
            A_ub=-seen,
            b_ub=np.zeros(len(seen)),
            bounds=(-1.0, 1.0),
            method="highs",
        )
        found = None
        if most.x is not None and float(np.abs(most.x).max()) > HULL_RANK:
            found = space @ (most.x / np.linalg.norm(most.x))
    return found


def _shared_piece(program: Program, generator: torch.Generator) -> _Piece | None:
    """The Hessian that all selections have; None where they differ.

    Under mixtures the Hessian is a polynomial in their weights, affine in each: where random ones
    agree, all do.
    """
    first, second = (
        _piece(program, generator, weights=random_mixtures(program, generator, Mixing.ALL)[0])
        for _ in range(2)
    )
    if first is None or second is None:
        return None
    room = VALUES_SAME * float(np.abs(first.hessian).max(initial=0.0))
    if bool((np.abs(first.hessian - second.hessian) > room).any()):
        return None
    return _Piece(first.hessian, first.quadratic and second.quadratic)


def _piece(
    program: Program,
    generator: torch.Generator,
    *,
    choices: Pieces | None = None,
    weights: Pieces | None = None,
) -> _Piece | None:
    """A selection's Hessian; None where torch has none, or it does not tell values beside."""
    run = program.run(choices=choices, weights=weights)
    try:
        slopes = _gradient(run.output, run.leaves, create=True)
        rows = [
            flatten([p.detach() for p in _gradient(s, run.leaves, create=False)])
            for part in slopes
            for s in part.reshape(-1)
        ]
    except RuntimeError:
        return None  # an operation without a second derivative
    gradient = flatten([p.detach() for p in slopes])
    hessian = np.stack(rows)
    if not bool(np.isfinite(hessian).all()):
        return None
    hessian = (hessian + hessian.T) / 2
    here = float(run.output.detach().sum())
    quadratic = True
    for moved in nearby_points(program, generator, 2, _HALVES):
        step = flatten([a - b for a, b in zip(moved, program.point, strict=True)])
        for scale in (1.0, CURVATURE_STEP, -CURVATURE_STEP):
            parts = zip(moved, program.point, strict=True)
            at = [b + scale * (a - b) for a, b in parts]
            there = program.run(at, choices=choices, weights=weights, grad=False).output
            d = scale * step
            terms = (here, float(gradient @ d), float(d @ hessian @ d) / 2)
            gap = abs(float(there.sum()) - sum(terms))
            room = VALUES_SAME * sum(map(abs, terms))
            if scale == 1.0:
                quadratic = quadratic and gap <= room
                continue
            size = float(np.abs(d) @ np.abs(hessian) @ np.abs(d))
            if gap > room + CURVATURE_SAME * size:
                return None  # a derivative that turns, as that of Huber's loss, or is steep
    return _Piece(hessian, quadratic)


def _gradient(
    value: torch.Tensor, leaves: Sequence[torch.Tensor], *, create: bool
) -> list[torch.Tensor]:
    if not value.requires_grad:
        return [torch.zeros_like(leaf) for leaf in leaves]
    found = torch.autograd.grad(
        value.sum(), leaves, create_graph=create, retain_graph=True, materialize_grads=True
    )
    return list(found)
