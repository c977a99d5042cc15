"""Smooth or finite operations that stand for several: what computes the same without a NaN."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch

from clarke.capture import Ref

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from clarke.capture import OpRecord
    from clarke.decide.draft import Draft

    Push = Callable[[Draft, Ref], Ref | None]

_ATEN = torch.ops.aten
# What only picks and orders entries: a function of each entry may run before it.
_PLACES = frozenset(
    {"select", "index", "view", "reshape", "_unsafe_view", "squeeze", "unsqueeze", "expand"}
    | {"slice", "permute", "transpose", "t", "clone", "alias", "diagonal", "index_select", "gather"}
)

# Operations behind which a square or an exponential may be looked for.
WALKED = _PLACES | {"sum", "mean", "add", "rsub", "sub", "neg", "mul", "div", "relu", "clamp_min"}


def power(draft: Draft, op: OpRecord) -> Ref | None:
    """A root, or another small power, of a sum of squares as that of a norm."""
    inner = root(draft, op.args[0])
    exponent = 1.0 if named(op) == "sqrt" else 2.0 * op.args[1]
    if inner is None or exponent == 1:
        return inner
    return draft.call(_ATEN.pow.Tensor_Scalar, inner, exponent)


def root(draft: Draft, ref: Ref) -> Ref | None:
    """The root of a sum of squares as a norm."""
    op = draft.maker(ref)
    name = named(op)
    if op is None:
        return None
    if name in _PLACES:
        return _inside(draft, op, root)
    base = _squared(draft, ref)
    if base is not None:
        return draft.call(_ATEN.abs.default, base)
    if name in {"sum", "mean"} and isinstance(op.args[0], Ref):
        base = _squared(draft, op.args[0])
        if base is None:
            return None
        dims, keep = _dims(op)
        norm = draft.call(_ATEN.linalg_vector_norm.default, base, 2, dims, keep)
        if name == "sum":
            return norm
        shrunk = draft.value(base).numel() / max(draft.value(norm).numel(), 1)
        return draft.call(_ATEN.div.Tensor, norm, math.sqrt(shrunk))
    if name == "add":
        return _root_of_sum(draft, op)
    if name in {"mul", "div"} and not isinstance(op.args[1], Ref) and op.args[1] > 0:
        inner = root(draft, op.args[0])
        return inner and draft.call(op.func, inner, math.sqrt(op.args[1]))
    if name == "relu" or (name == "clamp_min" and op.args[1] == 0):
        return root(draft, op.args[0])
    return None


def _root_of_sum(draft: Draft, op: OpRecord) -> Ref | None:
    one, two = op.args[:2]
    if op.kwargs or not isinstance(one, Ref):
        return None
    if not isinstance(two, Ref):
        return root(draft, one) if two == 0 else None
    parts = [root(draft, one), root(draft, two)]
    return None if None in parts else _hypot(draft, [p for p in parts if p is not None])


def hypot(draft: Draft, op: OpRecord) -> Ref | None:
    """A hypotenuse as a norm."""
    return _hypot(draft, list(op.args[:2]))


def _hypot(draft: Draft, parts: Sequence[Ref]) -> Ref:
    shape = list(torch.broadcast_shapes(*(draft.value(p).shape for p in parts)))
    wide = [draft.call(_ATEN.expand.default, p, shape) for p in parts]
    return draft.call(
        _ATEN.linalg_vector_norm.default, draft.call(_ATEN.stack.default, wide), 2, [0]
    )


def log(draft: Draft, ref: Ref) -> Ref | None:
    """The logarithm of a softmax, a sigmoid or a sum of exponentials."""
    op = draft.maker(ref)
    name = named(op)
    if op is None:
        return None
    if name in _PLACES:
        return _inside(draft, op, log)
    if name == "_softmax":
        return draft.call(_ATEN._log_softmax.default, *op.args)  # noqa: SLF001 - its name
    if name == "sigmoid":
        return _log_sigmoid(draft, op.args[0])
    if name == "exp":
        return _exponent(draft, ref)
    if name in {"rsub", "sub"}:
        whole, taken = op.args[:2] if name == "sub" else op.args[1::-1]
        inner = draft.maker(taken)
        if _is_one(draft, whole) and inner is not None and named(inner) == "sigmoid":
            return _log_sigmoid(draft, draft.call(_ATEN.neg.default, inner.args[0]))
        return None
    if name == "add":
        return _log_of_sum(draft, op)
    inside = _exponent(draft, op.args[0]) if name == "sum" else None
    if inside is None:
        return None
    dims, keep = _dims(op)
    every = list(range(draft.value(inside).dim())) if dims is None else dims
    return draft.call(_ATEN.logsumexp.default, inside, every, keep)


def _log_of_sum(draft: Draft, op: OpRecord) -> Ref | None:
    logs: list[Ref | None] = []
    for term in op.args[:2]:
        made = draft.maker(term)
        if _is_one(draft, term):
            logs.append(None)
        elif made is not None and named(made) == "exp":
            logs.append(made.args[0])
        else:
            return None
    some = [x for x in logs if x is not None]
    if op.kwargs or not some:
        return None
    if len(some) == 1:
        return draft.call(_ATEN.softplus.default, some[0])
    return draft.call(_ATEN.logaddexp.default, *some)


def one_plus(draft: Draft, op: OpRecord) -> Ref | None:
    """The x of log1p(exp(x)), or of log(1 + exp(x))."""
    made = draft.maker(op.args[0]) if op.args else None
    if named(op) == "log1p":
        return _exponent(draft, op.args[0])
    if named(op) == "log" and made is not None and named(made) == "add":
        terms = made.args[:2]
        if any(_is_one(draft, t) for t in terms):
            return next((e for t in terms if (e := _exponent(draft, t)) is not None), None)
    return None


def log1p(draft: Draft, ref: Ref) -> Ref | None:
    """log(1 + exp(x)) as softplus, log(1 - sigmoid(x)) as logsigmoid(-x)."""
    op = draft.maker(ref)
    name = named(op)
    if op is None:
        return None
    if name == "exp":
        return draft.call(_ATEN.softplus.default, op.args[0])
    inner = draft.maker(op.args[0]) if name == "neg" else None
    if inner is not None and named(inner) == "sigmoid":
        return _log_sigmoid(draft, draft.call(_ATEN.neg.default, inner.args[0]))
    return None


def quotient(draft: Draft, op: OpRecord) -> Ref | None:
    """A sigmoid or a softmax that was written with exp."""
    over, under = (1, op.args[0]) if named(op) == "reciprocal" else op.args[:2]
    below, above = draft.maker(under), _exponent(draft, over)
    if below is None or below.kwargs:
        return None
    if named(below) == "add":
        terms = below.args[:2]
        inside = next((e for t in terms if (e := _exponent(draft, t)) is not None), None)
        if inside is None or not any(_is_one(draft, t) for t in terms):
            return None
        if _is_one(draft, over):
            return draft.call(_ATEN.sigmoid.default, draft.call(_ATEN.neg.default, inside))
        return draft.call(_ATEN.sigmoid.default, inside) if above == inside else None
    if named(below) != "sum" or above is None or _exponent(draft, below.args[0]) != above:
        return None
    (dims, keep), deep = _dims(below), draft.value(above).dim()
    if deep == 1:
        dims, keep = [0], True
    if dims is None or len(dims) != 1 or not keep:
        return None
    return draft.call(_ATEN._softmax.default, above, dims[0], False)  # noqa: SLF001 - its name


def _exponent(draft: Draft, value: object) -> Ref | None:
    """What a tensor is the exponential of."""
    op = draft.maker(value)
    base: Ref | None = op.args[0] if op is not None and named(op) == "exp" else None
    return base


def _log_sigmoid(draft: Draft, ref: Ref) -> Ref:
    return draft.call(_ATEN.log_sigmoid_forward.default, ref)


def _inside(draft: Draft, op: OpRecord, push: Push) -> Ref | None:
    inner = push(draft, op.args[0])
    return None if inner is None else draft.again(op, inner)


def _squared(draft: Draft, ref: Ref) -> Ref | None:
    """What a tensor is the square of."""
    op = draft.maker(ref)
    name = named(op)
    if op is None:
        return None
    twice = name == "mul" and op.args[0] == op.args[1]
    base: Ref | None = op.args[0]
    return base if twice or name == "square" or (name == "pow" and op.args[1] == 2) else None


def _dims(op: OpRecord) -> tuple[list[int] | None, bool]:
    """Over which dimensions an operation sums, None for all, and whether it keeps them."""
    if len(op.args) < 2:
        return None, False
    return list(op.args[1] or ()) or None, bool(op.args[2]) if len(op.args) > 2 else False


def _is_one(draft: Draft, value: Any) -> bool:
    if isinstance(value, Ref):
        made = draft.maker(value)
        found = draft.value(value)
        return (made is None or not made.differentiated) and bool((found == 1).all())
    return bool(value == 1)


def named(op: OpRecord | None) -> str:
    """The name of an operation, in place or not; "" of none."""
    return "" if op is None else op.short_name.rstrip("_")
