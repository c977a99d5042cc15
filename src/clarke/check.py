"""`clarke.check`: judge the gradient of one function at one point."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch

from clarke.capture import brought, brought_home, values_again
from clarke.decide import Confirm, Decision, Settings, decide
from clarke.decide.branches import steep_across
from clarke.decide.compiler import compare
from clarke.decide.detached import judge_detached, read_into_python
from clarke.decide.hazards import not_lipschitz
from clarke.decide.otherwise import Sample, can_be_told, grouped, has_no_other_side
from clarke.decide.rates import Again
from clarke.decide.tolerance import peak
from clarke.decide.unseen import judge_unseen
from clarke.decide.values import judge_values
from clarke.errors import (
    ClarkeError,
    InputError,
    ModifiedSinceError,
    OutOfMemoryError,
    OutOfTimeError,
    ReplayError,
    WrongGradientError,
)
from clarke.numerics import (
    CHECK_SECONDS,
    OTHERWISE_PROGRAMS,
    OTHERWISE_RAYS,
    OTHERWISE_STEPS,
)
from clarke.prepare import prepared
from clarke.report import Report, build_report
from clarke.steering import Program
from clarke.undo import leaves_no_trace
from clarke.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from clarke.capture import Trace
    from clarke.prepare import Prepared


_LEFT_OPEN: Final = (Verdict.UNDECIDED, Verdict.SURROGATE)  # what a branch of Python may leave


@leaves_no_trace
def check(
    function: Callable[..., Any],
    inputs: Sequence[torch.Tensor] | torch.Tensor = (),
    *,
    wrt: Sequence[torch.Tensor] | None = None,
    raise_exception: bool = False,
    settings: Settings | None = None,
    seconds: float | None = CHECK_SECONDS,
    gradient: Any = None,
) -> Report:
    """Judge whether the gradient that AD returns for ``function(*inputs)`` is a Clarke gradient.

    Where torch.compile runs the function, or a part of it, the compiled program's own gradient is
    judged, against the function as it was written; a note says how far it is from that of the
    function run uncompiled. All other runs are uncompiled, and nothing is compiled again.

    Args:
        function: Returns a tensor with one element that depends on leaves that require gradients:
            among `inputs`, or parameters that it uses. Run again beside the point where a
            positive verdict is to be confirmed.
        inputs: Its arguments.
        wrt: Leaves to differentiate with respect to; by default those that an optimizer could
            use: first the `inputs` that require gradients, then, in the order of first use,
            parameters and other leaves that the function closes over. Leaves that it makes itself
            while it runs (a gradient penalty's interpolates) are constants.
        raise_exception: Raise if the gradient is proved wrong; not for NaN, infinity, or undecided
            ones, for which `report.correct` is None.
        settings: Limits of the search.
        seconds: Time limit of clarke's own work, runs of the function beside the point included;
            the first run is not. When it ends, the verdict is `UNDECIDED` and says what was
            tried. None for no limit.
        gradient: Judge this gradient instead of autograd's: from another framework, a handwritten
            kernel, a compiled program. One array or tensor for each variable, in the order of
            `wrt`, of its shape and type; a single one need not be in a sequence.

    Returns:
        A `Report` with verdict, gradient, touched kinks and certificate.

    Raises:
        InputError: The call cannot be answered (no gradient, several outputs, complex numbers), or
            `gradient` is none for these variables.
        CaptureError: The program ran where clarke cannot watch (inference mode).
        WrongGradientError: With `raise_exception`, a proved wrong gradient.
    """
    __tracebackhide__ = True  # a failing test shows its own line and the message
    judged: tuple[torch.Tensor, ...] = ()
    decision, spent = Decision(Verdict.UNDECIDED, ""), 0.0
    settings = settings or Settings()
    try:
        with prepared(function, inputs, wrt, seconds) as run:
            _refuse_rewritten(run)
            if gradient is not None:
                judged = given_gradient(gradient, run.leaves)
                decision = _decided(run, judged, settings, given=True)
            elif run.compiled is None:
                judged = run.gradient
                decision = _decided(run, judged, settings, given=False)
            else:
                judged, decision = _compiled(run, run.compiled, settings)
            spent = run.deadline.spent
    except (OutOfTimeError, OutOfMemoryError) as error:
        decision = Decision(
            Verdict.UNDECIDED,
            str(error),
            analysis=decision.analysis,
            relevance=decision.relevance,
            out_of_time=isinstance(error, OutOfTimeError),
        )
    except ModifiedSinceError as error:
        decision = Decision(Verdict.UNDECIDED, str(error))
    report = build_report(decision, judged, spent)
    if raise_exception and report.verdict is Verdict.NOT_CLARKE:
        raise WrongGradientError(f"wrong gradient: {report.blamed}\n{report}", report)
    return report


def _decided(
    run: Prepared, gradient: tuple[torch.Tensor, ...], settings: Settings, *, given: bool
) -> Decision:
    """The verdict on a gradient, held against what the function returns."""
    found = _held(run, run.trace, run.slots, gradient, settings, given=given)
    if found.verdict in _LEFT_OPEN:
        return judge_otherwise(run, gradient, settings, found) or found
    return found


def _held(
    run: Prepared,
    trace: Trace,
    slots: tuple[int, ...],
    gradient: tuple[torch.Tensor, ...],
    settings: Settings,
    *,
    given: bool,
) -> Decision:
    """What the record says of a gradient, held against what the function returns."""
    rerun = run.rerun
    decision = decide(
        brought_home(trace),
        run.registry,
        slots,
        tuple(map(brought, gradient)),
        settings,
        None if rerun is None else lambda point: tuple(map(brought, rerun(point))),
        sees_values=True,
        given=given,
        deadline=run.deadline,
    )
    holding = f"holding the verdict {decision.verdict.name} against the function's values"
    with run.deadline.during(holding):
        told = decision.verdict is not Verdict.UNDECIDED or decision.out_of_time
        if decision.verdict.correct is not None or not (told or run.opened is None):
            # Only then: what a custom Function ran inside cannot always be run again.
            decision = judge_detached(decision, slots, run.values, run.deadline)
        if run.rerun is not None and settings.confirm is Confirm.ALWAYS:
            decision = judge_values(decision, slots, run.value, run.rerun, run.deadline)
        return judge_unseen(decision, slots, run.value, run.deadline)


def judge_otherwise(
    run: Prepared, gradient: tuple[torch.Tensor, ...], settings: Settings, found: Decision
) -> Decision | None:
    """What programs say of a gradient that run beside the point, and not at it; None if nothing."""
    analysis = found.analysis
    if analysis is None or run.rerun is None or run.drew or not can_be_told(run.trace):
        return None
    samples: list[Sample] = []
    point = [x.detach() for x in run.leaves]
    scale = peak(point) or 1.0
    generator = torch.Generator().manual_seed(4)
    try:
        for _ in range(int(OTHERWISE_RAYS)):
            ray = [torch.randn(x.shape, dtype=x.dtype, generator=generator) for x in point]
            for sign in (1, -1):
                far, near = (
                    run.sample([x + sign * s * scale * d for x, d in zip(point, ray, strict=True)])
                    for s in OTHERWISE_STEPS
                )
                if not far.same_as(near):
                    return None
                samples.append(far)
    except (ClarkeError, RuntimeError):
        return None
    programs = grouped(samples)
    alone = len(programs) == 1 and has_no_other_side(analysis)
    for sample in programs[: int(OTHERWISE_PROGRAMS)]:
        decision = _otherwise(run, sample, gradient, settings)
        if decision is None:
            continue
        if decision.verdict.correct or (alone and decision.verdict is Verdict.NOT_CLARKE):
            return decision
    steep = steep_across(Program(analysis, run.slots, deadline=run.deadline), Again(run.value))
    if steep is None:
        return None
    culprits = read_into_python(run.trace)
    return not_lipschitz(Program(analysis, run.slots), found.relevance, culprits, steep)


def _otherwise(
    run: Prepared, sample: Sample, gradient: tuple[torch.Tensor, ...], settings: Settings
) -> Decision | None:
    """What one of them says; None where it cannot be run at the point."""
    try:
        trace = sample.at(run.registry, run.deadline)
    except ReplayError:
        return None
    known = {id(e.tensor): e.slot for e in trace.leaves()}
    if not bool(values_again(trace, run.deadline)[trace.output].isfinite().all()):
        return None  # a quotient of zeros, which the branch at the point is there to avoid
    if not all(id(x) in known for x in run.leaves):
        return None
    slots = tuple(known[id(x)] for x in run.leaves)
    found = _held(run, trace, slots, gradient, settings, given=True)
    if found.verdict is Verdict.SMOOTH:
        found = replace(found, verdict=Verdict.BOULIGAND, reason=Verdict.BOULIGAND.value)
    read = read_into_python(run.trace)
    told = (
        f"What Python reads at {read[0].location} is otherwise beside the point: what runs there "
        "is judged."
    )
    return replace(found, notes=(*found.notes, told), culprits=found.culprits or read[:1])


def _compiled(
    run: Prepared,
    compiled: Callable[[], tuple[tuple[torch.Tensor, ...], float]],
    settings: Settings,
) -> tuple[tuple[torch.Tensor, ...], Decision]:
    """The gradient of the compiled program, and the verdict on it."""
    gradient, computed = compiled()
    beside = compare(run.trace, run.gradient, run.output, gradient, computed, draws=run.drew)
    refused = beside.refusal(lambda: run.beside([x.detach() for x in run.leaves]))
    if refused is not None:
        return gradient, refused
    shown = run.gradient if beside.broken else gradient
    given = not (beside.like or beside.broken)
    return gradient, beside.told(_decided(run, shown, settings, given=given))


def _refuse_rewritten(run: Prepared) -> None:
    if run.rewritten is not None:
        raise ModifiedSinceError(
            f"The function rewrites one of its variables at {run.rewritten} before using it (as "
            "max_norm of an embedding does), so autograd differentiates by another value than the "
            "one given. Rewrite it outside of the function."
        )


def given_gradient(gradient: Any, variables: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    """A gradient that came from anywhere, one tensor for each variable.

    Raises:
        InputError: It has other shapes or types than the variables, or is not finite.
    """
    parts = list(gradient) if isinstance(gradient, (tuple, list)) else [gradient]
    if len(parts) != len(variables):
        raise InputError(
            f"`gradient` has {len(parts)} parts, and there are {len(variables)} variables. Pass "
            "one for each, in the order of `wrt`, or else of the inputs that require gradients."
        )
    found = []
    for i, (part, x) in enumerate(zip(parts, variables, strict=True)):
        g = part if isinstance(part, torch.Tensor) else torch.as_tensor(np.asarray(part))
        if g.shape != x.shape:
            raise InputError(
                f"Part {i} of `gradient` has shape {tuple(g.shape)}, and its variable "
                f"{tuple(x.shape)}. Pass the gradient with respect to that variable."
            )
        if g.dtype != x.dtype:
            raise InputError(
                f"Part {i} of `gradient` is {g.dtype}, and its variable {x.dtype}: its roundings "
                "would count as errors, or its errors as roundings. Compute both in one type."
            )
        if not bool(torch.isfinite(g).all()):
            raise InputError(
                f"Part {i} of `gradient` holds NaN or infinity, which is no gradient of any "
                "function. Pass finite values; for autograd's own leave `gradient` out."
            )
        found.append(g.detach().clone())
    return tuple(found)
