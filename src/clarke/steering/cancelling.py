"""Derivative formulas in which digits cancel although none do in what the operation returns.

The derivative of ``y = tanh(x)`` is computed as ``1 - y * y`` from the rounded result: at 5 in
float32 it has two digits less than ``y``. No error in ``x`` shows that, which ``tanh`` flattens.
Here stands, for every operation of this kind, the size of the terms that its formula adds up for
each entry of the adjoint; an error of one rounding of these is what the formula can leave.
Measured on torch 2.13: which operations use their results, and how.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch

from clarke.steering.adapt import ATTENTION, attention_scores

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from clarke.kinks import Call

    # Sizes of the terms of an adjoint (of those of the first arguments), given the call, its result
    # and the result's adjoint.
    Sizes = torch.Tensor | tuple[torch.Tensor, ...]
    Terms = Callable[[Call, torch.Tensor, torch.Tensor], Sizes]


def _gelu(call: Call, _: torch.Tensor, adjoint: torch.Tensor) -> torch.Tensor:
    """``Phi(x) + x phi(x)``, of which ``Phi`` is computed as ``(1 + erf) / 2``."""
    x: torch.Tensor = call.args[0].detach()
    return adjoint.abs() * (1 + x.abs() * (-x * x / 2).exp())


def _silu(call: Call, _: torch.Tensor, adjoint: torch.Tensor) -> torch.Tensor:
    x: torch.Tensor = call.args[0].detach()
    return adjoint.abs() * x.sigmoid() * (1 + x.abs() * (-x).sigmoid())


def _mish(call: Call, _: torch.Tensor, adjoint: torch.Tensor) -> torch.Tensor:
    x: torch.Tensor = call.args[0].detach()
    inner = torch.nn.functional.softplus(x).tanh()
    return adjoint.abs() * (inner + x.abs() * x.sigmoid() * (1 + inner * inner))


def _softmax(call: Call, result: torch.Tensor, adjoint: torch.Tensor) -> torch.Tensor:
    sizes = adjoint.abs()
    return result * (sizes + (sizes * result).sum(int(call.args[1]), keepdim=True))


def _log_softmax(call: Call, result: torch.Tensor, adjoint: torch.Tensor) -> torch.Tensor:
    sizes = adjoint.abs()
    return sizes + result.exp() * sizes.sum(int(call.args[1]), keepdim=True)


def _logits(call: Call, _: torch.Tensor, adjoint: torch.Tensor) -> torch.Tensor:
    """``sigmoid(x) - t``, with weights: of ``binary_cross_entropy_with_logits``."""
    x, target = call.args[0].detach(), call.args[1].detach()
    weight, positive = call.arg(2, "weight"), call.arg(3, "pos_weight")
    sizes: torch.Tensor = (x.sigmoid() + target.abs()) * adjoint.abs()
    if positive is not None:
        sizes = sizes * (1 + (positive.detach() - 1) * target).abs().clamp(min=1)
    if weight is not None:
        sizes = sizes * weight.detach().abs()
    return sizes / x.numel() if call.arg(4, "reduction", 1) == 1 else sizes


def _norm_terms(
    values: torch.Tensor, sizes: torch.Tensor, mean: torch.Tensor, rate: torch.Tensor, dims: Any
) -> torch.Tensor:
    """``rate * (g - mean(g) - z * mean(g * z))`` with z the normalised values."""
    z = ((values - mean) * rate).abs()
    return rate * (
        sizes + sizes.mean(dims, keepdim=True) + z * (sizes * z).mean(dims, keepdim=True)
    )


def _layer_norm(call: Call, _: torch.Tensor, adjoint: torch.Tensor) -> torch.Tensor:
    x, shape, weight = call.args[0].detach(), call.args[1], call.arg(2, "weight")
    dims = tuple(range(x.dim() - len(shape), x.dim()))
    sizes = adjoint.abs() if weight is None else (adjoint * weight.detach()).abs()
    mean = x.mean(dims, keepdim=True)
    rate = (x.var(dims, unbiased=False, keepdim=True) + call.arg(4, "eps")).rsqrt()
    return _norm_terms(x, sizes, mean, rate, dims)


def _batch_norm(call: Call, _: torch.Tensor, adjoint: torch.Tensor) -> torch.Tensor:
    x, weight, training = call.args[0].detach(), call.arg(1, "weight"), call.arg(5, "training")
    if not training:
        return torch.zeros_like(x)
    dims = (0, *range(2, x.dim()))
    sizes = adjoint.abs()
    if weight is not None:
        sizes = sizes * weight.detach().abs().reshape(1, -1, *[1] * (x.dim() - 2))
    mean = x.mean(dims, keepdim=True)
    rate = (x.var(dims, unbiased=False, keepdim=True) + call.arg(7, "eps")).rsqrt()
    return _norm_terms(x, sizes, mean, rate, dims)


def _group_norm(call: Call, _: torch.Tensor, adjoint: torch.Tensor) -> torch.Tensor:
    x, weight, groups = call.args[0].detach(), call.arg(1, "weight"), int(call.arg(6, "group"))
    sizes = adjoint.abs()
    if weight is not None:
        sizes = sizes * weight.detach().abs().reshape(1, -1, *[1] * (x.dim() - 2))
    flat, sizes = x.reshape(len(x), groups, -1), sizes.reshape(len(x), groups, -1)
    mean = flat.mean(-1, keepdim=True)
    rate = (flat.var(-1, unbiased=False, keepdim=True) + call.arg(7, "eps")).rsqrt()
    return _norm_terms(flat, sizes, mean, rate, (-1,)).reshape(x.shape)


def _attention(call: Call, result: torch.Tensor, adjoint: torch.Tensor) -> Sizes:
    """``P (dP - D)``: products with the values, less those with the result, each added up alone."""
    query, key, value = (a.detach() for a in call.args[:3])
    args = tuple(a.detach() if isinstance(a, torch.Tensor) else a for a in call.args)
    score, scale = attention_scores(args, call.kwargs)
    sizes = adjoint.abs()
    terms = sizes @ value.abs().transpose(-2, -1) + (sizes * result.abs()).sum(-1, keepdim=True)
    terms = abs(scale) * torch.softmax(score, -1) * terms
    return terms @ key.abs(), terms.transpose(-2, -1) @ query.abs()


# Of elementwise operations the adjoint of the result can carry the error, also where the
# operation overwrites its argument.
ELEMENTWISE: Mapping[str, Callable[[torch.Tensor], torch.Tensor]] = MappingProxyType(
    {
        "tanh": lambda y: (1 + y * y) / (1 - y * y),
        "sigmoid": lambda y: (1 + y) / (1 - y),
        "expm1": lambda y: (1 + y.abs()) / (1 + y),
        "elu_": lambda y: torch.where(y < 0, (1 + y.abs()) / (1 + y), 0.0),
    }
)
WHOLE: Mapping[str, Terms] = MappingProxyType(
    {
        "gelu": _gelu,
        "silu": _silu,
        "mish": _mish,
        "_softmax": _softmax,
        "_log_softmax": _log_softmax,
        "binary_cross_entropy_with_logits": _logits,
        "native_layer_norm": _layer_norm,
        "native_batch_norm": _batch_norm,
        "native_group_norm": _group_norm,
        **dict.fromkeys(ATTENTION, _attention),
    }
)
# Of how many first arguments these are the adjoints' terms, where not of one.
ADJOINTS: Mapping[str, int] = MappingProxyType(dict.fromkeys(ATTENTION, 2))
