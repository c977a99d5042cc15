"""The same program in PyTorch, with automatic differentiation's own conventions at kinks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from reference.expr import (
    Expr,
    Extremum,
    Point,
    Pointwise,
    Rational,
    Square,
    Var,
    evaluation_order,
    smooth,
)
from reference.hull import exact
from reference.vias import AbsVia, ClampVia, ExtremumVia, LeakyVia, OwnVia, ReluVia

TorchProgram = Callable[[Tensor], Tensor]


def to_torch(expr: Expr) -> TorchProgram:
    """The program as a function of one vector, returning a scalar tensor of the same dtype."""
    order = evaluation_order(expr)

    def program(x: Tensor) -> Tensor:
        values: dict[Expr, Tensor] = {}
        for node in order:
            match node:
                case Var():
                    values[node] = x[node.index]
                case Square():
                    values[node] = values[node.arg].square()
                case Pointwise():
                    values[node] = pointwise(node, values[node.arg])
                case Extremum():
                    values[node] = extremum(node, [values[item] for item in node.items])
                case _:
                    values[node] = smooth(node, values, lambda c: x.new_tensor(float(c)))
        return values[expr]

    return program


def ad_gradient(expr: Expr, point: Sequence[Rational]) -> Point:
    """What torch.autograd.grad answers in float64 at `point`, as exact fractions."""
    x = torch.tensor([float(entry) for entry in point], dtype=torch.float64, requires_grad=True)
    value = to_torch(expr)(x)
    if not value.requires_grad:
        return exact([0] * len(point))
    (gradient,) = torch.autograd.grad(value, x)
    return exact(gradient.tolist())


def pointwise(node: Pointwise, x: Tensor) -> Tensor:
    """A pointwise kink, computed as its `via` says."""
    zero = torch.zeros_like(x)
    match node.via:
        case ReluVia():
            return RELU[node.via](x, zero)
        case AbsVia():
            return ABS[node.via](x)
        case ClampVia():
            lo, hi = (None if bound is None else float(bound) for bound in node.params)
            return CLAMP[node.via](x, lo, hi)
        case LeakyVia():
            return LEAKY[node.via](x, float(node.params[0]))
        case OwnVia.RELU6:
            return F.relu6(x)
        case OwnVia.HARDSIGMOID:
            return F.hardsigmoid(x)
        case OwnVia.SOFTSHRINK:
            return F.softshrink(x, float(node.params[0]))
    raise TypeError(f"No translation for {node.via}.")


def extremum(node: Extremum, items: list[Tensor]) -> Tensor:
    """A maximum or minimum, computed as its `via` says."""
    if node.sign < 0:
        return MINIMUM[node.via](items)
    return MAXIMUM[node.via](items)


def _min_max(x: Tensor, lo: float | None, hi: float | None) -> Tensor:
    x = x if lo is None else torch.maximum(x, x.new_tensor(lo))
    return x if hi is None else torch.minimum(x, x.new_tensor(hi))


def _pool(items: list[Tensor]) -> Tensor:
    return F.max_pool1d(torch.stack(items)[None, None], len(items)).reshape(())


RELU: dict[ReluVia, Callable[[Tensor, Tensor], Tensor]] = {
    ReluVia.RELU: lambda x, _: F.relu(x),
    ReluVia.CLAMP_MIN: lambda x, _: torch.clamp(x, min=0),
    ReluVia.THRESHOLD: lambda x, _: F.threshold(x, 0, 0),
    ReluVia.LEAKY_ZERO: lambda x, _: F.leaky_relu(x, 0.0),
    ReluVia.MAXIMUM: torch.maximum,
    ReluVia.AMAX: lambda x, zero: torch.stack([x, zero]).amax(0),
    ReluVia.FIRST: lambda x, zero: torch.stack([x, zero]).max(0).values,
    ReluVia.LAST: lambda x, zero: torch.stack([zero, x]).max(0).values,
    ReluVia.WHERE_GE: lambda x, zero: torch.where(x >= 0, x, zero),
    ReluVia.WHERE_GT: lambda x, zero: torch.where(x > 0, x, zero),
    ReluVia.MASK_GE: lambda x, _: x * (x >= 0),
    ReluVia.MASK_GT: lambda x, _: x * (x > 0),
    ReluVia.HALF_ABS: lambda x, _: (x + x.abs()) / 2,
    ReluVia.MINUS_CLAMP_MAX: lambda x, _: x - torch.clamp(x, max=0),
}

ABS: dict[AbsVia, Callable[[Tensor], Tensor]] = {
    AbsVia.ABS: torch.abs,
    AbsVia.MAXIMUM: lambda x: torch.maximum(x, -x),
    AbsVia.RELU_PAIR: lambda x: F.relu(x) + F.relu(-x),
    AbsVia.SIGN: lambda x: x * x.sign(),
    AbsVia.WHERE_GE: lambda x: torch.where(x >= 0, x, -x),
}

CLAMP: dict[ClampVia, Callable[[Tensor, float | None, float | None], Tensor]] = {
    ClampVia.CLAMP: torch.clamp,
    ClampVia.HARDTANH: F.hardtanh,
    ClampVia.MIN_MAX: _min_max,
}

LEAKY: dict[LeakyVia, Callable[[Tensor, float], Tensor]] = {
    LeakyVia.LEAKY_RELU: F.leaky_relu,
    LeakyVia.PRELU: lambda x, slope: F.prelu(x.reshape(1), x.new_tensor([slope])).reshape(()),
    LeakyVia.WHERE_GE: lambda x, slope: torch.where(x >= 0, x, slope * x),
}

MAXIMUM: dict[ExtremumVia, Callable[[list[Tensor]], Tensor]] = {
    ExtremumVia.PAIRWISE: lambda items: reduce(torch.maximum, items),
    ExtremumVia.AMAX: lambda items: torch.stack(items).amax(0),
    ExtremumVia.FULL: lambda items: torch.stack(items).max(),
    ExtremumVia.FIRST: lambda items: torch.stack(items).max(0).values,
    ExtremumVia.TOPK: lambda items: torch.stack(items).topk(1).values[0],
    ExtremumVia.SORT: lambda items: torch.stack(items).sort().values[-1],
    ExtremumVia.POOL: _pool,
    ExtremumVia.RELU_CHAIN: lambda items: reduce(lambda a, b: a + F.relu(b - a), items),
}

MINIMUM: dict[ExtremumVia, Callable[[list[Tensor]], Tensor]] = {
    ExtremumVia.PAIRWISE: lambda items: reduce(torch.minimum, items),
    ExtremumVia.AMAX: lambda items: torch.stack(items).amin(0),
    ExtremumVia.FULL: lambda items: torch.stack(items).min(),
    ExtremumVia.FIRST: lambda items: torch.stack(items).min(0).values,
    ExtremumVia.TOPK: lambda items: torch.stack(items).topk(1, largest=False).values[0],
    ExtremumVia.SORT: lambda items: torch.stack(items).sort().values[0],
    ExtremumVia.POOL: lambda items: -_pool([-item for item in items]),
    ExtremumVia.RELU_CHAIN: lambda items: reduce(lambda a, b: a - F.relu(a - b), items),
}
