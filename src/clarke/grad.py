"""`clarke.grad`: a gradient that is always an element of the Bouligand subdifferential."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import torch

from clarke.constraints import find_relevant, resolve
from clarke.constraints.relevance import Mixing
from clarke.decide import Decision
from clarke.decide.applied import not_vouched
from clarke.decide.detached import declared_rate, numbers_read, unseen_branch
from clarke.decide.hazards import obstacle
from clarke.decide.responsible import wrong_functions
from clarke.errors import InputError, UnsupportedError
from clarke.fast import QuickJudge
from clarke.kinks import Hazard
from clarke.numerics import CHECK_SECONDS
from clarke.prepare import prepared
from clarke.steering import Program, analyse, select_along, selected_gradient
from clarke.undo import leaves_no_trace
from clarke.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from clarke.deadline import Deadline
    from clarke.steering import Analysis

# Up to this many variables the steered run is in float64, whatever the program's own type.
_SMALL = 100_000
_LIMITING: Final = frozenset({Verdict.SMOOTH, Verdict.BOULIGAND})


@leaves_no_trace
def grad(
    function: Callable[..., Any],
    inputs: Sequence[torch.Tensor] | torch.Tensor = (),
    *,
    wrt: Sequence[torch.Tensor] | None = None,
    generator: torch.Generator | None = None,
    seconds: float | None = CHECK_SECONDS,
) -> tuple[torch.Tensor, ...]:
    """The gradient of ``function(*inputs)``, or a limiting gradient where it has a kink.

    Every tie is settled along one random direction d: the pieces active just beside the point
    along d are differentiated. For almost every d the result is in the Bouligand subdifferential
    (witness theorem, docs/theory.md), and its inner product with d is the directional derivative.
    Values that the program detaches are held constant, as autograd does.
    Where no kink is touched this is `torch.autograd.grad`. So it is, unless a generator is given,
    in programs with more than 100 000 variables wherever a look at the recorded values alone
    proves that AD's gradient is in the set already (a bias or a layer's own weights settle its
    ties): following a direction takes several times as long as the gradient itself.

    Args:
        function: Returns a tensor with one element.
        inputs: Its arguments.
        wrt: Leaves to differentiate with respect to; default as in `clarke.check`.
        generator: Source of the direction; by default seeded with 0, so that calls repeat. Where
            one is given, a direction is always followed.
        seconds: Time limit of clarke's own work, without the first run of the function; None for
            no limit.

    Returns:
        One tensor per variable, with its shape and dtype.

    Raises:
        InputError: The call cannot be answered (no gradient, several outputs, NaN in the result).
        UnsupportedError: An operation on the way is unknown, or has a step or an infinite slope
            at this point; a comparison at a tie chooses between values that part beside the point;
            or the program reads values into Python and takes another branch there.
        OutOfTimeError: No answer in time.
        OutOfMemoryError: No answer within the memory.
    """
    with prepared(function, inputs, wrt, seconds) as run:
        small = sum(x.numel() for x in run.leaves) <= _SMALL
        if not small and generator is None:
            quick = QuickJudge(run.registry).decide(
                run.trace, run.slots, run.gradient, run.deadline
            )
            if isinstance(quick, Decision) and quick.verdict in _LIMITING:
                return run.gradient
        analysis = analyse(run.trace, run.registry, run.deadline)
        analysis = resolve(analysis, run.registry, run.slots, run.deadline)
        blocked = obstacle(analysis, sees_values=False)
        if blocked is not None:
            raise UnsupportedError(f"No gradient can be vouched for: {blocked.reason}")
        declared = not_vouched(analysis, run.registry, run.slots, run.deadline)
        declared = declared or declared_rate(analysis, run.slots, run.values)
        if declared is not None:
            raise UnsupportedError(f"No gradient can be vouched for: {declared.reason}")
        reads = bool(numbers_read(run.trace))
        # Autograd's own formula may fail where it is in doubt, or fused with others.
        alone = bool(analysis.doubtful or wrong_functions(analysis) or analysis.trace.applied)
        alone = alone or any(op.stands_for for op in analysis.trace.ops)
        if analysis.count == 0 and not (alone or reads):
            _require_finite(run.gradient)
            return run.gradient
        _refuse_hazards(analysis)
        _refuse_steps(analysis, run.slots, run.deadline)
        dtype = torch.float64 if small else _widest(run.leaves)
        generator = generator or torch.Generator().manual_seed(0)
        program = Program(analysis, run.slots, dtype, run.deadline)
        direction = tuple(
            torch.randn(p.shape, dtype=dtype, generator=generator) for p in program.point
        )
        branch = unseen_branch(analysis, program, direction, run.value)
        if branch is not None:
            raise UnsupportedError(f"No gradient can be vouched for: {branch.reason}")
        choices, _ = select_along(program, direction)
        found = selected_gradient(program, choices)
    result = tuple(g.to(x.dtype) for g, x in zip(found, run.leaves, strict=True))
    _require_finite(result)
    return result


def _widest(leaves: Sequence[torch.Tensor]) -> torch.dtype:
    kinds = {x.dtype for x in leaves}
    return torch.float64 if torch.float64 in kinds else torch.float32


def _refuse_hazards(analysis: Analysis) -> None:
    for site in analysis.ordered():
        for hazard in site.touch.hazards:
            if hazard is not Hazard.IMPROPER:
                raise UnsupportedError(
                    f"No gradient can be vouched for: {site.touch.op.shown} at "
                    f"{site.touch.location} stands at {hazard.value}."
                )


def _refuse_steps(analysis: Analysis, variables: Sequence[int], deadline: Deadline) -> None:
    """Comparisons at a tie: the values between which they choose may part beside the point."""
    if not any(s.rule.by_value and s.touch.count for s in analysis.sites.values()):
        return
    # Under all selections at once: a direction that meets the tie sees one of them only.
    program = Program(analysis, variables, deadline=deadline)
    found = find_relevant(program, torch.Generator().manual_seed(1), Mixing.ALL)
    for op in found.lost_masks:
        raise UnsupportedError(
            f"No gradient can be vouched for: {op.shown} at {op.location} reads a comparison at a "
            "tie, which cannot be followed through it."
        )
    for hazard, kinks in found.hazards.items():
        if hazard is not Hazard.IMPROPER:
            site = analysis.site_of(int(kinks[0]))
            raise UnsupportedError(
                f"No gradient can be vouched for: {site.touch.op.shown} at "
                f"{site.touch.location} stands at {hazard.value}."
            )


def _require_finite(gradient: Sequence[torch.Tensor]) -> None:
    if not all(bool(torch.isfinite(g).all()) for g in gradient):
        raise InputError(
            "The gradient contains NaN or infinity. clarke.check names the operation at fault."
        )
