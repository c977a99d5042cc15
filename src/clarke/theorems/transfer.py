"""What becomes of affine dependence in an operation. What is not listed here loses it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch

from clarke.capture import Ref
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
from clarke.theorems.moves import FOLLOWED, cat, masked_fill, move, pad, where
from clarke.theorems.step import Step, number_of, shape_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


_Rule = Callable[[Step, list[State]], list[State] | None]


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


def _sum_of(state: State, left: State, right: State, factor: float = 1.0) -> State:
    shape = shape_of(state)
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


def _add(step: Step, out: list[State]) -> list[State] | None:
    left, right = step.op.args[0], step.op.args[1]
    alpha = number_of(step.arg(2, "alpha", 1))
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
    shape = shape_of(state)
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
    shape = shape_of(state)
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
    beta, alpha = number_of(step.arg(3, "beta", 1)), number_of(step.arg(4, "alpha", 1))
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


def _biased(*others: int, bias: int = 2, channels: bool = True) -> _Rule:
    """The rule of an operation that adds a bias to something of the arguments at `others`.

    Args:
        others: Positions of the other tensors.
        bias: Position of the bias.
        channels: The bias has an entry for each channel, the second dimension; else its shape is
            that of the last dimensions.
    """

    def rule(step: Step, out: list[State]) -> list[State] | None:
        own = step.arg(bias, "bias")
        if not isinstance(own, Ref):
            return None
        read = [step.state(step.op.args[i]) for i in others if i < len(step.op.args)]
        ones = (1,) * (len(shape_of(out[0])) - 2)

        def spread(values: torch.Tensor) -> torch.Tensor:
            return values.reshape(1, -1, *ones) if channels else values

        return [_with_bias(out[0], step.state(own), read, spread), *out[1:]]

    return rule


_RULES: Mapping[str, _Rule] = MappingProxyType(
    {
        **dict.fromkeys(FOLLOWED, move),
        **dict.fromkeys(("add", "sub", "rsub"), _add),
        **dict.fromkeys(("addmm", "addmv", "addbmm", "baddbmm"), _addmm),
        **dict.fromkeys(("convolution", "_convolution", "mkldnn_convolution"), _biased(0, 1)),
        **dict.fromkeys(
            ("native_batch_norm", "_native_batch_norm_legit", "_batch_norm_with_update",
             "_native_batch_norm_legit_no_training", "cudnn_batch_norm"),
            _biased(0, 1, 3, 4),
        ),
        "neg": _neg,
        "mul": _mul,
        "div": _div,
        "native_dropout": _native_dropout,
        "mm": _mm,
        "native_layer_norm": _biased(0, 2, bias=3, channels=False),
        "native_group_norm": _biased(0, 1),
        "cat": cat,
        "stack": cat,
        "constant_pad_nd": pad,
        "where": where,
        "masked_fill": masked_fill,
    }
)  # fmt: skip


def leaf_state(tensor: torch.Tensor, number: int, *, small: bool) -> State:
    """The state of a leaf."""
    forms = {number: leaf_form(tensor)} if small else {}
    return State(
        tensor.shape, 1 << number, direct=1 << number, forms=MappingProxyType(forms), leaf=number
    )
