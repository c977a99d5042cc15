"""Piecewise constant operations, and sawtooths."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from clarke.kinks.casts import CastRule, cast_to_truth
from clarke.kinks.signs import SignRule
from clarke.kinks.steps import (
    ComparisonRule,
    ConstantRule,
    MantissaRule,
    QuotientRule,
    RemainderRule,
    SearchRule,
    SignCopyRule,
    StepRule,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from clarke.kinks.lowering import Lowering
    from clarke.kinks.model import KinkRule


def _on_half(x: torch.Tensor) -> torch.Tensor:
    return x - x.floor() == 0.5


def _on_integer(x: torch.Tensor) -> torch.Tensor:
    return x == x.floor()


def _on_nonzero_integer(x: torch.Tensor) -> torch.Tensor:
    return (x == x.floor()) & (x != 0)


def _on_zero(x: torch.Tensor) -> torch.Tensor:
    return x == 0


def steps() -> Iterator[tuple[str, KinkRule]]:
    """(operator with overload, rule)."""
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
        ("signbit", _on_zero),
        ("angle", _on_zero),
        ("heaviside", _on_zero),
    ):
        yield name, StepRule(jump)
    for name in ("sign", "sgn"):
        yield name, SignRule()
    # frac jumps where trunc does
    yield "frac", StepRule(_on_nonzero_integer, residue=True)
    yield "round.decimals", StepRule(_on_half, scaled=True)
    for name in ("isnan", "isinf", "isposinf", "isneginf"):
        yield name, ConstantRule()
    for name, overloads in (
        ("remainder", ("Scalar", "Tensor", "Scalar_Tensor")),
        ("fmod", ("Scalar", "Tensor")),
    ):
        for overload in overloads:
            yield f"{name}.{overload}", RemainderRule(truncated=name == "fmod")
    for overload in ("Scalar", "default"):
        yield f"floor_divide.{overload}", QuotientRule()
    for overload in ("Scalar_mode", "Tensor_mode"):
        yield f"div.{overload}", QuotientRule()
    # Lowered to a product with the absolute value, of whose sign this remains.
    yield "copysign.Tensor", SignCopyRule()
    yield "frexp.Tensor", MantissaRule()
    yield "_to_copy", CastRule()
    for name in ("bucketize", "searchsorted"):
        yield f"{name}.Tensor", SearchRule(sorted_first=name == "searchsorted")


def casts() -> Iterator[tuple[str, Lowering]]:
    """(operator with overload, lowering)."""
    yield "_to_copy", cast_to_truth
