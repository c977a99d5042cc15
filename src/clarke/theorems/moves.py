"""Operations that move, copy, join or choose entries."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import torch

from clarke.capture import Ref
from clarke.kinks.facts import MOVES, PARTS, REARRANGES, REPEATS
from clarke.theorems.affine import (
    Form,
    State,
    is_dead,
    known_dead,
)
from clarke.theorems.step import Step, shape_of

if TYPE_CHECKING:
    from collections.abc import Sequence

# The same function moves the forms; a cast counts as exact.
FOLLOWED: Final = MOVES | PARTS | {"_to_copy", "index_select"}


def _apply(step: Step, tensor: torch.Tensor, rest: Sequence[Any]) -> list[torch.Tensor]:
    kwargs = {k: v for k, v in step.op.kwargs.items() if k in ("dim", "memory_format")}
    with torch.no_grad():
        try:
            found = step.op.func(tensor, *rest, **kwargs)
        except RuntimeError:  # a view that the strides of an expanded tensor do not allow
            found = step.op.func(tensor.contiguous(), *rest, **kwargs)
    return list(found) if isinstance(found, (list, tuple)) else [found]


def move(step: Step, out: list[State]) -> list[State] | None:
    """The first argument's entries elsewhere."""
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
    keeps = name in REARRANGES or name == "_to_copy"
    for i, state in enumerate(out):
        mapped = {
            leaf: Form(*parts[i], added=source.forms[leaf].added) for leaf, parts in forms.items()
        }
        once = name not in REPEATS or shape_of(state).numel() == source.shape.numel() != 0
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


def cat(step: Step, out: list[State]) -> list[State] | None:
    """Several tensors side by side: ``cat`` and ``stack``."""
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
        zeros = [torch.zeros((), dtype=torch.float64).expand(shape_of(p)) for p in parts]
        none = [torch.zeros((), dtype=torch.int64).expand(shape_of(p)) for p in parts]
        forms[leaf] = Form(
            joined([z if f is None else f.coef for f, z in zip(own, zeros, strict=True)]),
            joined([z if f is None else f.index for f, z in zip(own, none, strict=True)]),
            added=any(f is not None and f.added for f in own),
        )
    dead = joined([is_dead(p, shape_of(p)) for p in parts])
    return [replace(out[0], forms=MappingProxyType(forms), dead=known_dead(dead))]


def pad(step: Step, out: list[State]) -> list[State] | None:
    """The first argument with a constant around it."""
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


def where(step: Step, out: list[State]) -> list[State] | None:
    """Entries of two tensors, chosen by a constant mask."""
    if len(step.op.args) != 3:
        return None
    mask = step.state(step.op.args[0])
    if not mask.constant or mask.data is None:
        return None
    return [_chosen(out[0], mask.data, step.state(step.op.args[1]), step.state(step.op.args[2]))]


def masked_fill(step: Step, out: list[State]) -> list[State] | None:
    """A constant where a constant mask holds."""
    mask, value = step.state(step.op.args[1]), step.state(step.op.args[2])
    if not mask.constant or mask.data is None or not value.constant:
        return None
    return [_chosen(out[0], mask.data, value, step.state(step.op.args[0]))]


def _chosen(state: State, mask: torch.Tensor, left: State, right: State) -> State:
    shape = shape_of(state)
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
