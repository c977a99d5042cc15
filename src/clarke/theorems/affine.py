"""How one tensor depends on the leaves: not at all, exactly affinely on a few, or somehow."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

import torch

from clarke.kinks.lows import Low
from clarke.numerics import CANCELS

if TYPE_CHECKING:
    from collections.abc import Mapping

# Larger leaves are weights: the affine form of their own entries would only cost memory.
LARGEST_BIAS = 1 << 20


@dataclass(frozen=True, eq=False)
class Form:
    """Element ``e`` depends on the leaf ``b`` through ``+ coef[e] * b.flatten()[index[e]]`` only.

    Attributes:
        coef: float64, the tensor's shape.
        index: int64, likewise.
        added: The leaf was added to something else: it acts as a bias.
    """

    coef: torch.Tensor
    index: torch.Tensor
    added: bool = False


@dataclass(frozen=True)
class Product:
    """The tensor is ``X @ W.T`` plus what does not depend on ``W``, entries in some order.

    Attributes:
        weight: Bit number of the leaf W.
        inputs: Slot of X, (rows, features).
    """

    weight: int
    inputs: int


@dataclass(frozen=True, eq=False)
class State:
    """What is known of one tensor, for all values of the leaves.

    Attributes:
        shape: Its shape; None if unknown (then nothing below but `depends` and `through` counts).
        depends: Bit set of leaves on which it may depend.
        through: Those on which it may depend by way of a kink or a maximum.
        direct: Those on which it may depend by a way without any.
        kinks: Bit set of operations with kinks on which it may depend.
        forms: Leaves on which it depends exactly affinely.
        dead: bool, the tensor's shape: elements that depend on no leaf at all. None: none known.
        low: A lower bound on its entries.
        data: Its values, for constants.
        leaf: Bit number of the leaf of which it is a rearrangement, else -1.
        product: Set for the output of a fully connected layer.
    """

    shape: torch.Size | None
    depends: int = 0
    through: int = 0
    direct: int = 0
    kinks: int = 0
    forms: Mapping[int, Form] = field(default_factory=lambda: MappingProxyType({}))
    dead: torch.Tensor | None = None
    low: Low = Low.UNKNOWN
    data: torch.Tensor | None = None
    leaf: int = -1
    product: Product | None = None

    @property
    def constant(self) -> bool:
        """Whether it depends on no leaf."""
        return self.depends == 0


def leaf_form(tensor: torch.Tensor) -> Form:
    """The identity: every element of a leaf is itself."""
    index = torch.arange(tensor.numel()).reshape(tensor.shape)
    return Form(torch.ones((), dtype=torch.float64).expand(tensor.shape), index)


def bits(mask: int) -> tuple[int, ...]:
    """The numbers of the bits that are set, ascending."""
    found = []
    while mask:
        low = mask & -mask
        found.append(low.bit_length() - 1)
        mask ^= low
    return tuple(found)


def scaled(form: Form, factor: torch.Tensor | float) -> Form:
    """The form times a constant, elementwise."""
    return Form(form.coef * factor, form.index, form.added)


def is_dead(state: State, shape: torch.Size) -> torch.Tensor:
    """Which elements depend on no leaf, broadcast to a shape."""
    if state.constant:
        return torch.ones((), dtype=torch.bool).expand(shape)
    if state.dead is None:
        return torch.zeros((), dtype=torch.bool).expand(shape)
    return state.dead.expand(shape)


def known_dead(mask: torch.Tensor) -> torch.Tensor | None:
    """The mask, or None if nothing in it is set."""
    return mask if bool(mask.any()) else None


def added_forms(
    left: State, right: State, shape: torch.Size, right_factor: float = 1.0
) -> dict[int, Form]:
    """Forms of ``left + right_factor * right`` where the dependence stays affine."""
    found: dict[int, Form] = {}
    for leaf in {*left.forms, *right.forms}:
        a, b = left.forms.get(leaf), right.forms.get(leaf)
        if a is not None and b is not None:
            ia, ib = a.index.expand(shape), b.index.expand(shape)
            ca, cb = a.coef.expand(shape), right_factor * b.coef.expand(shape)
            total = ca + cb
            rounding = (total != 0) & (total.abs() < CANCELS * (ca.abs() + cb.abs()))
            same = (ia == ib) | (ca == 0) | (cb == 0)
            if bool((same & ~rounding).all()):
                found[leaf] = Form(total, torch.where(ca == 0, ib, ia), added=True)
        elif a is not None and not right.depends >> leaf & 1:
            more = a.added or not right.constant or left.leaf < 0
            found[leaf] = Form(a.coef.expand(shape), a.index.expand(shape), added=more)
        elif b is not None and not left.depends >> leaf & 1:
            more = b.added or not left.constant or right.leaf < 0
            coef = right_factor * b.coef.expand(shape)
            found[leaf] = Form(coef, b.index.expand(shape), added=more)
    return found
