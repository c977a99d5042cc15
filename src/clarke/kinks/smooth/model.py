"""What an operation can be, and how the tables of this folder are written."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_T = TypeVar("_T")


class OpClass(Enum):
    """What an operation is, as a function of its floating point inputs."""

    ANALYTIC = "analytic in its floating point inputs"
    STRUCTURAL = "moves, copies or omits entries: a linear map of zeros and ones, plus constants"
    CONSTANT = "does not depend on the values of differentiable inputs"
    RANDOM = "random: its recorded outcome is a constant"
    SINGULAR = "analytic except at special inputs, where a slope is infinite or undefined"
    DISCRETE = "piecewise constant, or with jumps"


@dataclass(frozen=True)
class Condition:
    """What an operation is depends on the arguments of the call.

    Attributes:
        holds: Decides, from the arguments by their names in the schema, defaults filled in. Tensors
            are read: call it outside of any dispatch mode. False where an argument is missing.
        because: What is wrong where the condition does not hold.
        op_class: Its class where `holds`.
        otherwise: Its class elsewhere; None: unknown.
    """

    holds: Callable[[Mapping[str, object]], bool]
    because: str
    op_class: OpClass = OpClass.ANALYTIC
    otherwise: OpClass | None = None


def aten(*groups: str) -> frozenset[str]:
    """Names in the dispatcher's spelling, from white-space separated ``name.overload``."""
    names = [f"aten::{word}" for group in groups for word in group.split()]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"listed twice: {', '.join(twice)}")
    return frozenset(names)


def named(table: Mapping[str, _T]) -> Mapping[str, _T]:
    """What is said of each of the white-space separated names of a key."""
    found: dict[str, _T] = {}
    for words, said in table.items():
        for name in aten(words):
            if name in found:
                raise ValueError(f"listed twice: {name}")
            found[name] = said
    return MappingProxyType(found)
