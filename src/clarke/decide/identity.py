"""Whether a combination of switching functions vanishes identically, not only to first order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from clarke.constraints.nearby import nearby_points
from clarke.constraints.relevance import Mixing, random_mixtures
from clarke.decide.live import primal
from clarke.numerics import IDENTITY_ZERO

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from numpy.typing import NDArray

    from clarke.steering import Program

_TESTS = 2
_PARTLY = 6


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


class Nearby:
    """Values of all switching functions at random points nearby, whatever the pieces are.

    All kinks run with random mixtures of their pieces, so that an identity of two switching
    functions which holds in these values holds in every branch: the two are one kink.
    """

    def __init__(self, program: Program, generator: torch.Generator) -> None:
        self._program = program
        self._generator = generator
        self._runs: list[dict[int, torch.Tensor]] = []

    def are_one(self, forms: Sequence[Form], multipliers: Sequence[float]) -> bool:
        """Whether a combination of switching functions is zero at all of these points."""
        if not self._runs:
            self._look()
        for values in self._runs:
            terms = []
            for form, y in zip(forms, multipliers, strict=True):
                own = values[form.position]
                value = float(own[form.plus])
                if form.minus is not None:
                    value -= float(own[form.minus])
                terms.append(y * form.sign * value)
            if not abs(sum(terms)) <= IDENTITY_ZERO * sum(abs(t) for t in terms):
                return False
        return True

    def _look(self) -> None:
        for point in nearby_points(self._program, self._generator, _TESTS, _PARTLY):
            self._program.deadline.ask()
            weights, _ = random_mixtures(self._program, self._generator, Mixing.ALL)
            run = self._program.run(point, weights=weights, probe=True, grad=False)
            self._runs.append({p: primal(v.switching).reshape(-1) for p, v in run.probes.items()})


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
    answer holds for whatever piece they have.

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
            values = primal(run.probes[form.position].switching).reshape(-1)
            value = float(values[form.plus])
            if form.minus is not None:
                value -= float(values[form.minus])
            terms.append(y * form.sign * value)
        size = sum(abs(t) for t in terms)
        if not abs(sum(terms)) <= IDENTITY_ZERO * size:  # NaN fails
            return False
    return True


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
