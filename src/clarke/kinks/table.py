"""The rules of PyTorch's own operations, by dispatcher name."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from clarke.kinks.table_choices import choices
from clarke.kinks.table_complex import complex_rules
from clarke.kinks.table_derivatives import derivatives, lowered_derivatives
from clarke.kinks.table_lowerings import lowerings
from clarke.kinks.table_matrices import chunked, factorisations, formulas
from clarke.kinks.table_regions import regions
from clarke.kinks.table_singular import singular_points
from clarke.kinks.table_steps import casts, steps

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import TypeVar

    from clarke.kinks.lowering import Lowering
    from clarke.kinks.model import KinkRule

    _T = TypeVar("_T")


def _installed(named: Iterable[tuple[str, _T]]) -> Iterator[tuple[str, _T]]:
    """Full dispatcher names, for the overloads that the installed torch has."""
    for name, value in named:
        operator, _, overload = name.partition(".")
        overload = overload or "default"
        packet = getattr(torch.ops.aten, operator, None)
        if packet is not None and overload in packet.overloads():
            yield f"aten::{operator}.{overload}", value


def rule_table() -> Iterator[tuple[str, KinkRule]]:
    """(dispatcher name, rule) of every operation with kinks, steps or singular points.

    In-place forms follow from the functional ones (`clarke.kinks.overloads`).
    """
    yield from _installed(regions())
    yield from _installed(derivatives())
    yield from _installed(choices())
    yield from _installed(steps())
    yield from _installed(singular_points())
    yield from _installed(factorisations())
    yield from _installed(formulas())
    yield from chunked()


def complex_table() -> Iterator[tuple[str, KinkRule]]:
    """(dispatcher name, rule) of operations with rules that hold for complex arguments."""
    yield from _installed(complex_rules())


def lowering_table() -> Iterator[tuple[str, Lowering]]:
    """(dispatcher name, lowering) of every fused operation."""
    yield from _installed(lowerings())
    yield from _installed(lowered_derivatives())
    yield from _installed(casts())
