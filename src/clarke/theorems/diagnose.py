"""Why a layer has no usable bias, and what to change."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from clarke.capture import OpRecord, Ref
from clarke.kinks.facts import words
from clarke.theorems.affine import bits
from clarke.theorems.model import Bias
from clarke.theorems.text import place

if TYPE_CHECKING:
    from clarke.theorems.peel import Group, Member
    from clarke.theorems.structure import KinkSite, Structure

_SOURCES = words(
    "addmm mm bmm addmv mv convolution _convolution native_batch_norm native_layer_norm "
    "native_group_norm _native_batch_norm_legit _native_batch_norm_legit_no_training "
    "_batch_norm_with_update mkldnn_convolution baddbmm"
)
_NORMS = frozenset(n for n in _SOURCES if "norm" in n)
_SUMS = frozenset({"add", "sub", "rsub"})
# Activations with two kinks, written with ReLUs that agree on the side they take.
_REWRITES = (
    ("hardtanh", "relu6(x) as relu(x) - relu(x - 6), hardtanh(x) as relu(x + 1) - relu(x - 1) - 1"),
    ("hardsigmoid", "hardsigmoid(x) as (relu(x + 3) - relu(x - 3)) / 6"),
    ("hardswish", "hardswish(x) as x * (relu(x + 3) - relu(x - 3)) / 6"),
    ("clamp", "clamp(x, a, b) as a + relu(x - a) - relu(x - b)"),
)


@dataclass(frozen=True)
class Diagnosis:
    """How a bias reaches a layer, or fails to; with a reason and a fix for people."""

    bias: Bias
    leaf: str
    reason: str = ""
    fix: str = ""


def settled(structure: Structure, group: Group, member: Member) -> Diagnosis:
    """The diagnosis of a layer that a group settles."""
    name = structure.leaves[group.leaf].name
    index, mask = member.index, member.mask
    if group.weight:
        return Diagnosis(Bias.MISSING, "")
    if _injective(index[mask]):
        return Diagnosis(Bias.SINGLE, name)
    if index.dim() > 0 and index.shape[0] > 0:
        same = bool((index == index[:1])[mask].all())
        once = all(_injective(row[own]) for row, own in zip(index, mask, strict=True))
        if same and once:
            return Diagnosis(Bias.DISTINCT, name)
    return Diagnosis(Bias.SHARED, name)


def _injective(index: torch.Tensor) -> bool:
    return bool(index.unique().numel() == index.numel())


def unsettled(structure: Structure, number: int, left: tuple[int, ...]) -> Diagnosis:
    """The diagnosis of a layer that no bias settles."""
    site = structure.sites[number]
    source = source_of(structure, site)
    where = f"`{source.location.module}`" if source and source.location.module else "its layer"
    mine = f"add a bias to {where}, or after it"
    if site.state.shape is None:
        text = "the shape of its input depends on values, so it cannot be followed"
        return Diagnosis(Bias.BEHIND, "", text)
    for leaf in sorted(site.state.forms, reverse=True):
        form, own = site.state.forms[leaf], structure.leaves[leaf]
        if not own.variable:
            if form.added:
                text = f"its bias `{own.name}` is not among the variables"
                return Diagnosis(Bias.FROZEN, own.name, text, f"let `{own.name}` be trained")
            continue
        if bool((form.coef == 0).all()):
            return Diagnosis(Bias.ZERO, own.name, f"its bias `{own.name}` is scaled by zero", mine)
        other = _other_user(structure, leaf, number, left)
        if other is not None:
            text = f"`{own.name}` also moves the kinks of {other}"
            return Diagnosis(Bias.ELSEWHERE, own.name, text, mine)
        text = f"`{own.name}` moves only some of its pre-activations"
        return Diagnosis(Bias.ZERO, own.name, text, mine)
    return (
        _lost(structure, site, mine)
        or _again(structure, site, source, mine)
        or Diagnosis(
            Bias.MISSING, "", f"no bias is added to its input, which {_made_by(source)}", mine
        )
    )


def _again(
    structure: Structure, site: KinkSite, source: OpRecord | None, mine: str
) -> Diagnosis | None:
    """The layer adds a bias that its own input depends on."""
    for value in source.args if source is not None else ():
        state = structure.states.get(value.slot) if isinstance(value, Ref) else None
        if state is None or state.leaf < 0 or state.shape is None or len(state.shape) != 1:
            continue
        leaf = structure.leaves[state.leaf]
        if leaf.variable and site.state.through >> state.leaf & 1:
            text = f"its bias `{leaf.name}` reaches it through an earlier kink as well"
            return Diagnosis(Bias.ELSEWHERE, leaf.name, text, mine)
    return None


def _made_by(source: OpRecord | None) -> str:
    if source is None:
        return "is computed without one"
    return f"comes from {source.shown} at {place(source.location)}"


def _lost(structure: Structure, site: KinkSite, mine: str) -> Diagnosis | None:
    before = [structure.sites[k].position for k in bits(site.state.kinks)]
    last = max(before, default=-1)
    for lost in reversed(structure.lost):
        if not last < lost.position < site.position or not site.state.depends >> lost.leaf & 1:
            continue
        leaf = structure.leaves[lost.leaf]
        name = lost.op.short_name.removesuffix("_")
        if not leaf.variable:
            continue
        where = f"{lost.op.shown} at {place(lost.op.location)}"
        if name in _NORMS:
            text = (
                f"`{leaf.name}` is normalised away by {lost.op.shown} at {place(lost.op.location)}"
            )
            fix = f"give `{lost.op.location.module or place(lost.op.location)}` an affine shift"
            return Diagnosis(Bias.CANCELLED, leaf.name, text, fix)
        if name in _SUMS and site.state.through >> lost.leaf & 1:
            text = f"`{leaf.name}` reaches it through an earlier kink as well ({where})"
            return Diagnosis(Bias.ELSEWHERE, leaf.name, text, mine)
        if name in _SUMS:
            text = f"`{leaf.name}` stands on both sides of {where}, which may cancel it"
            return Diagnosis(Bias.CANCELLED, leaf.name, text, mine)
        text = f"{where} stands between `{leaf.name}` and the kink"
        return Diagnosis(Bias.BEHIND, leaf.name, text, mine)
    return None


def _other_user(structure: Structure, leaf: int, number: int, left: tuple[int, ...]) -> str | None:
    for other in left:
        site = structure.sites[other]
        if other != number and site.state.depends >> leaf & 1 and leaf not in site.state.forms:
            return f"{site.op.shown} at {place(site.op.location)}, by a way that is no shift"
    return None


def source_of(structure: Structure, site: KinkSite) -> OpRecord | None:
    """The linear or normalising operation that made a layer's pre-activations."""
    made = {
        slot: op
        for op in structure.trace.ops[: site.position]
        for slot in op.outputs
        if slot is not None
    }
    value = site.op.args[0]
    for _ in range(64):
        op = made.get(value.slot) if isinstance(value, Ref) else None
        if op is None or op.short_name in _SOURCES:
            return op
        if any(other.op is op for other in structure.sites):
            return None
        items = op.args[0] if isinstance(op.args[0], (list, tuple)) else op.args
        value = next((a for a in items if isinstance(a, Ref)), None)
        if isinstance(value, Ref) and made.get(value.slot) is op:
            return op  # in place: its first argument is its result
    return None


def lambda_fix(op: OpRecord) -> str:
    """How to write an activation so that one lambda fits all its kinks."""
    for name, text in _REWRITES:
        if op.short_name.startswith(name):
            return f"write {text}: torch's relu takes the lower slope everywhere"
    return "use an activation that takes its slopes from the same side at all its kinks"
