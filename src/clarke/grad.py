"""`clarke.grad`: a gradient that is always an element of the Bouligand subdifferential."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from scipy.optimize import nnls

from clarke.capture import all_finite
from clarke.check import check
from clarke.constraints import find_relevant
from clarke.constraints.relevance import Mixing
from clarke.decide import Decision
from clarke.decide.detached import numbers_read, unseen_branch
from clarke.decide.nonfinite import limits_beside
from clarke.decide.responsible import wrong_functions
from clarke.decide.witnessed import Witnessed
from clarke.errors import BudgetError, InputError, OutOfTimeError, UnsupportedError
from clarke.fast import QuickJudge
from clarke.kinks import Hazard
from clarke.numerics import BESIDE_AGREES, CHECK_SECONDS
from clarke.prepare import prepared, vouched
from clarke.steering import Program, analyse, select_along, selected_gradient
from clarke.subdifferential import subdifferential
from clarke.undo import leaves_no_trace
from clarke.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from clarke.deadline import Deadline
    from clarke.steering import Analysis

# Up to this many variables the steered run is in float64, whatever the program's own type.
_SMALL = 100_000
_LIMITING: Final = frozenset({Verdict.SMOOTH, Verdict.BOULIGAND})


class Pick(Enum):
    """Which element of the set `grad` returns; values are sentences for users."""

    DIRECTION = "the limit along one random direction, the same in every call"
    RANDOM = "the limit along another random direction in every call"
    MIN_NORM = "the element of smallest norm of the whole set: zero at a stationary point"

    @classmethod
    def parse(cls, given: Pick | str) -> Pick:
        """A member, or its name in lower case.

        Raises:
            InputError: No such member; names the right spellings.
        """
        for member in cls:
            if given in (member, member.name.lower()):
                return member
        names = ", ".join(f'"{m.name.lower()}"' for m in cls)
        raise InputError(f"pick is {given!r}; it must be one of {names}.")


@leaves_no_trace
def grad(
    function: Callable[..., Any],
    inputs: Sequence[torch.Tensor] | torch.Tensor = (),
    *,
    wrt: Sequence[torch.Tensor] | None = None,
    pick: Pick | str = Pick.DIRECTION,
    generator: torch.Generator | None = None,
    seconds: float | None = CHECK_SECONDS,
) -> tuple[torch.Tensor, ...]:
    """The gradient of ``function(*inputs)``, or a limiting gradient where it has a kink.

    Every tie is settled along one random direction d: the pieces active just beside the point
    along d are differentiated. For almost every d the result is in the Bouligand subdifferential
    (witness theorem, docs/theory.md), and its inner product with d is the directional derivative.
    Values that the program detaches are held constant, as autograd does. Where pieces do not say
    it all, at the tip of a norm, what gradients along a ray tend to takes their place.
    Where no kink is touched this is `torch.autograd.grad`. So it is, unless a generator is given,
    in programs with more than 100 000 variables wherever a look at the recorded values alone
    proves that AD's gradient is in the set already (a bias or a layer's own weights settle its
    ties): following a direction takes several times as long as the gradient itself.

    Args:
        function: Returns a tensor with one element.
        inputs: Its arguments.
        wrt: Leaves to differentiate with respect to; default as in `clarke.check`.
        pick: "direction", "random" (another limiting gradient in every call), or "min_norm": the
            smallest element of the whole Clarke subdifferential, for small problems. At the tip
            of a norm that is zero, where autograd may give NaN.
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
    chosen = Pick.parse(pick)
    if chosen is Pick.RANDOM and generator is None:
        generator = torch.Generator()
        generator.seed()
    try:
        if chosen is Pick.MIN_NORM:
            whole = subdifferential(function, inputs, wrt=wrt, seconds=seconds)
            found = whole.min_norm(seconds=seconds)
            return tuple(g.to(x.dtype) for g, x in zip(found, whole.gradient, strict=True))
        return _along(function, inputs, wrt, generator, seconds)
    except OutOfTimeError:
        raise
    except (UnsupportedError, BudgetError, _NotFiniteError) as error:
        whole_set = chosen is Pick.MIN_NORM or isinstance(error, (_TipError, _NotFiniteError))
        tip = _at_a_tip(function, inputs, wrt, chosen, seconds) if whole_set else None
        if tip is not None:
            return tip
        kind = InputError if isinstance(error, _NotFiniteError) else UnsupportedError
        raise (error if isinstance(error, BudgetError) else kind(str(error))) from None


class _TipError(UnsupportedError):
    """Pieces do not describe the set: a slope is infinite, or the set is a ball."""


class _NotFiniteError(InputError):
    """The gradient found is not finite."""


def _at_a_tip(
    function: Callable[..., Any],
    inputs: Sequence[torch.Tensor] | torch.Tensor,
    wrt: Sequence[torch.Tensor] | None,
    pick: Pick,
    seconds: float | None,
) -> tuple[torch.Tensor, ...] | None:
    """An element where pieces do not describe the set, as at the tip of a norm; None: none proved.

    `check` says that there are limits of gradients; zero is the smallest element where the limits
    along some rays mix to it.
    """
    report = check(function, inputs, wrt=wrt, seconds=seconds)
    proof = report.certificate
    if report.verdict is Verdict.NONFINITE:
        limit = report.element
    elif report.correct and proof is not None and isinstance(proof.argument, Witnessed):
        limit = proof.witnesses[0].gradient
    else:
        limit = None
    if limit is None or pick is not Pick.MIN_NORM:
        found = limit
    else:
        with prepared(function, inputs, wrt, seconds) as run:
            program = Program(
                analyse(run.trace, run.registry, run.deadline), run.slots, deadline=run.deadline
            )
            unread = not numbers_read(run.trace)
            limits = limits_beside(program, torch.Generator().manual_seed(0)) if unread else []
        # Weights of a mixture that is zero, if there is one: they add up to one.
        scale = max((float(np.abs(v).max(initial=0.0)) for v in limits), default=0.0) or 1.0
        columns = [np.append(v / scale, 1.0) for v in limits]
        wanted = np.append(np.zeros(sum(x.numel() for x in limit)), 1.0)
        missed = nnls(np.stack(columns, 1), wanted)[1] if columns else np.inf
        found = tuple(torch.zeros_like(g) for g in limit) if missed <= BESIDE_AGREES else None
    if found is None:
        return None
    return tuple(g.to(x.dtype) for g, x in zip(found, report.gradient, strict=True))


def _along(
    function: Callable[..., Any],
    inputs: Sequence[torch.Tensor] | torch.Tensor,
    wrt: Sequence[torch.Tensor] | None,
    generator: torch.Generator | None,
    seconds: float | None,
) -> tuple[torch.Tensor, ...]:
    """What `grad` returns where pieces describe the set."""
    with prepared(function, inputs, wrt, seconds) as run:
        small = sum(x.numel() for x in run.leaves) <= _SMALL
        if not small and generator is None:
            quick = QuickJudge(run.registry).decide(
                run.trace, run.slots, run.gradient, run.deadline
            )
            if isinstance(quick, Decision) and quick.verdict in _LIMITING:
                return run.gradient
        analysis = vouched(run, "No gradient can be vouched for")
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
                raise _TipError(
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
            raise _TipError(
                f"No gradient can be vouched for: {site.touch.op.shown} at "
                f"{site.touch.location} stands at {hazard.value}."
            )


def _require_finite(gradient: Sequence[torch.Tensor]) -> None:
    if not all_finite(gradient):
        raise _NotFiniteError(
            "The gradient contains NaN or infinity. clarke.check names the operation at fault."
        )
