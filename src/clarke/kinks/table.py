"""The rules of PyTorch's own operations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from clarke.kinks.choices import AdaptivePoolRule, ArgRule, PoolRule, ReductionRule
from clarke.kinks.model import Call, Hazard
from clarke.kinks.regions import RegionRule
from clarke.kinks.signs import SignRule
from clarke.kinks.singular import (
    SingularRule,
    both_are_zero,
    euclidean_norm_is_zero,
    first_is_plus_minus_one,
    first_is_zero,
    power_is_special,
    spread_is_zero,
)
from clarke.kinks.steps import ComparisonRule, StepRule

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from clarke.kinks.lowering import Lowering
    from clarke.kinks.model import KinkRule

_Pieces = tuple[torch.Tensor, ...]


def _x(call: Call) -> torch.Tensor:
    x: torch.Tensor = call.args[0]
    return x


def _at(*points: float) -> Callable[[Call], _Pieces]:
    """Switching functions ``x - point``."""
    return lambda call: tuple(_x(call) - p for p in points)


def _constant(x: torch.Tensor, value: float) -> torch.Tensor:
    return torch.full_like(x, value)


def _relu(call: Call) -> _Pieces:
    x = _x(call)
    return (torch.zeros_like(x), x)


def _leaky(call: Call) -> _Pieces:
    x = _x(call)
    return (x * call.arg(1, "negative_slope", 0.01), x)


def _prelu(call: Call) -> _Pieces:
    x = _x(call)
    return (x * call.args[1], x)


def _rrelu_eval(call: Call) -> _Pieces:
    x = _x(call)
    lower, upper = call.arg(1, "lower", 1 / 8), call.arg(2, "upper", 1 / 3)
    return (x * ((lower + upper) / 2), x)


def _hardtanh_bounds(call: Call) -> tuple[float, float]:
    return call.arg(1, "min_val", -1.0), call.arg(2, "max_val", 1.0)


def _hardtanh(call: Call) -> _Pieces:
    x = _x(call)
    low, high = _hardtanh_bounds(call)
    return (_constant(x, low), x, _constant(x, high))


def _hardsigmoid(call: Call) -> _Pieces:
    x = _x(call)
    return (torch.zeros_like(x), (x + 3) / 6, torch.ones_like(x))


def _hardswish(call: Call) -> _Pieces:
    x = _x(call)
    return (torch.zeros_like(x), x * (x + 3) / 6, x)


def _elu(call: Call) -> _Pieces:
    x = _x(call)
    alpha, scale = call.arg(1, "alpha", 1.0), call.arg(2, "scale", 1.0)
    input_scale = call.arg(3, "input_scale", 1.0)
    return (alpha * scale * torch.expm1(_bounded(x * input_scale)), x * scale)


def _celu(call: Call) -> _Pieces:
    x = _x(call)
    alpha = call.arg(1, "alpha", 1.0)
    return (alpha * torch.expm1(_bounded(x / alpha)), x)


def _bounded(x: torch.Tensor) -> torch.Tensor:
    # The exponential piece is unused above zero; keep it finite there so that no 0 * inf arises.
    return torch.where(x > 1, torch.zeros_like(x), x)


def _threshold_split(call: Call) -> _Pieces:
    return (_x(call) - call.arg(1, "threshold"),)


def _threshold(call: Call) -> _Pieces:
    x = _x(call)
    return (_constant(x, call.arg(2, "value")), x)


def _shrink_split(call: Call) -> _Pieces:
    x, bound = _x(call), call.arg(1, "lambd", 0.5)
    return (x + bound, x - bound)


def _hardshrink(call: Call) -> _Pieces:
    x = _x(call)
    return (x, torch.zeros_like(x), x)


def _softshrink(call: Call) -> _Pieces:
    x, bound = _x(call), call.arg(1, "lambd", 0.5)
    return (x + bound, torch.zeros_like(x), x - bound)


def _absolute(call: Call) -> _Pieces:
    x = _x(call)
    return (-x, x)


def _bounds(call: Call) -> tuple[Any, Any]:
    name = call.func._schema.name.rstrip("_").rsplit("::", 1)[-1]
    if name == "clamp_min":
        return call.arg(1, "min"), None
    if name == "clamp_max":
        return None, call.arg(1, "max")
    low, high = call.arg(1, "min"), call.arg(2, "max")
    if low is not None and high is not None:
        # torch: min(max(x, lo), hi); where lo > hi the result is hi everywhere.
        low = torch.where(
            torch.as_tensor(low) > torch.as_tensor(high), torch.as_tensor(high), low
        )
    return low, high


def _as_like(bound: Any, x: torch.Tensor) -> torch.Tensor:
    if isinstance(bound, torch.Tensor):
        return bound.to(x.dtype)
    return _constant(x, bound)


def _clamp_split(call: Call) -> _Pieces:
    x = _x(call)
    return tuple(x - _as_like(b, x) for b in _bounds(call) if b is not None)


def _clamp(call: Call) -> _Pieces:
    x = _x(call)
    low, high = _bounds(call)
    pieces: list[torch.Tensor] = []
    if low is not None:
        pieces.append(_as_like(low, x))
    pieces.append(x)
    if high is not None:
        pieces.append(_as_like(high, x))
    return tuple(pieces)


def _pair_split(call: Call) -> _Pieces:
    return (call.args[0] - call.args[1],)


def _maximum(call: Call) -> _Pieces:
    return (call.args[1], call.args[0])


def _minimum(call: Call) -> _Pieces:
    return (call.args[0], call.args[1])


def _regions() -> Iterator[tuple[str, RegionRule]]:
    """Rules by operator name; in-place forms share the rule of the plain one."""
    relu = RegionRule(_at(0.0), _relu)
    yield "relu", relu
    yield "leaky_relu", RegionRule(_at(0.0), _leaky)
    yield "_prelu_kernel", RegionRule(_at(0.0), _prelu)
    yield "hardtanh", RegionRule(lambda c: tuple(_x(c) - b for b in _hardtanh_bounds(c)), _hardtanh)
    yield "hardsigmoid", RegionRule(_at(-3.0, 3.0), _hardsigmoid)
    yield "hardswish", RegionRule(_at(-3.0, 3.0), _hardswish)
    yield "elu", RegionRule(_at(0.0), _elu)
    yield "celu", RegionRule(_at(0.0), _celu)
    yield "threshold", RegionRule(_threshold_split, _threshold, jumps=True)
    yield "hardshrink", RegionRule(_shrink_split, _hardshrink, jumps=True)
    yield "softshrink", RegionRule(_shrink_split, _softshrink)
    yield "abs", RegionRule(_at(0.0), _absolute)
    clamp = RegionRule(_clamp_split, _clamp)
    yield "clamp", clamp
    yield "clamp.Tensor", clamp
    for name in ("clamp_min", "clamp_max"):
        yield name, clamp
        yield f"{name}.Tensor", clamp
    yield "maximum", RegionRule(_pair_split, _maximum)
    yield "minimum", RegionRule(_pair_split, _minimum)
    yield "fmax", RegionRule(_pair_split, _maximum)
    yield "fmin", RegionRule(_pair_split, _minimum)


def _conv_like(call: Call, rank: int) -> tuple[tuple[int, ...], ...]:
    def full(value: Any, default: tuple[int, ...]) -> tuple[int, ...]:
        if value is None or (isinstance(value, (list, tuple)) and len(value) == 0):
            return default
        if isinstance(value, int):
            return (value,) * rank
        return tuple(value) if len(value) == rank else (value[0],) * rank

    kernel = full(call.arg(1, "kernel_size"), (1,) * rank)
    return (
        kernel,
        full(call.arg(2, "stride"), kernel),
        full(call.arg(3, "padding"), (0,) * rank),
        full(call.arg(4, "dilation"), (1,) * rank),
    )


def _on_half(x: torch.Tensor) -> torch.Tensor:
    return x - x.floor() == 0.5


def _on_integer(x: torch.Tensor) -> torch.Tensor:
    return x == x.floor()


def _on_nonzero_integer(x: torch.Tensor) -> torch.Tensor:
    return (x == x.floor()) & (x != 0)


def _on_zero(x: torch.Tensor) -> torch.Tensor:
    return x == 0


def _steps() -> Iterator[tuple[str, KinkRule]]:
    for name, below, above, equal in (
        ("gt", False, True, False),
        ("ge", False, True, True),
        ("lt", True, False, False),
        ("le", True, False, True),
        ("eq", False, False, True),
        ("ne", True, True, False),
    ):
        for overload in ("Scalar", "Tensor"):
            yield f"{name}.{overload}", ComparisonRule(below, above, equal)
    for name, jump in (
        ("round", _on_half),
        ("floor", _on_integer),
        ("ceil", _on_integer),
        ("trunc", _on_nonzero_integer),
    ):
        yield name, StepRule(jump)
        yield f"{name}_", StepRule(jump)
    for name in ("sign", "sgn"):
        yield name, SignRule()
    # frac jumps where trunc does
    yield "frac", StepRule(_on_nonzero_integer, residue=True)
    yield "argmax", ArgRule(1)
    yield "argmin", ArgRule(-1)


def _singular() -> Iterator[tuple[str, KinkRule]]:
    for name in ("sqrt", "rsqrt", "log", "log2", "log10", "reciprocal"):
        yield name, SingularRule(first_is_zero)
    for name in ("acos", "asin", "acosh", "atanh"):
        yield name, SingularRule(first_is_plus_minus_one)
    for name in ("Tensor_Scalar", "Tensor_Tensor"):
        yield f"pow.{name}", SingularRule(power_is_special)
    yield "atan2", SingularRule(both_are_zero)
    yield "hypot", SingularRule(both_are_zero, Hazard.CONE)
    yield "std.correction", SingularRule(spread_is_zero, Hazard.CONE)
    yield "linalg_vector_norm", SingularRule(euclidean_norm_is_zero, Hazard.CONE)


def rule_table() -> Iterator[tuple[str, KinkRule]]:
    """(dispatcher name, rule) of every operation with kinks, steps or singular points.

    Only overloads that the installed torch has are given.
    """
    seen: set[str] = set()

    def emit(name: str, rule: KinkRule) -> Iterator[tuple[str, KinkRule]]:
        operator, _, overload = name.partition(".")
        full = f"aten::{operator}.{overload or 'default'}"
        packet = getattr(torch.ops.aten, operator, None)
        if packet is not None and (overload or "default") in packet.overloads():
            if full not in seen:
                seen.add(full)
                yield full, rule

    for name, rule in _regions():
        operator, _, overload = name.partition(".")
        yield from emit(name, rule)
        yield from emit(f"{operator}_.{overload}" if overload else f"{operator}_", rule)
    for sign, word in ((1, "max"), (-1, "min")):
        yield from emit(word, ReductionRule(sign, indexed=False))
        yield from emit(f"{word}.dim", ReductionRule(sign, indexed=True))
        yield from emit(f"a{word}", ReductionRule(sign, indexed=False))
    for rank in (2, 3):
        yield from emit(f"max_pool{rank}d_with_indices", PoolRule(1, rank, _conv_like))
        yield from emit(f"adaptive_max_pool{rank}d", AdaptivePoolRule(1, rank, _conv_like))
    for step_name, step in _steps():
        yield from emit(step_name, step)
    for name, singular in _singular():
        yield from emit(name, singular)
        yield from emit(f"{name}_", singular)


def lowering_table() -> Iterator[tuple[str, Lowering]]:
    """(dispatcher name, lowering) of every fused operation."""
    yield from ()
