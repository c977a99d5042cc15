"""Calls of PyTorch at one of their kinks: the points at which conventions are measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional as F  # noqa: N812 - the usual name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@dataclass(frozen=True)
class Sample:
    """A call with arguments at which exactly one kink, step or singular point is touched.

    Attributes:
        call: What the user writes.
        kink: Where it is touched, in words.
        function: The same, callable with one tensor for each of `inputs`.
        inputs: Values of the tensors.
    """

    call: str
    kink: str
    function: Callable[..., Any]
    inputs: tuple[tuple[float, ...], ...]

    def tensors(self, dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, ...]:
        """Fresh leaves with the sample's values."""
        return tuple(torch.tensor(v, dtype=dtype, requires_grad=True) for v in self.inputs)


def _scalar(call: str, function: Callable[..., Any], *points: float) -> Iterator[Sample]:
    for point in points:
        yield Sample(call, f"x = {point:g}", function, ((point,),))


def _activations() -> Iterator[Sample]:
    yield from _scalar("relu(x)", F.relu, 0)
    yield from _scalar("leaky_relu(x, 0.01)", F.leaky_relu, 0)
    yield Sample("prelu(x, a)", "x = 0", F.prelu, ((0.0,), (0.25,)))
    yield from _scalar("rrelu(x), evaluating", F.rrelu, 0)
    yield from _scalar("relu6(x)", F.relu6, 0, 6)
    yield from _scalar("hardtanh(x)", F.hardtanh, -1, 1)
    yield from _scalar("hardsigmoid(x)", F.hardsigmoid, -3, 3)
    yield from _scalar("hardswish(x)", F.hardswish, -3, 3)
    yield from _scalar("elu(x, alpha=2)", lambda x: F.elu(x, 2.0), 0)
    yield from _scalar("selu(x)", F.selu, 0)
    yield from _scalar("celu(x, alpha=2)", lambda x: F.celu(x, 2.0), 0)
    yield from _scalar("threshold(x, 0, 0)", lambda x: F.threshold(x, 0.0, 0.0), 0)
    yield from _scalar("threshold(x, 1, 0)", lambda x: F.threshold(x, 1.0, 0.0), 1)
    yield from _scalar("hardshrink(x)", F.hardshrink, -0.5, 0.5)
    yield from _scalar("softshrink(x)", F.softshrink, -0.5, 0.5)


def _bounds() -> Iterator[Sample]:
    yield from _scalar("abs(x)", torch.abs, 0)
    yield from _scalar("clamp(x, min=0)", lambda x: torch.clamp(x, min=0), 0)
    yield from _scalar("clamp(x, max=0)", lambda x: torch.clamp(x, max=0), 0)
    yield from _scalar("clamp(x, -1, 1)", lambda x: torch.clamp(x, -1, 1), -1, 1)
    yield Sample(
        "clamp(x, min=lo)", "x = lo", lambda x, lo: torch.clamp(x, min=lo), ((1.0,), (1.0,))
    )
    yield Sample(
        "clamp(x, max=hi)", "x = hi", lambda x, hi: torch.clamp(x, max=hi), ((1.0,), (1.0,))
    )
    for name in ("maximum", "minimum", "fmax", "fmin"):
        yield Sample(f"{name}(x, y)", "x = y", getattr(torch, name), ((1.0,), (1.0,)))


def _choices() -> Iterator[Sample]:
    tied = ((2.0, 1.0, 2.0, 2.0),)
    low = ((-2.0, 1.0, -2.0, -2.0),)
    where = "x[0] = x[2] = x[3]"
    for name, values in (("max", tied), ("min", low)):
        full, along = getattr(torch, name), getattr(torch, f"a{name}")
        yield Sample(f"{name}(x)", where, full, values)
        yield Sample(f"{name}(x, 0)", where, lambda x, f=full: f(x, 0).values, values)
        yield Sample(f"a{name}(x, 0)", where, lambda x, f=along: f(x, 0), values)
    yield Sample("max_pool1d(x, 4)", where, lambda x: F.max_pool1d(x[None, None], 4), tied)
    yield Sample("max_pool2d(x, 2)", where, lambda x: F.max_pool2d(x.reshape(1, 1, 2, 2), 2), tied)
    yield Sample(
        "max_pool3d(x, (1, 2, 2))",
        where,
        lambda x: F.max_pool3d(x.reshape(1, 1, 1, 2, 2), (1, 2, 2)),
        tied,
    )
    yield Sample(
        "adaptive_max_pool1d(x, 1)", where, lambda x: F.adaptive_max_pool1d(x[None, None], 1), tied
    )
    yield Sample(
        "adaptive_max_pool2d(x, 1)",
        where,
        lambda x: F.adaptive_max_pool2d(x.reshape(1, 1, 2, 2), 1),
        tied,
    )


def _steps_and_slopes() -> Iterator[Sample]:
    yield from _scalar("round(x)", torch.round, 0.5)
    for name in ("floor", "ceil", "trunc", "frac"):
        yield from _scalar(f"{name}(x)", getattr(torch, name), 1)
    yield from _scalar("sqrt(x)", torch.sqrt, 0)
    yield from _scalar("x ** 0.5", lambda x: x**0.5, 0)
    yield from _scalar("acos(x)", torch.acos, 1)
    yield from _scalar("asin(x)", torch.asin, 1)
    yield Sample("hypot(x, y)", "x = y = 0", torch.hypot, ((0.0,), (0.0,)))
    yield Sample("atan2(x, y)", "x = y = 0", torch.atan2, ((0.0,), (0.0,)))
    yield Sample("linalg.vector_norm(x)", "x = 0", torch.linalg.vector_norm, ((0.0, 0.0),))


def samples() -> tuple[Sample, ...]:
    """The sample calls, by family."""
    return (*_activations(), *_bounds(), *_choices(), *_steps_and_slopes())
