"""What becomes of affine dependence in an operation. What is not listed here loses it."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch

from clarke.capture import OpRecord, Ref, input_slots
from clarke.kinks.lows import words
from clarke.theorems.affine import (
    Form,
    Product,
    State,
    added_forms,
    is_dead,
    known_dead,
    leaf_form,
    scaled,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

# Every entry of the result is an entry of the first argument; the same function moves the forms.
_MOVES = words(
    "view _unsafe_view reshape unsqueeze squeeze expand permute transpose t select slice "
    "clone alias split split_with_sizes unbind diagonal flip roll unfold repeat "
    "_reshape_alias _to_copy lift_fresh index_select"
)
# Of these, the ones that keep every entry exactly once.
_REARRANGES = words(
    "view _unsafe_view reshape unsqueeze squeeze permute transpose t clone alias "
    "_reshape_alias _to_copy lift_fresh"
)
# Of these, the ones that may repeat entries.
_REPEATS = frozenset({"expand", "repeat", "unfold", "index_select"})


class Step:
    """One operation on states.

    Args:
        op: The operation.
        states: States by slot.
        shapes: Shapes of the results.
    """

    def __init__(
        self, op: OpRecord, states: Mapping[int, State], shapes: Sequence[torch.Size | None]
    ) -> None:
        self.op = op
        self.shapes = shapes
        self._states = states

    def state(self, value: Any) -> State:
        """The state of an argument; numbers are constants."""
        if isinstance(value, Ref):
            return self._states.get(value.slot, State(None))
        if isinstance(value, (int, float)):
            return State(torch.Size(()), data=torch.tensor(float(value), dtype=torch.float64))
        return State(None)

    def arg(self, position: int, name: str, default: Any = None) -> Any:
        """An argument by position or name."""
        if position < len(self.op.args):
            return self.op.args[position]
        return self.op.kwargs.get(name, default)

    def reads(self) -> list[State]:
        """The states of all tensors that the operation reads."""
        return [self._states.get(s, State(None)) for s in input_slots(self.op)]


def transfer(step: Step) -> list[State]:
    """States of the results: dependence always, forms where the operation is listed."""
    reads = step.reads()
    base = State(None)
    for s in reads:
        base = State(
            None,
            base.depends | s.depends,
            base.through | s.through,
            base.direct | s.direct,
            base.kinks | s.kinks,
        )
    depends = base.depends
    out = [replace(base, shape=shape) for shape in step.shapes]
    rule = _RULES.get(step.op.short_name.removesuffix("_"))
    known = all(s is not None for s in step.shapes)
    if step.op.func.namespace != "aten" or not depends or not known or not out or rule is None:
        return out
    found = rule(step, out)
    return out if found is None else found


def _apply(step: Step, tensor: torch.Tensor, rest: Sequence[Any]) -> list[torch.Tensor]:
    kwargs = {k: v for k, v in step.op.kwargs.items() if k in ("dim", "memory_format")}
    with torch.no_grad():
        try:
            found = step.op.func(tensor, *rest, **kwargs)
        except RuntimeError:  # a view that the strides of an expanded tensor do not allow
            found = step.op.func(tensor.contiguous(), *rest, **kwargs)
    return list(found) if isinstance(found, (list, tuple)) else [found]


def _move(step: Step, out: list[State]) -> list[State] | None:
    source = step.state(step.op.args[0])
    name = step.op.short_name.removesuffix("_")
    rest = list(step.op.args[1:])
    for i, a in enumerate(rest):
        if isinstance(a, Ref):  # index_select by a constant
            rest[i] = step.state(a).data
            if rest[i] is None:
                return None
    if source.shape is None or step.op.short_name != name:
        return None

    def moved(tensor: torch.Tensor) -> list[torch.Tensor]:
        if name == "_to_copy":
            return [tensor]
        return _apply(step, tensor, rest)

    forms = {
        leaf: list(zip(moved(f.coef), moved(f.index), strict=True))
        for leaf, f in source.forms.items()
    }
    dead = None if source.dead is None else moved(source.dead)
    found = []
    keeps = name in _REARRANGES
    for i, state in enumerate(out):
        mapped = {
            leaf: Form(*parts[i], added=source.forms[leaf].added) for leaf, parts in forms.items()
        }
        once = name not in _REPEATS or _shape(state).numel() == source.shape.numel() != 0
        once = once and name not in ("unfold", "index_select")
        found.append(
            replace(
                state,
                forms=MappingProxyType(mapped),
                dead=None if dead is None else known_dead(dead[i]),
                leaf=source.leaf if once else -1,
                product=source.product if keeps else None,
            )
        )
    return found


def _shape(state: State) -> torch.Size:
    assert state.shape is not None  # noqa: S101 - transfer() has looked
    return state.shape


def _sum_of(state: State, left: State, right: State, factor: float = 1.0) -> State:
    shape = _shape(state)
    product = None
    for one, other in ((left, right), (right, left)):
        p = one.product
        if p is not None and one.shape == shape and not other.depends >> p.weight & 1:
            product = p
    return replace(
        state,
        forms=MappingProxyType(added_forms(left, right, shape, factor)),
        dead=known_dead(is_dead(left, shape) & is_dead(right, shape)),
        product=product,
    )


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _add(step: Step, out: list[State]) -> list[State] | None:
    left, right = step.op.args[0], step.op.args[1]
    alpha = _number(step.arg(2, "alpha", 1))
    if alpha is None:
        return None
    name = step.op.short_name.removesuffix("_")
    if name == "sub":
        alpha = -alpha
    if name == "rsub":  # other - alpha * self
        left, right, alpha = right, left, -alpha
    return [_sum_of(out[0], step.state(left), step.state(right), alpha)]


def _neg(step: Step, out: list[State]) -> list[State] | None:
    return [_times(out[0], step.state(step.op.args[0]), torch.tensor(-1.0, dtype=torch.float64))]


def _times(state: State, source: State, factor: torch.Tensor) -> State:
    shape = _shape(state)
    factor = factor.to(torch.float64)
    zero = (factor == 0).expand(shape)
    forms = {
        leaf: scaled(Form(f.coef.expand(shape), f.index.expand(shape), f.added), factor)
        for leaf, f in source.forms.items()
    }
    same = factor.numel() == 1 and bool(factor != 0) and source.shape == shape
    return replace(
        state,
        forms=MappingProxyType(forms),
        dead=known_dead(zero | is_dead(source, shape)),
        product=source.product if same else None,
    )


def _mul(step: Step, out: list[State]) -> list[State] | None:
    left, right = step.state(step.op.args[0]), step.state(step.op.args[1])
    for source, factor in ((left, right), (right, left)):
        if factor.constant and factor.data is not None and bool(factor.data.isfinite().all()):
            return [_times(out[0], source, factor.data)]
    return None


def _div(step: Step, out: list[State]) -> list[State] | None:
    source, by = step.state(step.op.args[0]), step.state(step.op.args[1])
    if not by.constant or by.data is None or step.op.kwargs.get("rounding_mode"):
        return None
    factor = 1.0 / by.data.to(torch.float64)
    return [_times(out[0], source, factor)] if bool(factor.isfinite().all()) else None


def _native_dropout(step: Step, out: list[State]) -> list[State] | None:
    p, train = step.op.args[1], step.arg(2, "train")
    source = step.state(step.op.args[0])
    if train is not False and p != 0:
        return None  # another draw keeps other elements
    factor = torch.ones((), dtype=torch.float64)
    return [_times(out[0], source, factor), *out[1:]]


def _with_bias(
    state: State,
    bias: State,
    others: Sequence[State],
    spread: Callable[[Any], Any],
    factor: float = 1.0,
) -> State:
    """``something of the others + factor * bias`` with the bias spread over the result."""
    shape = _shape(state)
    blocked = 0
    for other in others:
        blocked |= other.depends
    forms = {
        leaf: Form(factor * spread(f.coef).expand(shape), spread(f.index).expand(shape), added=True)
        for leaf, f in bias.forms.items()
        if not blocked >> leaf & 1
    }
    return replace(state, forms=MappingProxyType(forms))


def _product_of(step: Step, x: Any, w: Any) -> Product | None:
    inputs, weight = step.state(x), step.state(w)
    if weight.leaf < 0 or not isinstance(x, Ref) or inputs.depends >> weight.leaf & 1:
        return None
    if weight.depends != 1 << weight.leaf:
        return None
    return Product(weight.leaf, x.slot)


def _addmm(step: Step, out: list[State]) -> list[State] | None:
    bias, x, w = step.op.args[:3]
    beta, alpha = _number(step.arg(3, "beta", 1)), _number(step.arg(4, "alpha", 1))
    if beta is None or alpha is None:
        return None
    others = [step.state(x), step.state(w)]
    state = _with_bias(out[0], step.state(bias), others, lambda t: t, beta)
    product = _product_of(step, x, w) if step.op.short_name.startswith("addmm") and alpha else None
    if product is not None and step.state(bias).depends >> product.weight & 1:
        product = None
    return [replace(state, product=product)]


def _mm(step: Step, out: list[State]) -> list[State] | None:
    return [replace(out[0], product=_product_of(step, step.op.args[0], step.op.args[1]))]


def _convolution(step: Step, out: list[State]) -> list[State] | None:
    bias = step.arg(2, "bias")
    if not isinstance(bias, Ref):
        return None
    rank = len(_shape(out[0])) - 2
    others = [step.state(step.op.args[0]), step.state(step.op.args[1])]
    spread = _over_channels(rank)
    return [_with_bias(out[0], step.state(bias), others, spread)]


def _over_channels(rank: int) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda t: t.reshape(1, -1, *(1,) * rank)


def _batch_norm(step: Step, out: list[State]) -> list[State] | None:
    """All forms have (input, weight, bias, ...)."""
    x, weight, bias = step.op.args[:3]
    if not isinstance(bias, Ref):
        return None
    others = [step.state(x), step.state(weight), *map(step.state, step.op.args[3:5])]
    spread = _over_channels(len(_shape(out[0])) - 2)
    return [_with_bias(out[0], step.state(bias), others, spread), *out[1:]]


def _layer_norm(step: Step, out: list[State]) -> list[State] | None:
    """native_layer_norm(input, normalized_shape, weight, bias, eps)."""
    x, _, weight, bias = step.op.args[:4]
    if not isinstance(bias, Ref):
        return None
    others = [step.state(x), step.state(weight)]
    return [_with_bias(out[0], step.state(bias), others, lambda t: t), *out[1:]]


def _group_norm(step: Step, out: list[State]) -> list[State] | None:
    """native_group_norm(input, weight, bias, N, C, HxW, group, eps)."""
    x, weight, bias = step.op.args[:3]
    if not isinstance(bias, Ref):
        return None
    others = [step.state(x), step.state(weight)]
    spread = _over_channels(len(_shape(out[0])) - 2)
    return [_with_bias(out[0], step.state(bias), others, spread), *out[1:]]


def _cat(step: Step, out: list[State]) -> list[State] | None:
    if not isinstance(step.op.args[0], (list, tuple)):
        return None
    parts = [step.state(r) for r in step.op.args[0]]
    if any(p.shape is None for p in parts):
        return None
    rest = step.op.args[1:]

    def joined(tensors: list[torch.Tensor]) -> torch.Tensor:
        found: torch.Tensor = step.op.func(tensors, *rest, **step.op.kwargs)
        return found

    forms = {}
    for leaf in {leaf for p in parts for leaf in p.forms}:
        if any(p.depends >> leaf & 1 and leaf not in p.forms for p in parts):
            continue
        own = [p.forms.get(leaf) for p in parts]
        zeros = [torch.zeros((), dtype=torch.float64).expand(_shape(p)) for p in parts]
        none = [torch.zeros((), dtype=torch.int64).expand(_shape(p)) for p in parts]
        forms[leaf] = Form(
            joined([z if f is None else f.coef for f, z in zip(own, zeros, strict=True)]),
            joined([z if f is None else f.index for f, z in zip(own, none, strict=True)]),
            added=any(f is not None and f.added for f in own),
        )
    dead = joined([is_dead(p, _shape(p)) for p in parts])
    return [replace(out[0], forms=MappingProxyType(forms), dead=known_dead(dead))]


def _pad(step: Step, out: list[State]) -> list[State] | None:
    source = step.state(step.op.args[0])
    if source.shape is None:
        return None
    pad = step.op.args[1]
    func = torch.ops.aten.constant_pad_nd.default
    forms = {
        leaf: Form(func(f.coef, pad, 0), func(f.index, pad, 0), f.added)
        for leaf, f in source.forms.items()
    }
    dead = func(is_dead(source, source.shape).to(torch.uint8), pad, 1).to(torch.bool)
    return [replace(out[0], forms=MappingProxyType(forms), dead=known_dead(dead))]


def _where(step: Step, out: list[State]) -> list[State] | None:
    if len(step.op.args) != 3:
        return None
    mask = step.state(step.op.args[0])
    if not mask.constant or mask.data is None:
        return None
    return [_chosen(out[0], mask.data, step.state(step.op.args[1]), step.state(step.op.args[2]))]


def _masked_fill(step: Step, out: list[State]) -> list[State] | None:
    mask, value = step.state(step.op.args[1]), step.state(step.op.args[2])
    if not mask.constant or mask.data is None or not value.constant:
        return None
    return [_chosen(out[0], mask.data, value, step.state(step.op.args[0]))]


def _chosen(state: State, mask: torch.Tensor, left: State, right: State) -> State:
    shape = _shape(state)
    mask = mask.to(torch.bool).expand(shape)
    forms = {}
    for leaf in {*left.forms, *right.forms}:
        own = [side.forms.get(leaf) for side in (left, right)]
        sides = zip((left, right), own, strict=True)
        if any(side.depends >> leaf & 1 and form is None for side, form in sides):
            continue
        coef = [torch.zeros(shape, dtype=torch.float64) if f is None else f.coef for f in own]
        index = [torch.zeros(shape, dtype=torch.int64) if f is None else f.index for f in own]
        forms[leaf] = Form(
            torch.where(mask, coef[0].expand(shape), coef[1].expand(shape)),
            torch.where(mask, index[0].expand(shape), index[1].expand(shape)),
            added=any(f is not None and f.added for f in own),
        )
    dead = torch.where(mask, is_dead(left, shape), is_dead(right, shape))
    return replace(state, forms=MappingProxyType(forms), dead=known_dead(dead))


_RULES: Mapping[str, Callable[[Step, list[State]], list[State] | None]] = MappingProxyType(
    {
        **dict.fromkeys(_MOVES, _move),
        **dict.fromkeys(("add", "sub", "rsub"), _add),
        **dict.fromkeys(("addmm", "addmv", "addbmm", "baddbmm"), _addmm),
        **dict.fromkeys(("convolution", "_convolution", "mkldnn_convolution"), _convolution),
        **dict.fromkeys(
            ("native_batch_norm", "_native_batch_norm_legit", "_batch_norm_with_update",
             "_native_batch_norm_legit_no_training", "cudnn_batch_norm"),
            _batch_norm,
        ),
        "neg": _neg,
        "mul": _mul,
        "div": _div,
        "native_dropout": _native_dropout,
        "mm": _mm,
        "native_layer_norm": _layer_norm,
        "native_group_norm": _group_norm,
        "cat": _cat,
        "stack": _cat,
        "constant_pad_nd": _pad,
        "where": _where,
        "masked_fill": _masked_fill,
    }
)  # fmt: skip


def leaf_state(tensor: torch.Tensor, number: int, *, small: bool) -> State:
    """The state of a leaf."""
    forms = {number: leaf_form(tensor)} if small else {}
    return State(
        tensor.shape, 1 << number, direct=1 << number, forms=MappingProxyType(forms), leaf=number
    )
