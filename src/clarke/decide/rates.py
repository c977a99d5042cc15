"""How fast a function changes along directions, by its values, against what its pieces say."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property
from itertools import islice
from typing import TYPE_CHECKING

import torch

from clarke.constraints import flatten
from clarke.decide.beside import Beside
from clarke.decide.tolerance import REPLAY_SPACING, coarsest_epsilon, peak
from clarke.errors import ReplayError
from clarke.numerics import BESIDE_ULPS, CONFIRM_FINER, CONFIRM_STEPS, DETACHED_APART
from clarke.steering import Program, select_along, selected_gradient

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    Value = Callable[[Sequence[torch.Tensor]], float]


_STAYS = 0.5  # of a difference that a step ten times smaller does not take away
_WIDER = 3.0
_ROUNDINGS = 100.0


@dataclass(frozen=True)
class Again:
    """A way to the function's value at another point.

    Attributes:
        value: The value.
        exact: Computed in float64, whatever the program's own types are.
        gradient: The gradient at the point, with nothing held constant; None if not known.
        moving: Numbers of the variables that detached values were computed from; None if not
            known.
    """

    value: Value
    exact: bool = False
    gradient: Callable[[], tuple[torch.Tensor, ...]] | None = None
    moving: frozenset[int] | None = None


class UntoldError(ReplayError):
    """The pieces that are active along a direction cannot be told."""


class Held:
    """A program with its detached values constant, along some directions.

    Args:
        program: The program.
        directions: The directions, one tensor per variable each.
    """

    def __init__(self, program: Program, directions: Sequence[Sequence[torch.Tensor]]) -> None:
        self.program = program
        self.directions = directions
        self._rates: dict[int, float] = {}

    def rate(self, number: int) -> float:
        """How fast the pieces change that are active along a direction.

        Raises:
            UntoldError: They cannot be told.
        """
        if number not in self._rates:
            direction = self.directions[number]
            try:
                choices, _ = select_along(self.program, direction)
            except ReplayError as error:
                raise UntoldError(str(error)) from error
            gradient = selected_gradient(self.program, choices)
            self._rates[number] = float(flatten(gradient) @ flatten(direction))
        return self._rates[number]

    def all(self) -> list[float]:
        """The rates along all directions."""
        return [self.rate(n) for n in range(len(self.directions))]

    @cached_property
    def error(self) -> float:
        """What rounding in float64 can do to the value at the point."""
        return Beside(self.program, torch.Generator().manual_seed(0)).here.error


def apart_along(held: Held, again: Again) -> Iterator[bool]:
    """Along which directions the function changes at another rate than the pieces active there.

    Without those at which roundings hide the difference; one after another, as they are asked for.
    """
    value, program = again.value, held.program
    epsilon = coarsest_epsilon(program.analysis.trace)
    here = value(program.point)
    finest = epsilon
    if again.exact:
        epsilon = REPLAY_SPACING
        # Ties of the program's own type are apart in float64 by its roundings: no step is shorter.
        finest = finest if program.analysis.count else epsilon
    least = BESIDE_ULPS * finest * peak(program.point)
    noise = max(_ROUNDINGS * abs(here), held.error / REPLAY_SPACING) * epsilon
    for number, direction in enumerate(held.directions):
        expected = held.rate(number)

        @cache
        def slope(step: float, direction: Sequence[torch.Tensor] = direction) -> float:
            moved = [p + step * d for p, d in zip(program.point, direction, strict=True)]
            return (value(moved) - here) / step

        found = (_parts(slope, expected, noise, least, share) for share in DETACHED_APART)
        parts = next((p for p in found if p is not None), None)
        if parts is not None:
            yield parts


def _parts(
    slope: Callable[[float], float], expected: float, noise: float, least: float, share: float
) -> bool | None:
    """Whether difference quotients stay away from a derivative, however small the step.

    A step that is large beside the point shows the function's curvature, or bridges the steps of
    a rounding. So the smallest counts at which roundings of the values, up to `noise`, do not hide
    the difference; where it still comes nearer with the step, they are not apart. None if all are
    hidden. Steps below `least` do not move the point.
    """
    finest_first = (
        s
        for s in reversed((*CONFIRM_STEPS, *CONFIRM_FINER))
        if s >= least and noise / s <= share * max(abs(slope(s)), abs(expected))
    )
    usable = [*islice(finest_first, 2)][::-1]
    if not usable:
        return None
    # Of a single one that counts, a wider one says how much of the difference is curvature.
    compared = usable if len(usable) > 1 else [_WIDER * usable[0], *usable]
    gaps = [abs(slope(s) - expected) for s in compared]
    found = max(abs(slope(usable[-1])), abs(expected))
    if found == 0:
        return None
    return gaps[-1] > max(share * found, _STAYS * gaps[0])
