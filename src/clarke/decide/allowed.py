"""How far entries of gradients and of sets may be off before they count as others."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from clarke.capture import all_finite
from clarke.constraints import flatten
from clarke.decide.model import weighted_sum
from clarke.decide.rounding import Rounding, spacings
from clarke.decide.verification import ad_weights, is_replayed, own_gradient
from clarke.numerics import (
    SET_ROUNDINGS,
    UNIT,
)
from clarke.steering import (
    Program,
    select_along,
    selected_gradient,
)
from clarke.steering.cones import with_cones

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from clarke.decide.model import Witness

    Tensors = tuple[torch.Tensor, ...]


def least_bounds(
    program: Program,
    gradient: Sequence[torch.Tensor],
    witnesses: Sequence[Witness],
    weights: Sequence[float],
) -> Tensors:
    """What no sum of witnesses' gradients escapes: its own roundings, and AD's last one."""
    held = [program.analysis.trace.slot_dtypes.get(s, torch.float64) for s in program.variables]
    sizes = weighted_sum([[g.abs() for g in w.gradient] for w in witnesses], weights)
    return tuple(
        SET_ROUNDINGS * UNIT * s + p for s, p in zip(sizes, spacings(gradient, held), strict=True)
    )


def allowed_error(program: Program, gradient: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n,) how far entries of a gradient may be off before it counts as another one.

    By more if it is not that of AD's own pieces in float64: then it is what AD returned, or given.
    """
    weights = ad_weights(program)
    own = own_gradient(program)
    found = flatten(Rounding(program, own, weights=weights, double=True).bounds)
    if not is_replayed(program, gradient):
        found = found + flatten(Rounding(program, own, weights=weights).bounds)
    return found


def rounding_of_selections(program: Program) -> NDArray[np.float64]:
    """(n,) how far rounding in float64 may have moved entries of selections' gradients.

    By AD's selection and those along a line: a piece of slope zero tells nothing of another's.
    """
    program = with_cones(program)
    generator = torch.Generator().manual_seed(0)
    line = [torch.randn(p.shape, generator=generator, dtype=torch.float64) for p in program.point]
    selections: list[dict[int, torch.Tensor] | None] = [None]
    selections += [select_along(program, tuple(s * p for p in line))[0] for s in (1, -1)]
    # A branch that a guard leaves out need not be defined at the point.
    gradients = [(c, selected_gradient(program, c)) for c in selections]
    defined = [(c, g) for c, g in gradients if all_finite(g)]
    bounds = [flatten(Rounding(program, g, c, double=True).bounds) for c, g in defined]
    found: NDArray[np.float64] = np.max(
        [np.zeros(sum(p.numel() for p in program.point)), *bounds], axis=0
    )
    return found
