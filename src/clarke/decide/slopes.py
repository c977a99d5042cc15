"""The slopes of a site's candidates and switching functions, and what rounding may have done."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from clarke.constraints import flatten
from clarke.constraints.entries import gradients
from clarke.decide.linear import require_room
from clarke.errors import ReplayError
from clarke.kinks.choices import ChoiceRule
from clarke.numerics import (
    ERROR_SIZES,
    ROUNDING_MARGIN,
    ROWS_ROUNDING,
    SAMPLES,
    SLOPES_EQUAL,
    SPACINGS,
    UNIT,
)
from clarke.steering import Errors

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from clarke.steering import Program, Site

    Array = NDArray[np.float64]


@dataclass(eq=False)
class Slopes:
    """Slopes of a site under a selection of the earlier ones.

    Attributes:
        site: The site.
        choices: The selection; AD's where silent.
        candidates: (M, n) of its candidates.
        switching: (levels, K, n) of its switching functions; no levels where candidates are
            compared with each other.
    """

    site: Site
    choices: Mapping[int, torch.Tensor]
    candidates: Array
    switching: Array
    _noise: tuple[Array, Array] | None = None

    @staticmethod
    def of(program: Program, site: Site, choices: Mapping[int, torch.Tensor]) -> Slopes:
        """Differentiate."""
        return Slopes(site, choices, *_differentiate(program, site, choices))

    def noise(self, program: Program) -> tuple[Array, Array]:
        """How much of each entry rounding in float64 may be; computed when it is asked for.

        Found by making random errors, as `clarke.decide.rounding` does for gradients. Infinite
        where they lead out of a function's domain.
        """
        if self._noise is None:
            self._noise = self._made_with_errors(program)
        return self._noise

    def noise_of_candidates(self, program: Program, places: list[int]) -> Array:
        """(n,) the same of a sum or difference of candidates."""
        found: Array = self.noise(program)[0][places].sum(axis=0)
        return found

    def noise_of_switching(self, program: Program, level: int, index: int) -> Array:
        """(n,) the same of a kink's switching function."""
        found: Array = self.noise(program)[1][level, index]
        return found

    def vanishing(self, program: Program, index: int) -> NDArray[np.bool_]:
        """(levels,) which of a kink's switching functions have no slope but for rounding.

        That of another kink's slopes is no measure: beside a slope of 1e12 one of 1 is not zero.
        """
        own = np.abs(self.switching[:, index])
        scale = float(np.abs(self.switching).max(initial=0.0))
        zero: NDArray[np.bool_] = np.all(own == 0, axis=1)
        small = ~zero & (own.max(axis=1, initial=0.0) <= SLOPES_EQUAL * scale)
        for level in np.flatnonzero(small).tolist():
            zero[level] = bool((own[level] <= self.noise_of_switching(program, level, index)).all())
        return zero

    def room(self, program: Program, places: NDArray[np.intp]) -> Array:
        """(k, n) by how much each of a kink's candidates may be off and still be another one.

        A part of the largest, unless differences within that are more than roundings: slopes of
        -1 and 1 beside one of 1e12 are two. Rounding is looked at only where it decides.
        """
        mine = np.sort(self.candidates[places], axis=0)
        sizes = np.abs(mine).max(axis=0, initial=0.0)
        usual: Array = np.broadcast_to(SLOPES_EQUAL / 2 * sizes, mine.shape)
        steps = np.diff(mine, axis=0)
        few = SPACINGS * UNIT * np.maximum(np.abs(mine[1:]), np.abs(mine[:-1]))
        merged = (steps > few) & (steps <= SLOPES_EQUAL * sizes)
        # Beside large entries a small one may be all rounding, in its own size too.
        small = steps <= ROWS_ROUNDING * sizes.max(initial=0.0)
        doubtful = small & (steps * len(mine) > SLOPES_EQUAL * sizes)
        if not bool((merged | doubtful).any()):
            return usual
        noise = self.noise(program)[0][places]
        known = np.where(np.isfinite(noise), noise, usual)
        found: Array = np.where(merged.any(axis=0), known, np.maximum(usual, known))
        return found

    def _made_with_errors(self, program: Program) -> tuple[Array, Array]:
        own = (self.candidates, self.switching)
        bounds = [SPACINGS * UNIT * np.abs(part) for part in own]
        for seed in range(int(SAMPLES)):
            for size in ERROR_SIZES:
                errors = Errors(seed, size, double=True)
                try:
                    moved = _differentiate(program, self.site, self.choices, errors)
                except ReplayError:
                    continue
                if all(bool(np.isfinite(part).all()) for part in moved):
                    break
            else:
                return np.full_like(own[0], np.inf), np.full_like(own[1], np.inf)
            factor = float(ROUNDING_MARGIN) / size
            bounds = [
                np.maximum(bound, factor * np.abs(other - part))
                for bound, other, part in zip(bounds, moved, own, strict=True)
            ]
        return bounds[0], bounds[1]


def _differentiate(
    program: Program,
    site: Site,
    choices: Mapping[int, torch.Tensor],
    errors: Errors | None = None,
) -> tuple[Array, Array]:
    """Slopes of a site's candidates and switching functions.

    Raises:
        ReplayError: The errors lead out of a function's domain.
    """
    run = program.run(choices=choices, probe=True, errors=errors)
    probe = run.probes[site.position]
    size = sum(p.numel() for p in program.point)

    def each(values: torch.Tensor) -> Array:
        flat = values.reshape(-1)
        require_room(flat.numel(), size)
        out = np.zeros((flat.numel(), size))
        for i, gradient in enumerate(gradients(program, flat, run.leaves, range(len(flat)))):
            out[i] = flatten(gradient)
        return out

    candidates = each(probe.candidates)
    if isinstance(site.rule, ChoiceRule) or site.rule.by_weights:
        return candidates, np.zeros((0, site.touch.count, size))
    return candidates, each(probe.switching).reshape(-1, site.touch.count, size)
