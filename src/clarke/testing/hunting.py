"""A hunt as an assertion."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from clarke.errors import WrongGradientError
from clarke.hunt import Hunt, hunt
from clarke.numerics import HUNT_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import torch


def assert_no_wrong_gradient(
    function: Callable[..., Any],
    example_inputs: Sequence[Any] | torch.Tensor,
    *,
    seconds: float = HUNT_SECONDS,
    seed: int = 0,
    wrt: Sequence[torch.Tensor] | None = None,
    corpus: str | Path | None = None,
) -> Hunt:
    """Fail if a hunt finds a point at which autograd's gradient is wrong.

    Arguments as of `clarke.hunt`; with a `corpus` folder, finds are kept and tried first next
    time, as Hypothesis does.

    Returns:
        The hunt, which found nothing. That is no proof.

    Raises:
        WrongGradientError: An `AssertionError` with every find; `report` is that of the first.
        InputError: As `clarke.hunt`.
    """
    __tracebackhide__ = True  # a failing test shows its own line and the message
    found = hunt(function, example_inputs, seconds=seconds, seed=seed, wrt=wrt, corpus=corpus)
    if found:
        report = found.finds[0].report
        raise WrongGradientError(f"wrong gradient: {report.blamed}\n{found}", report)
    return found
