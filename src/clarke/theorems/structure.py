"""Static facts of a trace: leaves, kinks, what reaches them, and what stands in the way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from clarke.capture import Location, OpRecord, Trace
from clarke.deadline import UNLIMITED, Deadline
from clarke.theorems.affine import (
    State,
)
from clarke.theorems.proxies import KinkPoint

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping


@dataclass(frozen=True)
class Leaf:
    """A parameter or other leaf.

    Attributes:
        slot: Its slot.
        name: What the user calls it.
        variable: It is differentiated with respect to.
        shape: Its shape.
    """

    slot: int
    name: str
    variable: bool
    shape: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class KinkSite:
    """An elementwise operation with kinks.

    Attributes:
        position: Position of its record in the trace.
        op: Its record.
        state: The state of its switching function (up to a constant).
        points: Its kinks, with AD's proxies; None if they cannot be told.
    """

    position: int
    op: OpRecord
    state: State
    points: tuple[KinkPoint, ...] | None


@dataclass(frozen=True)
class Fault:
    """An operation that breaks a hypothesis, with the reason."""

    operation: str
    location: Location
    reason: str


@dataclass(frozen=True)
class LostBias:
    """Where a bias stopped being one."""

    leaf: int
    op: OpRecord
    position: int


@dataclass(frozen=True, eq=False)
class Structure:
    """Static facts of a trace.

    Attributes:
        trace: The trace, fused operations written as their parts.
        leaves: Parameters and other leaves, by bit number.
        sites: Operations with kinks, in evaluation order.
        pools: Maxima over a set of more than one element.
        rough: Operations that are not analytic and have no kinks that can be followed.
        moving: What depends on values beyond the operations: branches, detached values.
        reused: Parameters used again after a kink that depends on them.
        lost: For each leaf, the operations at which it stopped acting as a bias.
        assumptions: What was taken from this run beyond shapes.
        states: States by slot, as far as known at the end.
    """

    trace: Trace
    leaves: tuple[Leaf, ...]
    sites: tuple[KinkSite, ...]
    pools: tuple[Fault, ...]
    rough: tuple[Fault, ...]
    moving: tuple[Fault, ...]
    reused: tuple[Fault, ...]
    lost: tuple[LostBias, ...]
    assumptions: tuple[str, ...]
    states: Mapping[int, State]
    deadline: Deadline = UNLIMITED


@dataclass(frozen=True)
class Context:
    """What is known of a trace besides its operations.

    Attributes:
        fixed: Slots of the constants that are part of the model; None for all. Of the others no
            value is used, since another input, or another draw, has another.
        cuts_inputs_only: What was detached was computed from inputs alone.
        blind: What is computed from the inputs could not be followed.
        assumptions: What is taken for granted.
        deadline: Asked at every operation and every kink that is settled.
    """

    fixed: Collection[int] | None = None
    cuts_inputs_only: bool = False
    blind: bool = False
    assumptions: tuple[str, ...] = ()
    deadline: Deadline = UNLIMITED
