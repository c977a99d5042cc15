"""Small changes that let a recorded operation run again in another floating point type."""

from __future__ import annotations

from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import torch
from torch._decomp.decompositions import grid_sampler_2d

from clarke.kinks.fractional import pool_at, window_places
from clarke.kinks.smooth import DROPOUT, OpClass, classify
from clarke.steering.sparse import by_formula
from clarke.torch_private import unpack_dual

if TYPE_CHECKING:
    from collections.abc import Mapping

    from clarke.capture import OpRecord
    from clarke.kinks import Call


def adapted(
    op: OpRecord, call: Call, dtype: torch.dtype
) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
    """The function and arguments with which to run `op` again in `dtype`."""
    name = op.name
    args = tuple(_map_dtype(a, dtype) for a in call.args)
    kwargs = {k: _map_dtype(v, dtype) for k, v in call.kwargs.items()}
    if name == "aten::native_batch_norm.default" and args[5]:
        # In training the running statistics are written, not read: leave the user's alone.
        return op.func, (*args[:3], None, None, *args[5:]), kwargs
    if name == "aten::_native_batch_norm_legit.default" and args[5]:
        no_stats = torch.ops.aten._native_batch_norm_legit.no_stats
        return no_stats, (*args[:3], *args[5:]), kwargs
    if name == "aten::embedding.default":
        return op.func, args[:4], {}  # dense gradients, whatever was asked for
    if name == "aten::native_dropout.default":
        scale = 1.0 if args[2] is False or args[1] == 0 else 1 / (1 - args[1])
        return _masked_dropout, (args[0], op.kept_outputs[1], scale), {}
    # Outside of training an rrelu has one slope, and draws nothing.
    if name.startswith("aten::rrelu_with_noise") and op.drawn and len(args) > 4 and args[4]:
        return (
            (_slope_in_place if name.startswith("aten::rrelu_with_noise_.") else _slope),
            (
                *args[:2],
                op.drawn[1].to(dtype),
            ),
            {},
        )
    if _is_constant_draw(name):
        if 0 in op.drawn:
            return _write, (args[0], op.drawn[0].to(args[0].dtype)), {}
        if 0 in op.kept_outputs:
            return _recorded, (op.kept_outputs[0], dtype), {}
    if name in _FRACTIONAL and 3 in op.kept and op.kept[3].dtype != dtype:
        return partial(_pool_as_it_was, op), (args[0],), {}
    formula = _PLAIN.get(name) or by_formula(name, args)
    if formula is not None:
        return formula, args, kwargs
    if name in _ATTENTION and not _dropout_probability(args, kwargs):
        return _plain_attention, (args, kwargs), {}
    return op.func, args, kwargs


def can_replay_random(op: OpRecord) -> bool:
    """Whether a differentiable random operation can be repeated with its recorded outcome."""
    if op.name == "aten::native_dropout.default":
        return True
    return _is_constant_draw(op.name) and (0 in op.drawn or 0 in op.kept_outputs)


def _is_constant_draw(name: str) -> bool:
    """Whether what an operation returns was drawn, and is a constant to autograd.

    Not of a normal distribution with tensors for its parameters: for one state of the generator
    its values move with them, and autograd says that they do not.
    """
    moves = name.startswith("aten::normal.") and "Tensor" in name
    return classify(name) is OpClass.RANDOM and name not in DROPOUT and not moves


def _pool_as_it_was(op: OpRecord, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Rounded otherwise, the same samples could place the windows elsewhere."""
    return pool_at(x, window_places(op.kept[0], op.args[1:3], op.kept[3]), op.kept_outputs[1].shape)


def _recorded(value: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return value.to(dtype) if value.is_floating_point() else value


def _write(target: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    return target.copy_(value)


def _slope(x: torch.Tensor, noise: torch.Tensor, drawn: torch.Tensor) -> torch.Tensor:
    """Training-mode rrelu with the slopes that were drawn; above 0 the slope is 1."""
    noise.copy_(drawn)
    return torch.ops.aten._prelu_kernel.default(x, drawn)  # type: ignore[no-any-return]  # noqa: SLF001 - what torch.prelu runs


def _slope_in_place(x: torch.Tensor, noise: torch.Tensor, drawn: torch.Tensor) -> torch.Tensor:
    return x.copy_(_slope(x.clone(), noise, drawn))


_FRACTIONAL = frozenset(
    {"aten::fractional_max_pool2d.default", "aten::fractional_max_pool3d.default"}
)

ATTENTION: Final = (
    "_scaled_dot_product_flash_attention_for_cpu",
    "_scaled_dot_product_flash_attention",
    "_scaled_dot_product_efficient_attention",
)
_ATTENTION = frozenset(f"aten::{name}.default" for name in ATTENTION)


def _map_dtype(value: Any, dtype: torch.dtype) -> Any:
    """A dtype, or a constant that a lowering wrote in the program's type, in the replay's."""
    if isinstance(value, torch.Tensor):
        return value.to(dtype) if value.is_floating_point() and value.dtype != dtype else value
    if isinstance(value, torch.dtype) and value.is_floating_point:
        return dtype
    if isinstance(value, (list, tuple)) and any(isinstance(v, torch.Tensor) for v in value):
        return type(value)([_map_dtype(v, dtype) for v in value])
    return value


def _plain_weight_norm(
    v: torch.Tensor, g: torch.Tensor, dim: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Weight normalisation by its formula; the fused kernel has no forward-mode derivative."""
    others = [d for d in range(v.dim()) if d != dim % v.dim()]
    norms = torch.linalg.vector_norm(v, dim=others, keepdim=True)
    return v * (g / norms), norms


def plain_lstm(
    x: torch.Tensor,
    input_weight: torch.Tensor,
    hidden_weight: torch.Tensor,
    input_bias: torch.Tensor,
    hidden_bias: torch.Tensor,
    hidden: torch.Tensor,
    cell: torch.Tensor,
    reverse: bool,  # noqa: FBT001 - the arguments are those of mkldnn_rnn_layer
    *_: Any,
) -> tuple[torch.Tensor, ...]:
    """One LSTM layer by its formula: oneDNN's is in float32 only, without forward-mode derivative.

    The program ran with steps along the first dimension, whatever it was given.
    """
    h, c = hidden.reshape(x.shape[1], -1), cell.reshape(x.shape[1], -1)
    steps = []
    for step in reversed(x.unbind(0)) if reverse else x.unbind(0):
        gates = step @ input_weight.mT + input_bias + h @ hidden_weight.mT + hidden_bias
        keep, forget, new, out = gates.chunk(4, -1)
        c = forget.sigmoid() * c + keep.sigmoid() * new.tanh()
        h = out.sigmoid() * c.tanh()
        steps.append(h)
    found = torch.stack(steps[::-1] if reverse else steps)
    return found, h.reshape(hidden.shape), c.reshape(cell.shape), torch.empty(0)


def _masked_dropout(
    x: torch.Tensor, mask: torch.Tensor, scale: float
) -> tuple[torch.Tensor, torch.Tensor]:
    return x * mask * scale, mask


def _dropout_probability(args: tuple[Any, ...], kwargs: dict[str, Any]) -> float:
    return float(kwargs.get("dropout_p", args[3] if len(args) > 3 else 0.0) or 0.0)


def attention_scores(
    args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[torch.Tensor, float]:
    """What a fused attention takes the softmax of, and the scale of its products."""
    query, key = args[:2]
    causal = bool(kwargs.get("is_causal", args[4] if len(args) > 4 else False))
    bias = kwargs.get("attn_mask")
    scale = kwargs.get("scale")
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    score = (query @ key.transpose(-2, -1)) * scale
    if causal:
        keep = torch.ones(score.shape[-2:], dtype=torch.bool).tril()
        score = score.masked_fill(~keep, -torch.inf)
    if bias is not None:
        score = score.masked_fill(~bias, -torch.inf) if bias.dtype == torch.bool else score + bias
    return score, float(scale)


def _plain_attention(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[torch.Tensor, ...]:
    """Attention by its formula; the fused kernels have no forward-mode derivative."""
    query, value = args[0], args[2]
    score, _ = attention_scores(args, kwargs)
    result = torch.softmax(score, -1) @ value
    # In memory the kernels' results are laid out as the query is, and programs go on to view them
    # so (in most models the heads lie inside of the positions).
    strides = query.stride()
    order = sorted(range(query.dim()), key=lambda d: -strides[d])
    back = sorted(range(query.dim()), key=lambda d: order[d])
    result = result.permute(order).contiguous().permute(back)
    return (result, torch.logsumexp(score, -1))


def _plain_soft_margin_slope(
    slope: torch.Tensor, x: torch.Tensor, side: torch.Tensor, reduction: int
) -> torch.Tensor:
    found = -side * torch.sigmoid(-side * x) * slope
    return found / x.numel() if reduction == 1 else found


def _plain_quotient(x: Any, other: Any) -> torch.Tensor:
    """``x // other``; torch's own has no forward-mode derivative."""
    return torch.div(x, other, rounding_mode="floor")


def _without_tangent(func: Any, x: torch.Tensor, *rest: Any, **named: Any) -> Any:
    """An operation for which forward mode has no rule, and which has no derivative."""
    return func(unpack_dual(x)[0].detach(), *rest, **named)


# Fused kernels without a forward-mode derivative, by their formulas.
_PLAIN: Final = MappingProxyType(
    {
        "aten::floor_divide.default": _plain_quotient,
        "aten::floor_divide.Scalar": _plain_quotient,
        "aten::grid_sampler_2d.default": grid_sampler_2d,
        "aten::_weight_norm_interface.default": _plain_weight_norm,
        "aten::mkldnn_rnn_layer.default": plain_lstm,
        "aten::soft_margin_loss_backward.default": _plain_soft_margin_slope,
        **{
            f"aten::{name}.default": partial(
                _without_tangent, getattr(torch.ops.aten, name).default
            )
            for name in ("_unique", "_unique2", "unique_consecutive", "unique_dim")
        },
    }
)
