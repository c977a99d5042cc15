"""Which kinks make a gradient wrong together."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from clarke.constraints import flatten
from clarke.deadline import rung
from clarke.decide.enumerate import Enumeration
from clarke.decide.limits import Limits
from clarke.decide.limitset import Component, LimitSet
from clarke.decide.live import Live
from clarke.decide.model import Culprit, culprit_of
from clarke.errors import BudgetError, OutOfTimeError
from clarke.kinks.functions import FunctionRule, backward_differs
from clarke.steering import selected_gradient

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from clarke.decide.exact import Exact
    from clarke.steering import Analysis, Program

_MOST = 16


@rung("naming the kinks at fault")
def responsible_kinks(
    program: Program, exact: Exact, allowed: NDArray[np.float64], generator: torch.Generator
) -> tuple[int, ...]:
    """A minimal set of kinks with which AD is wrong while all others keep one piece.

    Kinks are dropped one at a time for as long as what AD returns with the remaining ones stays
    outside of the set that they span.
    """
    kinks = exact.live.kinks.nonzero().squeeze(1).tolist()
    if len(kinks) > _MOST:
        return tuple(kinks)
    kept = list(kinks)
    whole = Enumeration(program, exact.live, generator)
    for kink in kinks:
        fewer = [k for k in kept if k != kink]
        if fewer and _is_wrong(program, exact, fewer, allowed, generator, whole):
            kept = fewer
    return tuple(kept)


def _is_wrong(
    program: Program,
    exact: Exact,
    kinks: Sequence[int],
    allowed: NDArray[np.float64],
    generator: torch.Generator,
    whole: Enumeration,
) -> bool:
    mask = torch.zeros_like(exact.live.kinks)
    mask[list(kinks)] = True
    live = Live(mask, exact.live.constant, exact.live.affine)
    try:
        cells = Enumeration(program, live, generator, Limits(2_000, 500), whole).run().cells
    except OutOfTimeError:
        raise
    except BudgetError:
        return False
    weights = {}
    for position, site in program.analysis.sites.items():
        touch = site.touch
        if touch.count == 0:
            continue
        own = mask[site.first : site.first + touch.count]
        pure = (touch.members == touch.chosen()[touch.owner]).to(torch.float64)
        if bool((touch.mixed() & own).any()):
            weights[position] = torch.where(own[touch.owner], touch.weights, pure)
    returned = flatten(selected_gradient(program, weights=weights))
    if not cells:
        return False
    part = Component(np.stack([c.gradient for c in cells]), cells, ())
    return LimitSet(np.zeros(len(returned)), (part,)).place(returned, allowed).inside is False


def culprits_of(program: Program, kinks: Sequence[int]) -> tuple[Culprit, ...]:
    """The operations of a set of kinks, with how many of them each has."""
    named = np.sort(np.asarray(kinks, dtype=np.int64))
    found = []
    for site in program.analysis.ordered():
        ends = np.searchsorted(named, (site.first, site.first + site.touch.count))
        count, op = int(ends[1] - ends[0]), site.touch.op
        if not count:
            continue
        many = "kinks" if count > 1 else "kink"
        found.append(Culprit(op.shown, op.location, f"{count} touched {many} that must agree"))
    return tuple(found)


def wrong_functions(analysis: Analysis) -> tuple[Culprit, ...]:
    """Declared Functions whose own backward is not the derivative of their declared pieces."""
    return tuple(
        culprit_of(site.touch, "its own backward is not the derivative of its declared pieces")
        for site in analysis.ordered()
        if isinstance(site.rule, FunctionRule) and backward_differs(site.touch.op, site.rule)
    )
