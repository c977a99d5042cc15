"""How fused operations are written with simpler ones that have rules."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import torch

from clarke.kinks.listed import flat
from clarke.kinks.lowering import Lowerer, Lowering, Part
from clarke.kinks.sampling import grid_sampler
from clarke.kinks.table_scattered import scattered

_Parts = tuple[Part, ...]
_INF: Final = float("inf")
_ATEN: Final = torch.ops.aten
# Operations that stand for several only where they take complex numbers.
COMPLEX_ONLY: Final = frozenset({"abs", "angle"})
ROBUST: Final = frozenset({"huber_loss", "smooth_l1_loss"})
_VECTOR_NORM: Final = torch.ops.aten.linalg_vector_norm.default


def _dims(x: torch.Tensor, dim: Any) -> list[int]:
    if dim is None:
        return list(range(x.dim()))
    dims = [dim] if isinstance(dim, int) else list(dim)
    return dims or list(range(x.dim()))


def _plane(lo: Lowerer, z: Part) -> tuple[Part, Part] | None:
    """Real and imaginary part of complex numbers; None where they are kept conjugated."""
    if z.value.is_conj() or z.value.is_neg():
        return None
    pair = lo(_ATEN.view_as_real.default, z)
    return lo(_ATEN.select.int, pair, -1, 0), lo(_ATEN.select.int, pair, -1, 1)


def _modulus(lo: Lowerer, z: Part) -> Part | None:
    parts = _plane(lo, z)
    return None if parts is None else lo(_ATEN.hypot.default, *parts)


def _complex_abs(lo: Lowerer) -> _Parts | None:
    z = lo.arg(0, "self")
    found = _modulus(lo, z) if z.value.is_complex() else None
    return None if found is None else (found,)


def _complex_angle(lo: Lowerer) -> _Parts | None:
    z = lo.arg(0, "self")
    parts = _plane(lo, z) if z.value.is_complex() else None
    return None if parts is None else (lo(_ATEN.atan2.default, parts[1], parts[0]),)


def _norm(lo: Lowerer, x: Part, order: Any, dim: Any, *, keepdim: bool) -> Part | None:
    """A vector norm by its parts; None where it has none (order 2 has a rule of its own)."""
    dims = _dims(x.value, dim)
    order = 2.0 if order is None else float(order)
    if x.value.is_complex() and x.value.numel():
        size = _modulus(lo, x)
        return None if size is None else lo(_VECTOR_NORM, size, order, dims, keepdim)
    if not x.value.is_floating_point() or x.value.numel() == 0:
        return None
    if order == 1:
        return lo(_ATEN.sum.dim_IntList, lo(_ATEN.abs.default, x), dims, keepdim)  # type: ignore[no-any-return]
    if order in (_INF, -_INF):
        best = _ATEN.amax.default if order > 0 else _ATEN.amin.default
        return lo(best, lo(_ATEN.abs.default, x), dims, keepdim)  # type: ignore[no-any-return]
    return None


def _vector_norm(lo: Lowerer) -> _Parts | None:
    if lo.op.kwargs.get("dtype") is not None:
        return None
    keepdim = bool(lo.arg(3, "keepdim", False))
    found = _norm(lo, lo.arg(0, "self"), lo.arg(1, "ord", 2), lo.arg(2, "dim"), keepdim=keepdim)
    return None if found is None else (found,)


def _plain_norm(lo: Lowerer) -> _Parts | None:
    x = lo.arg(0, "self")
    order, dim, keepdim = lo.arg(1, "p", 2), lo.arg(2, "dim"), bool(lo.arg(3, "keepdim", False))
    order = 2.0 if order is None else float(order)
    return (lo(_ATEN.linalg_vector_norm.default, x, order, _dims(x.value, dim), keepdim),)


def _distance(lo: Lowerer, gap: Part, order: float) -> Part:
    rank = gap.value.dim()
    found: Part = lo(_ATEN.linalg_vector_norm.default, gap, float(order), [rank - 1], False)
    return found


def _cdist(lo: Lowerer) -> _Parts | None:
    left, right = lo.arg(0, "x1"), lo.arg(1, "x2")
    order = float(lo.arg(2, "p", 2.0))
    if left.value.numel() == 0 or right.value.numel() == 0 or order == 0:
        return None
    return (_distance(lo, _gaps(lo, left, right), order),)


def _euclidean_dist(lo: Lowerer) -> _Parts | None:
    return (_distance(lo, _gaps(lo, lo.arg(0, "x1"), lo.arg(1, "x2")), 2.0),)


def _gaps(lo: Lowerer, left: Part, right: Part) -> Part:
    """Every row of one less every row of the other."""
    wide, tall = lo(_ATEN.unsqueeze.default, left, -2), lo(_ATEN.unsqueeze.default, right, -3)
    return lo(_ATEN.sub.Tensor, wide, tall)  # type: ignore[no-any-return]


def _pdist(lo: Lowerer) -> _Parts | None:
    x, order = lo.arg(0, "self"), float(lo.arg(1, "p", 2.0))
    n = x.value.shape[0]
    if n < 2 or order == 0:
        return None
    first, second = torch.triu_indices(n, n, 1)
    gap = lo(
        _ATEN.sub.Tensor,
        lo(_ATEN.index_select.default, x, 0, first),
        lo(_ATEN.index_select.default, x, 0, second),
    )
    return (_distance(lo, gap, order),)


def _dist(lo: Lowerer) -> _Parts | None:
    gap = lo(_ATEN.sub.Tensor, lo.arg(0, "self"), lo.arg(1, "other"))
    if gap.value.numel() == 0:
        return None
    return (_distance(lo, flat(lo, gap), float(lo.arg(2, "p", 2))),)


def _reduced(lo: Lowerer, values: Part, reduction: int) -> Part:
    """0 none, 1 mean, 2 sum."""
    if reduction == 1:
        return lo(_ATEN.mean.default, values)  # type: ignore[no-any-return]
    return lo(_ATEN.sum.default, values) if reduction == 2 else values


def _of_rows(lo: Lowerer, each: Part, reduction: int, x: Part) -> Part:
    """The same of losses of rows; of a vector there is one."""
    result = _reduced(lo, each, reduction)
    if reduction == 0 and x.value.dim() < 2:
        result = lo(_ATEN.view.default, result, [])
    return result


def _robust_loss(name: str, default: float) -> Lowering:
    """smooth_l1_loss and huber_loss: a rule for the elements, then a mean or a sum."""

    def lowering(lo: Lowerer) -> _Parts | None:
        x, y = lo.arg(0, "self"), lo.arg(1, "target")
        reduction, bound = int(lo.arg(2, "reduction", 1)), float(lo.arg(3, "beta", default))
        if name == "smooth_l1_loss" and bound == 0:
            gap = lo(_ATEN.sub.Tensor, x, y)
            return (_reduced(lo, lo(_ATEN.abs.default, gap), reduction),)
        if reduction == 0:
            return None
        op = getattr(_ATEN, name).default
        return (_reduced(lo, lo(op, x, y, 0, bound), reduction),)

    return lowering


def _logit(lo: Lowerer) -> _Parts | None:
    eps = lo.arg(1, "eps")
    if eps is None or eps < 0:
        return None
    return (lo(_ATEN.logit.default, lo(_ATEN.clamp.default, lo.arg(0, "self"), eps, 1 - eps)),)


def _margin_parts(lo: Lowerer, p: int, margins: Part) -> Part:
    hinge = lo(_ATEN.relu.default, margins)
    return hinge if p == 1 else lo(_ATEN.mul.Tensor, hinge, hinge)  # type: ignore[no-any-return]


def _multi_margin_loss(lo: Lowerer) -> _Parts | None:
    x, target = lo.arg(0, "self"), lo.arg(1, "target")
    p, margin = int(lo.arg(2, "p", 1)), float(lo.arg(3, "margin", 1))
    weight, reduction = lo.arg(4, "weight"), int(lo.arg(5, "reduction", 1))
    rows = x.value.reshape(1, -1) if x.value.dim() < 2 else x.value
    wide = lo(_ATEN.view.default, flat(lo, x), list(rows.shape))
    at = target.value.reshape(-1, 1)
    own = lo(_ATEN.gather.default, wide, 1, at)
    margins = lo(_ATEN.add.Scalar, lo(_ATEN.sub.Tensor, wide, own), margin)
    values = _margin_parts(lo, p, margins)
    # The target's own margin does not count.
    factor = torch.ones_like(rows).scatter_(1, at, 0.0)
    if isinstance(weight, Part):
        factor = factor * weight.value[at]
    counted = lo(_ATEN.mul.Tensor, values, factor)
    each = lo(_ATEN.div.Scalar, lo(_ATEN.sum.dim_IntList, counted, [1]), rows.shape[1])
    result = _of_rows(lo, each, reduction, x)
    return (result,)


def _multilabel_margin_loss(lo: Lowerer) -> _Parts | None:
    x, target, reduction = lo.arg(0, "self"), lo.arg(1, "target"), int(lo.arg(2, "reduction", 1))
    rows = x.value.reshape(1, -1) if x.value.dim() < 2 else x.value
    labels = target.value.reshape(rows.shape)
    wide = lo(_ATEN.view.default, flat(lo, x), list(rows.shape))
    n, classes = rows.shape
    ended = (labels < 0).to(torch.int64).cumsum(1) > 0
    used = torch.zeros(n, classes, dtype=torch.bool)
    for row in range(n):
        used[row, labels[row][~ended[row]]] = True
    row, place = (~ended).nonzero(as_tuple=True)
    own = labels[row, place]
    # Every label against every class that is no label.
    label_values = lo(_ATEN.index.Tensor, wide, [row, own])
    others = lo(_ATEN.index.Tensor, wide, [row])
    gap = lo(_ATEN.sub.Tensor, others, lo(_ATEN.unsqueeze.default, label_values, 1))
    hinge = lo(_ATEN.relu.default, lo(_ATEN.add.Scalar, gap, 1.0))
    counted = lo(_ATEN.mul.Tensor, hinge, (~used)[row].to(rows.dtype))
    pairs = lo(_ATEN.div.Scalar, lo(_ATEN.sum.dim_IntList, counted, [1]), classes)
    each = lo(_ATEN.index_add.default, torch.zeros(n, dtype=rows.dtype), 0, row, pairs)
    result = _of_rows(lo, each, reduction, x)
    # The second result says which classes are labels: a constant.
    return (result, lo(_ATEN.clone.default, used.to(rows.dtype).reshape(x.value.shape)))


def _aminmax(lo: Lowerer) -> _Parts | None:
    x, dim = lo.arg(0, "self"), lo.op.kwargs.get("dim")
    keepdim = bool(lo.op.kwargs.get("keepdim", False))
    dims = [] if dim is None else [dim]
    if x.value.dim() == 0:
        dims, keepdim = [], False
    return (lo(_ATEN.amin.default, x, dims, keepdim), lo(_ATEN.amax.default, x, dims, keepdim))


def _std_mean(lo: Lowerer) -> _Parts | None:
    x, dim = lo.arg(0, "self"), lo.arg(1, "dim")
    given = lo.op.kwargs
    correction, keepdim = given.get("correction"), bool(given.get("keepdim", False))
    std = lo(_ATEN.std.correction, x, dim, correction=correction, keepdim=keepdim)
    return (std, lo(_ATEN.mean.dim, x, dim, keepdim))


def _rrelu(lo: Lowerer) -> _Parts | None:
    x = lo.arg(0, "self")
    if lo.arg(4, "training", False):
        # The slopes below zero were drawn, and written into the second argument.
        noise = lo.op.drawn.get(1)
        if noise is None or noise.shape != x.value.shape:
            return None
        return (lo(_ATEN._prelu_kernel.default, x, noise),)  # noqa: SLF001 - what prelu runs
    slope = (float(lo.arg(2, "lower", 1 / 8)) + float(lo.arg(3, "upper", 1 / 3))) / 2
    return (lo(_ATEN.leaky_relu.default, x, slope),)


def _copysign(lo: Lowerer) -> _Parts | None:
    x, sign = lo.arg(0, "self"), lo.arg(1, "other")
    if not isinstance(x, Part):
        return None  # the second of the parts below
    ones = torch.ones((), dtype=x.value.dtype)
    if lo.varied(1) and bool(((sign.value != 0) | ~torch.signbit(sign.value)).all()):
        value = lo(_ATEN.where.self, lo(_ATEN.ge.Scalar, sign, 0), ones, -ones)
    elif lo.varied(1):  # -0 counts as negative, which no comparison says
        value = lo(_ATEN.copysign.Tensor, ones, sign)
    else:
        other = sign.value if isinstance(sign, Part) else torch.tensor(float(sign)).to(ones)
        value = ones.copysign(other)
    return (lo(_ATEN.mul.Tensor, lo(_ATEN.abs.default, x), value),)


def _ldexp(lo: Lowerer) -> _Parts | None:
    """By its values: autograd takes the power in whole numbers, 0 for a negative exponent."""
    x, exponent = lo.arg(0, "self"), lo.arg(1, "other")
    return (lo(_ATEN.mul.Tensor, x, lo(_ATEN.pow.Scalar, 2.0, exponent)),)


def _clamp_between(lo: Lowerer) -> _Parts | None:
    """Bounds that meet, and may part: a maximum and a minimum tell the pieces apart."""
    x, low, high = lo.arg(0, "self"), lo.arg(1, "min"), lo.arg(2, "max")
    if not (isinstance(low, Part) and isinstance(high, Part)):
        return None
    if not bool((low.value == high.value).any()) or not (lo.varied(1) or lo.varied(2)):
        return None
    return (lo(_ATEN.minimum.default, lo(_ATEN.maximum.default, x, low), high),)


def _each(name: str) -> Lowering:
    """A ``_foreach_`` operation: the plain one for every tensor of the list."""
    packet = getattr(_ATEN, name, None)

    def lowering(lo: Lowerer) -> _Parts | None:
        items = lo.arg(0, "self")
        if not isinstance(items, tuple):
            return None
        overload = lo.op.func._schema.overload_name
        if packet is None:  # maximum_ and minimum_ have no plain form
            return None
        found = []
        for i, item in enumerate(items):
            if overload in ("", "default"):
                found.append(lo(packet.default, item))
                continue
            other = lo.arg(1, "other")
            if overload in ("List", "ScalarList"):
                other = other[i]
            func = _matching(packet, other)
            if func is None or not isinstance(item, Part):
                return None
            if name in ("maximum", "minimum") and not isinstance(other, Part):
                bound = "clamp_min" if name == "maximum" else "clamp_max"
                func = getattr(_ATEN, bound).default
            found.append(lo(func, item, other))
        return () if name.endswith("_") else tuple(found)

    return lowering


def _matching(packet: Any, other: Any) -> Any:
    kinds = (
        ("Tensor", "Tensor_Tensor", "default")
        if isinstance(other, Part)
        else ("Scalar", "Tensor_Scalar", "default")
    )
    return next((getattr(packet, k) for k in kinds if k in packet.overloads()), None)


_FOREACH: Final = (
    ("abs", ("default",)),
    ("sqrt", ("default",)),
    ("rsqrt", ("default",)),
    ("reciprocal", ("default",)),
    ("log", ("default",)),
    ("log2", ("default",)),
    ("log10", ("default",)),
    ("acos", ("default",)),
    ("asin", ("default",)),
    ("sign", ("default",)),
    ("floor", ("default",)),
    ("ceil", ("default",)),
    ("round", ("default",)),
    ("trunc", ("default",)),
    ("frac", ("default",)),
    ("clamp_min", ("Scalar", "List", "ScalarList")),
    ("clamp_max", ("Scalar", "List", "ScalarList")),
    ("maximum", ("Scalar", "List", "ScalarList")),
    ("minimum", ("Scalar", "List", "ScalarList")),
    ("pow", ("Scalar", "List", "ScalarList")),
)


def _foreach_norm(lo: Lowerer) -> _Parts | None:
    items, order = lo.arg(0, "self"), lo.arg(1, "ord", 2)
    if not isinstance(items, tuple) or lo.arg(2, "dtype") is not None:
        return None
    return tuple(
        lo(_ATEN.linalg_vector_norm.default, x, float(order), _dims(x.value, None), False)
        for x in items
    )


def lowerings() -> Iterator[tuple[str, Lowering]]:
    """(operator with overload, lowering)."""
    yield "linalg_vector_norm", _vector_norm
    yield "abs", _complex_abs
    yield "angle", _complex_angle
    for overload in ("Scalar", "ScalarOpt_dim"):
        yield f"norm.{overload}", _plain_norm
    yield "_cdist_forward", _cdist
    yield "_euclidean_dist", _euclidean_dist
    yield "_pdist_forward", _pdist
    yield "dist", _dist
    for name in sorted(ROBUST):
        yield name, _robust_loss(name, 1.0)
    yield "logit", _logit
    yield "multi_margin_loss", _multi_margin_loss
    yield "multilabel_margin_loss_forward", _multilabel_margin_loss
    yield "aminmax", _aminmax
    yield "std_mean.correction", _std_mean
    yield "rrelu_with_noise", _rrelu
    yield "copysign.Scalar", _copysign
    yield "copysign.Tensor", _copysign
    yield "clamp.Tensor", _clamp_between
    yield "ldexp.Tensor", _ldexp
    yield from scattered()
    yield "grid_sampler_2d", grid_sampler
    yield "grid_sampler_3d", grid_sampler
    yield "_foreach_norm.Scalar", _foreach_norm
    for name, overloads in _FOREACH:
        for overload in overloads:
            suffix = "" if overload == "default" else f".{overload}"
            yield f"_foreach_{name}{suffix}", _each(name)
            yield f"_foreach_{name}_{suffix}", _each(f"{name}_")
