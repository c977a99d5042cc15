"""Tell a tiny tangent from a rounding error: a tangent is linear in the direction, an error is not.

Tangents far below the largest of their tensor may be what is left of a sum that cancels. If so,
they follow no rule; if not, the tangent along ``a d + b d'`` is ``a`` and ``b`` times those along
``d`` and ``d'``, to many digits. The factors are irrational: errors are small multiples of one
rounding unit, and would satisfy such a relation with whole numbers by chance.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from clarke.constraints.directions import random_tangents
from clarke.numerics import VARIES_APART

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from clarke.steering import Program

    Along = Callable[[Sequence[torch.Tensor]], torch.Tensor]

_ROUNDS = 2  # each lets an error pass with a probability of some 1e-4
_FACTORS = (0.7320508075688772, 1.4142135623730951)


def really_vary(
    program: Program, along: Along, suspects: torch.Tensor, generator: torch.Generator
) -> torch.Tensor:
    """Which of the suspected tangents are linear in the direction, hence no rounding errors.

    Args:
        program: For its space of directions.
        along: Tangents (m,) along a direction.
        suspects: (m,) bool.
        generator: Private randomness.
    """
    genuine = suspects.clone()
    for _ in range(_ROUNDS):
        if not bool(genuine.any()):
            break
        one, two = random_tangents(program, generator), random_tangents(program, generator)
        a, b = _FACTORS
        both = tuple(a * u + b * v for u, v in zip(one, two, strict=True))
        first, second, sums = along(one), along(two), along(both)
        size = (a * first).abs() + (b * second).abs()
        linear = (sums - a * first - b * second).abs() <= VARIES_APART * size
        genuine &= linear & (size > 0)
    return genuine
