"""Which tensors are positive whatever the variables are: rsqrt(var + eps) is analytic."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from clarke.capture import OpRecord, Ref
from clarke.theorems.affine import Low, State, words

if TYPE_CHECKING:
    from collections.abc import Sequence

_KEEP = words(
    "sum mean view _unsafe_view reshape expand permute transpose t unsqueeze squeeze select "
    "slice clone alias _to_copy sqrt cumsum split split_with_sizes unbind index "
    "index_select max_pool2d_with_indices max_pool3d_with_indices amax amin max min cat "
    "stack"
)
_POSITIVE = words("exp exp2 sigmoid _softmax rsqrt softplus cosh")
_NONNEGATIVE = words("relu abs hardsigmoid var sigmoid square linalg_vector_norm std")
SAFE_WHERE_POSITIVE = words("sqrt rsqrt log log2 log10 reciprocal")


def lower_bound(op: OpRecord, states: Sequence[State]) -> Low:
    """A bound on the first result, from bounds on the tensors that the operation reads."""
    if op.hidden_write:
        return Low.UNKNOWN
    name = op.short_name.removesuffix("_")
    lows = [s.low for s in states]
    least = min(lows, default=Low.UNKNOWN)
    if name in _POSITIVE:
        return Low.POSITIVE
    if name in _NONNEGATIVE:
        # Lower bounds survive only where the operation is the identity on positive numbers.
        return Low.POSITIVE if name == "relu" and least is Low.POSITIVE else Low.NONNEGATIVE
    if name in _KEEP:
        return least
    if name == "pow" and len(op.args) > 1 and isinstance(op.args[1], (int, float)):
        return _power(op.args[1], least)
    if name in ("mul", "div"):
        return _product(op, lows, name)
    if name == "add" and op.kwargs.get("alpha", 1) == 1:
        return _sum(op, lows)
    if name == "clamp_min" and len(op.args) > 1 and isinstance(op.args[1], (int, float)):
        return Low.POSITIVE if op.args[1] > 0 else Low.NONNEGATIVE if op.args[1] == 0 else least
    return Low.UNKNOWN


def _power(exponent: float, low: Low) -> Low:
    if exponent == int(exponent) and int(exponent) % 2 == 0 and exponent > 0:
        return max(Low.NONNEGATIVE, low)
    return low if exponent > 0 or low is Low.POSITIVE else Low.UNKNOWN


def _product(op: OpRecord, lows: list[Low], name: str) -> Low:
    a, b = op.args[0], op.args[1]
    if isinstance(a, Ref) and isinstance(b, Ref):
        if name == "mul" and a.slot == b.slot:
            return max(Low.NONNEGATIVE, lows[0])
        if name == "div" and lows[-1] is not Low.POSITIVE:
            return Low.UNKNOWN
        return min(lows)
    number: Any = b if isinstance(a, Ref) else a
    if isinstance(number, (int, float)) and number > 0:
        return lows[0]
    return Low.UNKNOWN


def _sum(op: OpRecord, lows: list[Low]) -> Low:
    if len(lows) == 2:
        return max(lows) if min(lows) is not Low.UNKNOWN else Low.UNKNOWN
    number: Any = op.args[1] if isinstance(op.args[0], Ref) else op.args[0]
    if not isinstance(number, (int, float)) or number < 0 or not lows:
        return Low.UNKNOWN
    if number > 0 and lows[0] is not Low.UNKNOWN:
        return Low.POSITIVE
    return lows[0]


def power_is_analytic(op: OpRecord) -> bool:
    """Whether a power has a constant natural exponent."""
    exponent = op.args[1] if len(op.args) > 1 else None
    return isinstance(exponent, (int, float)) and exponent >= 0 and exponent == int(exponent)
