"""A custom autograd.Function against a function that PyTorch differentiates."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from clarke.check import check
from clarke.errors import InputError, WrongGradientError
from clarke.numerics import BACKWARD_ALIKE, CHECK_SECONDS
from clarke.undo import leaves_no_trace
from clarke.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from clarke.report import Report


@leaves_no_trace
def check_backward(
    function: type[torch.autograd.Function] | Callable[..., Any],
    inputs: Sequence[Any] | torch.Tensor,
    reference: Callable[..., Any],
    *,
    raise_exception: bool = True,
    seconds: float | None = CHECK_SECONDS,
) -> tuple[Report, ...]:
    """Judge what a handwritten backward returns against the set of an eager reference function.

    At a kink the two may differ and both be right: what counts is whether the gradient of each
    component of the output is in the Clarke subdifferential of the reference's.

    Args:
        function: A custom `torch.autograd.Function`, or a function that uses one.
        inputs: Its arguments; of those that require gradients the gradients are judged.
        reference: Computes the same with PyTorch's own operations.
        raise_exception: Raise at the first gradient that is proved wrong.
        seconds: Time limit of `check` for each component of the output.

    Returns:
        One report for each component of the output, in order.

    Raises:
        InputError: The outputs differ in shape or value, or no input requires a gradient.
        WrongGradientError: A wrong gradient; the message names the component.
    """
    arguments = (inputs,) if isinstance(inputs, torch.Tensor) else tuple(inputs)
    fresh = {id(a): a.detach().clone().requires_grad_() for a in leaves_of(arguments)}
    arguments = tuple(fresh.get(id(a), a) for a in arguments)
    leaves = list(fresh.values())
    if not leaves:
        raise InputError("No input requires a gradient. Call requires_grad_() on one.")
    run: Callable[..., Any] = getattr(function, "apply", function)
    with torch.enable_grad():
        output, expected = _flat(run(*arguments)), _flat(reference(*arguments))
    if output.shape != expected.shape or not torch.allclose(
        output, expected, rtol=BACKWARD_ALIKE, atol=BACKWARD_ALIKE, equal_nan=True
    ):
        raise InputError(
            "The function and its reference return different values, so that a gradient of one "
            "says nothing of the other. Mend the forward pass first."
        )
    __tracebackhide__ = True  # a failing test shows its own line and the message
    reports = []
    for i, value in enumerate(output):
        gradient = [torch.zeros_like(x) for x in leaves]
        if value.requires_grad:
            gradient = list(
                torch.autograd.grad(value, leaves, retain_graph=True, materialize_grads=True)
            )

        def component(*given: Any, at: int = i) -> torch.Tensor:
            # What a component does not depend on has the gradient zero.
            nothing = torch.stack([(0 * x).sum() for x in leaves_of(given)]).sum()
            value: torch.Tensor = _flat(reference(*given))[at]
            return value + nothing

        report = check(component, arguments, wrt=leaves, seconds=seconds, gradient=gradient)
        if raise_exception and report.verdict is Verdict.NOT_CLARKE:
            raise WrongGradientError(
                f"Component {i} of {len(output)} has a wrong gradient.\n{report}", report
            )
        reports.append(report)
    return tuple(reports)


def leaves_of(arguments: Sequence[Any]) -> list[torch.Tensor]:
    """The arguments that require gradients."""
    return [a for a in arguments if isinstance(a, torch.Tensor) and a.requires_grad]


def _flat(output: Any) -> torch.Tensor:
    parts = output if isinstance(output, (tuple, list)) else (output,)
    return torch.cat([p.reshape(-1) for p in parts])
