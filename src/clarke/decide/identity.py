"""Whether a combination of switching functions vanishes identically, not only to first order."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import scipy.linalg
import torch

from clarke.constraints import flatten, unflatten
from clarke.constraints.nearby import nearby_point, nearby_points
from clarke.constraints.noise import noise_of
from clarke.constraints.relevance import Mixing, random_mixtures
from clarke.decide.live import is_zero, primal
from clarke.numerics import IDENTITY_ZERO, SPACES_RANK

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from numpy.typing import NDArray

    from clarke.steering import Errors, Probe, Program, Run

    Array = NDArray[np.float64]

_TESTS = 2
_PARTLY = 6
# Lengths of a step along a surface, in units of the point: as long as it leads back to one.
_BESIDE = tuple(1.0 / 16**k for k in range(2, 12))
_CORRECTED = 24  # steps of Newton's method, with the slopes at the point, back to a surface


@dataclass(frozen=True)
class Form:
    """How to evaluate a row's switching function in a replay.

    Attributes:
        position: The site.
        plus: Position in the flattened switching functions of the site's probe.
        minus: Likewise, of the function to subtract; None for nothing.
        sign: +1 or -1.
    """

    position: int
    plus: int
    minus: int | None
    sign: float

    def value(self, probes: Mapping[int, Probe]) -> torch.Tensor:
        """What it is in a replay."""
        values = primal(probes[self.position].switching).reshape(-1)
        own = values[self.plus]
        return self.sign * (own if self.minus is None else own - values[self.minus])


class Nearby:
    """Values of all switching functions at random points nearby, whatever the pieces are.

    All kinks run with random mixtures of their pieces, so that an identity of two switching
    functions which holds in these values holds in every branch: the two are one kink.
    """

    def __init__(self, program: Program, generator: torch.Generator) -> None:
        self._program = program
        self._generator = generator
        self._runs: list[Mapping[int, Probe]] = []
        self._alike: dict[tuple[tuple[Form, ...], tuple[float, ...]], bool] = {}
        self._beside: tuple[torch.Tensor, ...] = ()
        self._weights: Mapping[int, torch.Tensor] = {}
        self._slopes: Run | None = None

    def are_one(self, forms: Sequence[Form], multipliers: Sequence[float]) -> bool:
        """Whether a combination of switching functions is zero at all of these points."""
        if not self._runs:
            self._look()
        for values in self._runs:
            terms = [y * float(f.value(values)) for f, y in zip(forms, multipliers, strict=True)]
            if not abs(sum(terms)) <= IDENTITY_ZERO * sum(abs(t) for t in terms):
                return False
        key = tuple(forms), tuple(multipliers)
        if key not in self._alike:
            self._alike[key] = self._slopes_are_one(forms, multipliers)
        return self._alike[key]

    def _slopes_are_one(self, forms: Sequence[Form], multipliers: Sequence[float]) -> bool:
        """The same of slopes at one more point, entry by entry."""

        def slopes(errors: Errors | None) -> list[Array]:
            if errors is not None:
                run = self._run_beside(errors)
            else:
                run = self._slopes = self._slopes or self._run_beside(None)
            return [
                y * form.sign * _slope(self._program, run, form)
                for form, y in zip(forms, multipliers, strict=True)
            ]

        return _cancel(self._program, slopes)

    def _run_beside(self, errors: Errors | None) -> Run:
        return self._program.run(self._beside, weights=self._weights, probe=True, errors=errors)

    def _look(self) -> None:
        for point in nearby_points(self._program, self._generator, _TESTS, _PARTLY):
            self._program.deadline.ask()
            weights, _ = random_mixtures(self._program, self._generator, Mixing.ALL)
            run = self._program.run(point, weights=weights, probe=True, grad=False)
            self._runs.append(run.probes)
        self._beside = nearby_point(self._program, self._generator)
        self._weights, _ = random_mixtures(self._program, self._generator, Mixing.ALL)


def vanishes_nearby(
    program: Program,
    choices: Mapping[int, torch.Tensor],
    pinned: Collection[int],
    forms: Sequence[Form],
    multipliers: NDArray[np.float64],
    generator: torch.Generator,
) -> bool:
    """Test ``sum_k y_k s_k == 0`` at random points around w.

    An analytic function that is not identically zero vanishes at a random point with probability
    zero. Kinks that the branch does not pin run with random mixtures of their pieces, so that the
    answer holds for whatever piece they have. At one of the points slopes are looked at as well.

    Args:
        program: The program.
        choices: The selection of the branch.
        pinned: Numbers of the kinks at which it chose among differing pieces.
        forms: (m,) the rows' switching functions.
        multipliers: (m,) y >= 0.
        generator: Private randomness.
    """
    for point in nearby_points(program, generator, _TESTS, _PARTLY):
        program.deadline.ask()
        weights = pinned_weights(program, choices, pinned, generator)
        run = program.run(
            point,
            weights=weights,
            choices=choices,
            probe=True,
            grad=False,
        )
        terms = []
        for form, y in zip(forms, multipliers.tolist(), strict=True):
            terms.append(y * float(form.value(run.probes)))
        size = sum(abs(t) for t in terms)
        if not abs(sum(terms)) <= IDENTITY_ZERO * size:  # NaN fails
            return False
    moved = nearby_point(program, generator)
    weights = pinned_weights(program, choices, pinned, generator)

    def slopes(errors: Errors | None) -> list[Array]:
        run = program.run(moved, weights=weights, choices=choices, probe=True, errors=errors)
        factors = [y * f.sign for y, f in zip(multipliers.tolist(), forms, strict=True)]
        return [f * _slope(program, run, form) for f, form in zip(factors, forms, strict=True)]

    return _cancel(program, slopes)


def _slope(program: Program, run: Run, form: Form) -> Array:
    """(n,) the gradient of a row's switching function in a replay, without its sign."""
    program.deadline.ask("comparing slopes beside the point")
    values = run.probes[form.position].switching.reshape(-1)
    value = values[form.plus] if form.minus is None else values[form.plus] - values[form.minus]
    if not value.requires_grad:
        return np.zeros(sum(p.numel() for p in program.point))
    return flatten(
        torch.autograd.grad(value, run.leaves, retain_graph=True, materialize_grads=True)
    )


def _cancel(program: Program, slopes: Callable[[Errors | None], list[Array]]) -> bool:
    """Whether some gradients add up to zero in every entry, but for rounding.

    A value adds up all coordinates, so that curvature in a product of two drowns in what large
    terms leave; in the gradient both have entries of their own.
    """
    own = slopes(None)
    total, size = np.sum(own, axis=0), np.sum(np.abs(own), axis=0)
    left = ~(np.abs(total) <= IDENTITY_ZERO * size)
    if not left.any():
        return True

    def again(errors: Errors) -> dict[int, torch.Tensor]:
        return {0: torch.from_numpy(np.sum(slopes(errors), axis=0))}

    noise = noise_of(program, {0: torch.from_numpy(total)}, again)
    return noise is not None and bool((np.abs(total) <= noise[0].numpy())[left].all())


def vanish_together(
    program: Program,
    choices: Mapping[int, torch.Tensor],
    pinned: Collection[int],
    forms: Sequence[Form],
    rows: NDArray[np.float64],
    generator: torch.Generator,
) -> bool:
    """Whether switching functions are all zero where those with independent slopes are.

    If a positive combination of their slopes vanishes, they are never all positive then: of a step
    that leads away from where all are zero, one is negative by as much as the step is long, and
    what curvature adds to that is of higher order.

    Args:
        program: The program.
        choices: The selection of the branch.
        pinned: Numbers of the kinks at which it chose among differing pieces.
        forms: (m,) the switching functions.
        rows: (m, n) their slopes, none zero.
        generator: Private randomness.
    """
    units = 1.0 + np.abs(flatten(program.point))
    seen = rows * units
    lengths = np.abs(seen).max(axis=1, keepdims=True)
    _, sizes, axes = np.linalg.svd(seen / lengths)
    rank = int((sizes > SPACES_RANK * sizes[0]).sum())
    if rank == rows.shape[1]:
        return True
    first = np.sort(scipy.linalg.qr((seen / lengths).T, mode="r", pivoting=True)[1][:rank])
    back = np.linalg.pinv(seen[first])
    for _ in range(_TESTS):
        shares = torch.randn(len(axes) - rank, dtype=torch.float64, generator=generator).numpy()
        weights = pinned_weights(program, choices, pinned, generator)

        for length in _BESIDE:
            at = partial(_values_at, program, choices, weights, forms, units)
            offset = _back_to_surface(at, length * (shares @ axes[rank:]), first, back)
            if offset is not None:
                break
        else:
            return False
        probed = partial(at, offset)
        if not bool(is_zero(program, probed(), probed).all()):
            return False
    return True


def _back_to_surface(
    values: Callable[[Array], torch.Tensor], offset: Array, first: NDArray[np.intp], back: Array
) -> Array | None:
    """Where some of the values are zero, from an offset near there; None if it leads away.

    By Newton's method with the slopes at the point, whose pseudoinverse is given.
    """
    last = np.inf
    for _ in range(_CORRECTED):
        own = values(offset).numpy()[first]
        step = back @ own
        size = float(np.abs(step).max(initial=0.0))
        if size == 0:
            return offset
        if not size < last:  # as near as rounding lets it, or away (NaN, too)
            break
        offset, last = offset - step, size
    return offset if last <= IDENTITY_ZERO * float(np.abs(offset).max()) else None


def _values_at(
    program: Program,
    choices: Mapping[int, torch.Tensor],
    weights: Mapping[int, torch.Tensor],
    forms: Sequence[Form],
    units: Array,
    offset: Array,
    errors: Errors | None = None,
) -> torch.Tensor:
    """The values of switching functions at an offset from the point, in some units."""
    parts = unflatten(units * offset, program.point)
    moved = tuple(p + d for p, d in zip(program.point, parts, strict=True))
    run = program.run(
        moved, weights=weights, choices=choices, probe=True, grad=False, errors=errors
    )
    return torch.stack([f.value(run.probes) for f in forms])


def pinned_weights(
    program: Program,
    choices: Mapping[int, torch.Tensor],
    pinned: Collection[int],
    generator: torch.Generator,
) -> dict[int, torch.Tensor]:
    """Random mixtures of all pieces, except at the kinks that a branch has pinned to one."""
    weights, _ = random_mixtures(program, generator, Mixing.ALL)
    for position, random in weights.items():
        site = program.analysis.sites[position]
        touch = site.touch
        held = torch.tensor([site.first + i in pinned for i in range(touch.count)])
        choice = choices.get(position)
        if site.rule.by_weights:
            pure = touch.weights if choice is None else choice
        else:
            fixed = touch.chosen() if choice is None else choice
            pure = (touch.members == fixed[touch.owner]).to(torch.float64)
        weights[position] = torch.where(held[touch.owner], pure, random)
    return weights
