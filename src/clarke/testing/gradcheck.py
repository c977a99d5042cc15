"""`clarke.testing.gradcheck`: `torch.autograd.gradcheck`, but right at kinks.

At a kink finite differences mix both sides, so torch's test fails for valid gradients (relu at 0)
and can pass for invalid ones. Here torch's test has the word wherever the function is
differentiable; at a kink it is `clarke.check` that decides, row by row of the Jacobian, and torch's
test is made beside the kink instead, where the witness says that the same pieces are active.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.autograd.gradcheck import GradcheckError
from torch.autograd.gradcheck import (
    gradcheck as torchs_gradcheck,
)  # which users put ours in place of

from clarke.check import check
from clarke.errors import CaptureError, InputError, in_a_line
from clarke.numerics import (
    CHECK_SECONDS,
    GRADCHECK_BESIDE,
)
from clarke.undo import leaves_no_trace
from clarke.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from clarke.report import Report


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
) -> bool:
    """Check gradients, at kinks against the Clarke subdifferential. Drop-in for torch's gradcheck.

    Every argument means what it means in `torch.autograd.gradcheck`. Away from kinks the answer is
    torch's. Where `func` touches a kink, each component of its output is judged by itself: AD's
    gradient of it must be proved to be in its Clarke subdifferential, and derivatives beside the
    kink, in the direction of each witness, must agree with finite differences.

    `func` takes the inputs and returns a tensor or several; it must be deterministic. Inputs that
    require gradients must be float64 for torch's test to make sense.

    `seconds` is the time limit of each `clarke.check` behind it (one for each component of the
    output); what it leaves undecided fails. None for no limit.

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
        failure = _failure(func, arguments, options, seconds)
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
) -> GradcheckError | None:
    theirs = _torchs_failure(func, arguments, options)
    try:
        rows = _Rows(func, arguments, seconds)
        if rows.touches_nothing():
            return theirs
        kinked: list[_Row] = []
        smooth: list[int] = []
        for i in range(rows.count):
            row = rows.judge(i)
            if row is None or row.report.verdict is Verdict.SMOOTH:
                smooth.append(i)
            elif row.report.correct:
                kinked.append(row)
            elif (
                row.report.touched == 0
                and row.report.verdict is not Verdict.NOT_CLARKE
                and not row.report.out_of_time
            ):
                # Nothing but torch's test can say anything here (a custom Function, say).
                smooth.append(i)
            else:
                return _judged(rows, row, theirs)
    except (InputError, CaptureError):
        return theirs
    if theirs is None:
        return None
    if not kinked:
        return theirs
    remaining = _torchs_failure(rows.only(smooth), arguments, options) if smooth else None
    return remaining or next(filter(None, (_beside(rows, r, options) for r in kinked)), None)


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

    given = [(a, a.detach().clone()) for a in arguments if _differentiable(a)]
    try:
        torchs_gradcheck(watched, arguments, raise_exception=True, **options)
    except GradcheckError as error:
        return error
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


@dataclass(frozen=True, eq=False)
class _Row:
    """One component of the output, with the verdict on its gradient.

    `variables` are the positions among the inputs of what it was differentiated with respect to.
    """

    index: int
    report: Report
    variables: tuple[int, ...]


class _Rows:
    """The components of the differentiable outputs, numbered in order."""

    def __init__(
        self, func: Callable[..., Any], arguments: tuple[Any, ...], seconds: float | None
    ) -> None:
        self._func = func
        self._seconds = seconds
        # clarke differentiates leaves; torch's test also takes inputs that were computed.
        fresh: dict[int, torch.Tensor] = {}
        self._arguments = tuple(
            fresh.setdefault(id(a), a.detach().requires_grad_()) if _differentiable(a) else a
            for a in arguments
        )
        # By position: in torch's forward mode no output says that it requires a gradient.
        outputs = self._outputs(self._arguments)
        self._chosen = [
            i for i, o in enumerate(outputs) if isinstance(o, torch.Tensor) and o.requires_grad
        ]
        chosen = [outputs[i] for i in self._chosen]
        if not chosen or any(o.is_complex() or o.layout != torch.strided for o in chosen):
            raise InputError("Only dense real outputs that require a gradient are judged.")
        self.count = sum(o.numel() for o in chosen)

    def _outputs(self, arguments: tuple[Any, ...]) -> list[Any]:
        with torch.enable_grad():
            found = self._func(*arguments)
        return list(found) if isinstance(found, (tuple, list)) else [found]

    def _flat(self, arguments: tuple[Any, ...]) -> torch.Tensor:
        outputs = self._outputs(arguments)
        return torch.cat([outputs[i].reshape(-1) for i in self._chosen])

    def only(self, indices: Sequence[int]) -> Callable[..., torch.Tensor]:
        """The function with the given components alone."""
        chosen = torch.tensor(indices, dtype=torch.int64)
        return lambda *arguments: self._flat(arguments)[chosen]

    def touches_nothing(self) -> bool:
        """Whether no relevant kink is touched: judged on one random sum of all components."""
        generator = torch.Generator().manual_seed(0)
        weights = torch.rand(self.count, generator=generator, dtype=torch.float64) + 0.5

        def mixed(*arguments: Any) -> torch.Tensor:
            flat = self._flat(arguments)
            return (flat * weights.to(flat)).sum()

        report = check(
            mixed,
            self._arguments,
            wrt=self._leaves(self._used(mixed)),
            seconds=self._seconds,
        )
        return report.verdict is Verdict.SMOOTH

    def judge(self, index: int) -> _Row | None:
        """The verdict on one component; None if it depends on no input."""

        def component(*arguments: Any) -> torch.Tensor:
            return self._flat(arguments)[index]

        used = self._used(component)
        if not used:
            return None
        report = check(component, self._arguments, wrt=self._leaves(used), seconds=self._seconds)
        return _Row(index, report, used)

    def _used(self, function: Callable[..., torch.Tensor]) -> tuple[int, ...]:
        candidates = [i for i, a in enumerate(self._arguments) if _differentiable(a)]
        first = {id(self._arguments[i]): i for i in reversed(candidates)}
        positions = sorted(first.values())
        if not positions:
            raise InputError("No input requires a gradient.")
        grads = torch.autograd.grad(
            function(*self._arguments), self._leaves(positions), allow_unused=True
        )
        pairs: list[tuple[int, Any]] = list(zip(positions, grads, strict=True))
        return tuple(i for i, g in pairs if g is not None)

    def _leaves(self, positions: Sequence[int]) -> list[torch.Tensor]:
        return [self._arguments[i] for i in positions]

    def moved(self, positions: Sequence[int], shifts: Sequence[torch.Tensor]) -> tuple[Any, ...]:
        """The arguments with some inputs shifted."""
        new = {
            id(self._arguments[i]): (self._arguments[i] + s.to(self._arguments[i].dtype))
            .detach()
            .requires_grad_()
            for i, s in zip(positions, shifts, strict=True)
        }
        return tuple(new.get(id(a), a) for a in self._arguments)


def _differentiable(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.requires_grad


def _beside(rows: _Rows, row: _Row, options: dict[str, Any]) -> GradcheckError | None:
    """Torch's test of one component beside its kink, along each witness."""
    certificate = row.report.certificate
    function = rows.only([row.index])
    for witness in certificate.witnesses if certificate is not None else ():
        size = max((float(d.abs().max()) for d in witness.direction if d.numel()), default=0.0)
        failure: GradcheckError | None = None
        for distance in GRADCHECK_BESIDE if size else ():
            shifts = [d * (distance / size) for d in witness.direction]
            failure = _torchs_failure(function, rows.moved(row.variables, shifts), options)
            if failure is None:
                break
        if failure is not None:
            return GradcheckError(
                f"Output component {row.index} is at a kink. Its gradient there follows the "
                "pieces that are active beside it, but derivatives beside the kink differ from "
                f"finite differences, so the derivative of a piece is wrong. There: {failure}"
            )
    return None


def _judged(rows: _Rows, row: _Row, theirs: GradcheckError | None) -> GradcheckError:
    what = f"Output component {row.index} of {rows.count}"
    torch_says = "passes" if theirs is None else "fails as well"
    if row.report.verdict is Verdict.NOT_CLARKE:
        says = f"{what} has a wrong gradient, at a kink."
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
