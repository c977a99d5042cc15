"""Whether touched kinks change the result: one replay tells where none does."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from clarke.constraints import find_relevant
from clarke.decide.hazards import obstacle
from clarke.decide.rounding import Rounding, spacings
from clarke.decide.tolerance import within
from clarke.decide.verification import ad_weights
from clarke.numerics import QUICK_BOUND
from clarke.steering import Program, selected_gradient

if TYPE_CHECKING:
    from collections.abc import Sequence

    from clarke.deadline import Deadline
    from clarke.steering import Analysis


def may_matter(
    analysis: Analysis,
    variables: Sequence[int],
    gradient: Sequence[torch.Tensor] | None,
    generator: torch.Generator,
    deadline: Deadline,
) -> bool:
    """Whether some touched kink may change the result; False is certain.

    Args:
        analysis: The trace and its kinks.
        variables: External slots of the variables.
        gradient: Held against that of the recorded pieces; None where rules say what autograd does.
        generator: Private randomness.
        deadline: Asked on the way.
    """
    sites = [s for s in analysis.sites.values() if s.touch.count]
    if any(s.rule.by_value or s.rule.doubtful for s in sites):
        return True
    if obstacle(analysis, sees_values=False) is not None:
        return True
    program = Program(analysis, variables, deadline=deadline)
    with torch.enable_grad():  # to see what a kink reaches
        relevance = find_relevant(program, generator)
        if bool(relevance.relevant.any() or relevance.hazards or relevance.lost_masks):
            return True
        if gradient is None:
            return False
        own = selected_gradient(program, weights=ad_weights(program))
        if within(own, gradient, spacings(gradient, [g.dtype for g in gradient])):
            return False
        rounding = Rounding(program, own, weights=ad_weights(program))
        bounds = rounding.bounds
        if not within(own, gradient, bounds):
            return True
        # Where a bound is of the size of its tensor, agreement may tell little.
        tells = all(
            float(b.max()) <= QUICK_BOUND * float(g.abs().max())
            for b, g in zip(bounds, own, strict=True)
            if b.numel()
        )
        return not tells and rounding.vague(gradient)
