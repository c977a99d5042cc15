"""Norms at zero among other kinks: every branch of the others, with a ball of slopes in each.

The selections of all other kinks are enumerated. In one of them, on its cone C of directions, the
argument of a norm moves as ``J d``:

- ``J = 0``: the norm adds nothing;
- J of rank 1: the norm is the absolute value of a linear form, a kink like any other;
- a larger rank: the norm adds ``J' u`` with ``u = J d / |J d|``, d in C. The greatest inner
  product of a direction with such an element is known exactly, which is enough to project on the
  hull, and to prove that a gradient lies outside of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import scipy.optimize
import torch

from clarke.deadline import rung
from clarke.decide.cells import Cell
from clarke.decide.enumerate import Enumeration
from clarke.decide.identity import Form
from clarke.decide.live import find_live
from clarke.decide.options import Option
from clarke.decide.project import Projection, project
from clarke.errors import BudgetError
from clarke.numerics import NORM_RANK, RAY_INWARD, SLOPES_EQUAL

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from clarke.decide.cone import Cone
    from clarke.decide.limits import Limits
    from clarke.decide.options import Kink, Node
    from clarke.decide.slopes import Slopes
    from clarke.steering import Program

    Array = NDArray[np.float64]
    Name = tuple[int, tuple[float, ...]]

_RANDOM = 3  # directions tried in every cell


@dataclass(frozen=True, eq=False)
class BallCell(Cell):
    """A selection of everything but some norms.

    Attributes:
        terms: For each of these norms (m, n): what its argument's slopes add for each entry of u.
        slopes: For each of these norms (m, n), the slopes of its argument.
        spanned: (r, n) generators of the closed cone of directions with this selection; None where
            u may be anything.
    """

    terms: tuple[Array, ...] = ()
    slopes: tuple[Array, ...] = ()
    spanned: Array | None = None

    def extreme(self, direction: Array) -> Array:
        """The element with the greatest inner product with a direction."""
        total = self.gradient.copy()
        for term, slope in zip(self.terms, self.slopes, strict=True):
            total += term.T @ _farthest(term @ direction, self._vectors(slope))
        return total

    def along(self, direction: Array) -> Array | None:
        """The limit of gradients along a direction of the closed cell; None if it has none."""
        total = self.gradient.copy()
        for term, slope in zip(self.terms, self.slopes, strict=True):
            moved = slope @ direction
            length = float(np.linalg.norm(moved))
            if length <= NORM_RANK * float(np.linalg.norm(slope) * np.linalg.norm(direction)):
                return None
            total += term.T @ (moved / length)
        return total

    def toward(self, direction: Array) -> Array | None:
        """A direction of the closed cell whose limit has a great inner product with another."""
        pairs = zip(self.terms, self.slopes, strict=True)
        wanted = np.concatenate([_farthest(t @ direction, self._vectors(s)) for t, s in pairs])
        rows = np.concatenate(self.slopes)
        if self.spanned is None:
            return None if len(self.rows) else np.linalg.lstsq(rows, wanted, rcond=None)[0]
        shares, _ = scipy.optimize.nnls((self.spanned @ rows.T).T, wanted)
        found: Array = shares @ self.spanned
        return found

    def directions(self, toward: Array, generator: np.random.Generator) -> list[Array]:
        """Directions inside: with the greatest slope along one, in the middle, and at random."""
        if self.direction is None:
            return []
        found = [self.direction]
        if self.spanned is None:
            return found
        for term, slope in zip(self.terms, self.slopes, strict=True):
            size = float(np.linalg.norm(term @ toward))
            if size > 0:
                moved = self.spanned @ slope.T
                shares, _ = scipy.optimize.nnls(moved.T, (term @ toward) / size)
                found.append(shares @ self.spanned)
        shares = generator.exponential(size=(_RANDOM, len(self.spanned))) ** 2
        found += list(shares @ self.spanned)
        return [d + RAY_INWARD * float(np.abs(d).max()) * self.direction for d in found]

    def _vectors(self, slope: Array) -> Array | None:
        """Unit vectors that generate the cone in which a norm's argument moves."""
        if self.spanned is None:
            return None
        found = self.spanned @ slope.T
        sizes = np.linalg.norm(found, axis=1)
        scale = np.linalg.norm(self.spanned, axis=1) * float(np.linalg.norm(slope))
        keep = sizes > NORM_RANK * scale
        unit: Array = found[keep] / sizes[keep, None]
        return unit


def _farthest(weights: Array, generators: Array | None) -> Array:
    """The unit vector of a closed cone with the greatest inner product with some weights."""
    size = float(np.linalg.norm(weights))
    if generators is None:
        return weights / size if size > 0 else np.zeros_like(weights)
    if size == 0:
        return np.array(generators[0])
    # The projection on the cone, if it is not its apex; else one of its edges.
    shares, _ = scipy.optimize.nnls(generators.T, weights / size)
    inside: Array = generators.T @ shares
    length = float(np.linalg.norm(inside))
    values = generators @ weights / size
    if length > max(float(values.max()), SLOPES_EQUAL):
        return inside / length
    best: Array = generators[int(values.argmax())]
    return best


def _merged(slopes: list[Array], factors: list[float]) -> tuple[list[Array], list[float]]:
    """Norms that are multiples of each other as one: they choose their u together."""
    kept: list[tuple[Array, Array, float]] = []
    for j, factor in zip(slopes, factors, strict=True):
        square = j.T @ j
        size = float(np.abs(square).max(initial=0.0))
        for n, (own, first, total) in enumerate(kept):
            ratio = size / float(np.abs(own).max())
            if bool((np.abs(square - ratio * own) <= NORM_RANK * size).all()):
                more = factor * float(np.sqrt(ratio))
                both = total + more
                gone = abs(both) <= NORM_RANK * (abs(total) + abs(more))
                kept[n] = own, first, 0.0 if gone else both
                break
        else:
            kept.append((square, j, factor))
    left = [(j, f) for _, j, f in kept if f]
    return [j for j, _ in left], [f for _, f in left]


class BallEnumeration(Enumeration):
    """Enumerates the selections of a program in which norms are kinks (`with_cones`)."""

    def _options(self, kink: Kink, node: Node) -> list[Option]:
        free = [
            k.site.position
            for k in self._kinks
            if k.number in node.free and k.site.position < kink.site.position
        ]
        if self._find_dependencies(kink.site, tuple(dict.fromkeys(free))):
            raise BudgetError(
                f"{kink.site.touch.op.shown} at {kink.site.touch.location} depends on a norm at "
                "zero of several variables."
            )
        return super()._options(kink, node)

    def _list_options(self, kink: Kink, node: Node, found: Slopes) -> list[Option]:
        touch = kink.site.touch
        if not kink.site.rule.by_weights:
            return super()._list_options(kink, node, found)
        mine = (touch.owner == kink.index).numpy()
        slopes = found.candidates[mine][1:]
        _, sizes, lines = np.linalg.svd(slopes, full_matrices=False)
        largest = float(np.abs(found.candidates).max(initial=0.0))
        if sizes[0] <= SLOPES_EQUAL * largest or sizes[0] == 0:
            return [Option(0, (), shares=np.zeros(len(slopes) + 1), pinned=False)]
        if not self._live.affine or (sizes[1:] > NORM_RANK * sizes[0]).any():
            return [Option(0, (), shares=np.zeros(len(slopes) + 1), pinned=False, free=True)]
        # One line: |v| is |form|, and v / |v| is one of two opposite vectors.
        unit = slopes @ lines[0] / sizes[0]
        longest = int(np.abs(unit).argmax())
        row = slopes[longest] * np.sign(unit[longest])
        place = int(np.flatnonzero(mine)[1:][longest])
        noise = partial(found.noise_of_candidates, self._program, [place])
        form = Form(kink.site.position, 0, None, 1.0)
        return [
            Option(
                0,
                (self._row(sign * row, form, noise),),
                shares=np.concatenate([[0.0], sign * unit / np.linalg.norm(unit)]),
            )
            for sign in (1.0, -1.0)
        ]

    def _leaf(self, node: Node) -> Cell:
        cell = super()._leaf(node)
        if not node.free:
            return cell
        run = self._program.run(choices=node.choices, nudge=True)
        if run.nudges is None or not run.output.requires_grad:
            return cell
        adjoints = run.nudges.signed_adjoints(run.output, self._program.analysis.count)
        slopes = []
        for kink in self._kinks:
            if kink.number in node.free:
                mine = (kink.site.touch.owner == kink.index).numpy()
                slopes.append(self._slopes(kink.site, node).candidates[mine][1:])
        sizes = [float(adjoints[k]) for k in sorted(node.free)]
        slopes, sizes = _merged(slopes, sizes)
        if not slopes:
            return cell
        terms = [s * j for s, j in zip(sizes, slopes, strict=True)]
        return BallCell(
            cell.choices,
            cell.gradient,
            cell.direction,
            cell.rows,
            cell.kinks,
            cell.own,
            tuple(terms),
            tuple(slopes),
            self._generators(node.cone),
        )

    def _generators(self, cone: Cone | None) -> Array | None:
        """Generators of a cone of directions; None if it is not known exactly."""
        if cone is None or self._subspace is not None or not self._live.affine:
            return None
        vectors = [r.vector for r in cone.rays]
        for line in cone.lines:
            vectors += [line, tuple(-v for v in line)]
        found = []
        for v in vectors:
            largest = max(abs(x) for x in v)
            found.append([x / largest for x in v])
        return np.array(found)


@dataclass(frozen=True, eq=False)
class Balls:
    """All that gradients around a point can be, or more, where norms are taken of zero.

    Attributes:
        cells: One for each selection of all other kinks.
    """

    cells: tuple[Cell, ...]

    def extreme(self, direction: Array) -> tuple[Name, Array]:
        """The element with the greatest inner product with a direction, and its name."""
        found = [
            c.extreme(direction) if isinstance(c, BallCell) else c.gradient for c in self.cells
        ]
        at = int(np.argmax([float(f @ direction) for f in found]))
        return (at, tuple(found[at].tolist())), found[at]

    def size(self) -> Array:
        """(n,) the largest that an entry can be."""
        each = [np.abs(c.gradient) for c in self.cells]
        each += [
            np.abs(c.gradient) + np.sum([np.linalg.norm(t, axis=0) for t in c.terms], axis=0)
            for c in self.cells
            if isinstance(c, BallCell)
        ]
        found: Array = np.max(each, axis=0)
        return found

    def place(self, target: Array, program: Program) -> Projection[Name]:
        """The nearest element of the hull to a target."""
        inside = np.mean([c.gradient for c in self.cells], axis=0)
        start = target - inside
        if not start.any():
            start = np.ones_like(target)
        scale = float(np.abs(np.concatenate([self.size(), target])).max())
        return project(self.extreme, target, start, scale, deadline=program.deadline)


@rung("enumerating selections around a norm of zero")
def balls_around(program: Program, generator: torch.Generator, limits: Limits) -> Balls:
    """What the gradients around a point can be.

    Args:
        program: The program, norms being kinks (`with_cones`).
        generator: Private randomness.
        limits: Budget.

    Raises:
        BudgetError: The problem is too large, or of another kind.
    """
    live = find_live(program, generator)
    found = BallEnumeration(program, live, generator, limits).run()
    if not found.cells:
        raise BudgetError("No selection could be left.")
    return Balls(tuple(found.cells))
