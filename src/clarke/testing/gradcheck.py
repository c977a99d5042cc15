"""`clarke.testing.gradcheck`: `torch.autograd.gradcheck`, but right at kinks.

At a kink finite differences mix both sides, so torch's test fails for valid gradients (relu at 0)
and can pass for invalid ones. Here torch's test has the word wherever the function is
differentiable; at a kink it is `clarke.check` that decides, row by row of the Jacobian, and torch's
test is made beside the kink instead, where the witness says that the same pieces are active.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any, Final

import torch
from torch.autograd.gradcheck import GradcheckError
from torch.autograd.gradcheck import (
    gradcheck as torchs_gradcheck,
)  # which users put ours in place of

from clarke.decide.tolerance import peak
from clarke.errors import CaptureError, InputError, in_a_line
from clarke.hunt import hunt
from clarke.numerics import CHECK_SECONDS, GRADCHECK_BESIDE, HUNT_SECONDS
from clarke.testing.rows import Row, Rows, differentiable
from clarke.undo import leaves_no_trace
from clarke.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from clarke.report import Report


class Undecided(Enum):
    """What `gradcheck` makes of a gradient that is proved neither right nor wrong."""

    FAIL = "fail"
    TORCH = "torch"
    SKIP = "skip"

    @classmethod
    def parse(cls, value: Undecided | str) -> Undecided:
        """The member, from itself or its value.

        Raises:
            InputError: There is no such member.
        """
        try:
            return cls(value)
        except ValueError:
            known = ", ".join(repr(m.value) for m in cls)
            raise InputError(f"`undecided` is {value!r}; it takes {known}.") from None


_OPEN: Final = (Verdict.UNDECIDED, Verdict.SURROGATE)


@leaves_no_trace
def gradcheck(  # noqa: PLR0913 - torch's signature
    func: Callable[..., Any],
    inputs: torch.Tensor | Sequence[Any],
    *,
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
    raise_exception: bool = True,
    nondet_tol: float = 0.0,
    check_undefined_grad: bool = True,
    check_grad_dtypes: bool = False,
    check_batched_grad: bool = False,
    check_batched_forward_grad: bool = False,
    check_forward_ad: bool = False,
    check_backward_ad: bool = True,
    fast_mode: bool = False,
    masked: bool | None = None,
    seconds: float | None = CHECK_SECONDS,
    undecided: Undecided | str = Undecided.FAIL,
    special: bool = False,
) -> bool:
    """Check gradients, at kinks against the Clarke subdifferential. Drop-in for torch's gradcheck.

    Every argument means what it means in `torch.autograd.gradcheck`. Away from kinks the answer is
    torch's. Where `func` touches a kink, each component of its output is judged by itself: AD's
    gradient of it must be proved to be in its Clarke subdifferential, and derivatives beside the
    kink, in the direction of each witness, must agree with finite differences.

    `func` takes the inputs and returns a tensor or several; it must be deterministic. Inputs that
    require gradients must be float64 for torch's test to make sense.

    `seconds` is the time limit of each `clarke.check` behind it: one for all components together,
    and one for each of those that this leaves open. None for no limit.

    `undecided` says what becomes of a component that touches a kink and is proved neither right nor
    wrong (or has a surrogate derivative): "fail", "torch" (torch's test has the word) or "skip".
    Kinks that are touched and cannot matter never count.

    With `special`, the inputs are also moved to where kinks are: zeros, ones, equal entries, the
    function's own constants and what else `clarke.hunt` visits, for as long as `seconds`. A
    component that is proved wrong there fails.

    Returns:
        Whether all gradients passed.

    Raises:
        GradcheckError: A gradient failed, or could not be decided (with `raise_exception`).
        ValueError: As torch's, for calls that make no sense (no input requires a gradient).
    """
    options: dict[str, Any] = {
        "eps": eps,
        "atol": atol,
        "rtol": rtol,
        "nondet_tol": nondet_tol,
        "check_undefined_grad": check_undefined_grad,
        "check_grad_dtypes": check_grad_dtypes,
        "check_batched_grad": check_batched_grad,
        "check_batched_forward_grad": check_batched_forward_grad,
        "check_forward_ad": check_forward_ad,
        "check_backward_ad": check_backward_ad,
        "fast_mode": fast_mode,
        "masked": masked,
    }
    arguments = (inputs,) if isinstance(inputs, torch.Tensor) else tuple(inputs)
    __tracebackhide__ = True  # a failing test shows its own line and the message, not this function
    try:
        failure = _failure(func, arguments, options, seconds, Undecided.parse(undecided))
        if failure is None and special:
            failure = _elsewhere(func, arguments, seconds)
        if failure is not None:
            raise failure.with_traceback(None)
    except GradcheckError:
        if raise_exception:
            raise
        return False
    return True


def _failure(
    func: Callable[..., Any],
    arguments: tuple[Any, ...],
    options: dict[str, Any],
    seconds: float | None,
    undecided: Undecided,
) -> GradcheckError | None:
    theirs = _torchs_failure(func, arguments, options)
    try:
        rows = Rows(func, arguments, seconds)
        if rows.is_off_kinks(passed=theirs is None):
            return theirs
        whole = rows.together(range(rows.count))
        if whole is None or whole.report.verdict is Verdict.SMOOTH:
            return theirs
        kinked: list[Row] = []
        left: set[int] = set()  # to no test
        for row in rows.judged(whole):
            if undecided is Undecided.SKIP and row.report.verdict in _OPEN:
                left.update(row.indices)
            elif _is_torchs(row.report):
                continue
            elif row.report.correct:
                kinked.append(row)
            elif undecided is Undecided.FAIL or row.report.verdict not in _OPEN:
                return _judged(rows, row, theirs)
        smooth = sorted(set(range(rows.count)) - left - {i for r in kinked for i in r.indices})
    except (InputError, CaptureError):
        return theirs
    if theirs is None:
        return None
    if len(smooth) == rows.count:
        return theirs
    remaining = _torchs_failure(rows.only(smooth), arguments, options) if smooth else None
    return remaining or next(filter(None, (_beside(rows, r, options) for r in kinked)), None)


def _is_torchs(report: Report) -> bool:
    """Whether nothing but torch's test can say anything, or it has the last word anyway."""
    if report.verdict is Verdict.SMOOTH:
        return True
    known = all(k.relevant is not None for k in report.kinks)
    matter = report.relevant if known else report.touched
    return matter == 0 and report.verdict is not Verdict.NOT_CLARKE and not report.out_of_time


def _blaming_the_type(error: GradcheckError, arguments: tuple[Any, ...]) -> GradcheckError:
    """A failure of finite differences, which in narrow types tell nothing of the gradient."""
    narrow = {
        str(a.dtype).removeprefix("torch."): None
        for a in arguments
        if differentiable(a) and a.dtype not in (torch.float64, torch.complex128)
    }
    if not narrow:
        return error
    return GradcheckError(
        f"Finite differences in {', '.join(narrow)} have too few digits to be compared with: this "
        "need not be a wrong gradient. Pass inputs in float64 (x.double().requires_grad_()). "
        f"Torch's test says: {error}"
    )


def _torchs_failure(
    func: Callable[..., Any], arguments: tuple[Any, ...], options: dict[str, Any]
) -> GradcheckError | None:
    raised: list[Exception] = []

    def watched(*values: Any) -> Any:
        try:
            return func(*values)
        except Exception as error:
            raised.append(error)
            raise

    given = [(a, a.detach().clone()) for a in arguments if differentiable(a)]
    try:
        torchs_gradcheck(watched, arguments, raise_exception=True, **options)
    except GradcheckError as error:
        return _blaming_the_type(error, arguments)
    except Exception as error:
        if error not in raised and "when inputs are perturbed" not in str(error):
            raise  # torch's own, about the call
        for argument, value in given:
            argument.data.copy_(value)  # torch moves its inputs, and left them there
        return GradcheckError(
            f"Beside the point the function raises {in_a_line(error)}. Pass a point around which "
            "it is defined."
        )
    return None


def _elsewhere(
    func: Callable[..., Any], arguments: tuple[Any, ...], seconds: float | None
) -> GradcheckError | None:
    """A component that is proved wrong at another point, where kinks are."""
    try:
        rows = Rows(func, arguments, seconds)
        limit = HUNT_SECONDS if seconds is None else seconds
        found = hunt(rows.mixed, rows.arguments, seconds=limit)
        for find in found.finds:
            pairs = zip(find.inputs, rows.arguments, strict=True)
            point = [x.requires_grad_() if differentiable(a) else x for x, a in pairs]
            there = Rows(func, tuple(point), seconds)
            for i in range(there.count):
                row = there.together([i])
                if row is not None and row.report.verdict is Verdict.NOT_CLARKE:
                    return GradcheckError(
                        f"Output component {i} of {there.count} has a wrong gradient at another "
                        f"point than the one given.\n{find}"
                    )
    except (InputError, CaptureError):
        return None
    return None


def _beside(rows: Rows, row: Row, options: dict[str, Any]) -> GradcheckError | None:
    """Torch's test of one component beside its kink, along each witness."""
    certificate = row.report.certificate
    function = rows.only(row.indices)
    for witness in certificate.witnesses if certificate is not None else ():
        size = peak(witness.direction)
        failure: GradcheckError | None = None
        for distance in GRADCHECK_BESIDE if size else ():
            shifts = [d * (distance / size) for d in witness.direction]
            failure = _torchs_failure(function, rows.moved(row.variables, shifts), options)
            if failure is None:
                break
        if failure is not None:
            return GradcheckError(
                f"Output component {row.indices[0]} is at a kink. Its gradient there follows the "
                "pieces that are active beside it, but derivatives beside the kink differ from "
                f"finite differences: the derivative of a piece is wrong, or they are. {failure}"
            )
    return None


def _judged(rows: Rows, row: Row, theirs: GradcheckError | None) -> GradcheckError:
    what = f"Output component {row.indices[0]} of {rows.count}"
    torch_says = "passes" if theirs is None else "fails as well"
    if row.report.verdict is Verdict.NOT_CLARKE:
        smooth = "" if row.report.touched else " (Jacobian mismatch)"
        says = f"{what} has a wrong gradient{', at a kink' if row.report.touched else smooth}"
        says += f": {row.report.blamed}." if row.report.blamed else "."
    elif row.report.verdict in (Verdict.UNDECIDED, Verdict.SURROGATE):
        says = (
            f"{what} touches a kink where its gradient could be proved neither right nor wrong, "
            "which counts as a failure. Move the inputs off the kink, or simplify the function "
            f"around it. (torch.autograd.gradcheck {torch_says}.)"
        )
    else:
        says = f"{what} has no gradient to be right. (torch.autograd.gradcheck {torch_says}.)"
    return GradcheckError(f"{says}\n{row.report}")


__all__ = ["GradcheckError", "gradcheck"]
