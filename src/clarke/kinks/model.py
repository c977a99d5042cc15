"""What a rule says of one executed operation: which kinks were touched and what AD chose there."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from enum import Enum
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch

from clarke.capture import Keep

if TYPE_CHECKING:
    from collections.abc import Mapping

    from clarke.capture import Location, OpRecord


@dataclass(frozen=True, eq=False)
class Call:
    """An operation with actual tensors for arguments: those recorded, or those of a replay."""

    func: Any
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]

    def arg(self, position: int, name: str, default: Any = None) -> Any:
        """The argument at `position`, or called `name`, or `default`."""
        if position < len(self.args):
            return self.args[position]
        return self.kwargs.get(name, default)


def broadcast_shape(*given: Any) -> torch.Size:
    """The shape that the tensors among some arguments have together.

    ``torch.broadcast_shapes`` imports sympy on its first call, for seconds on a busy machine.
    """
    shapes: list[torch.Size] = [a.shape for a in given if isinstance(a, torch.Tensor)]
    if all(s == shapes[0] for s in shapes[1:]):
        return shapes[0]
    return torch.Size(np.broadcast_shapes(*shapes))


class Hazard(Enum):
    """Why a touched point of an operation is outside of what selections can express."""

    STEP = "a step: the operation's value jumps here"
    INFINITE_SLOPE = "an infinite or undefined slope"
    CONE = "the tip of a norm, where every slope in a ball is valid"
    IMPROPER = "the operation's own derivative is not a convex combination of its pieces'"
    SEVERAL = "a kink for which clarke has no complete list of pieces"
    FORMULA = "a point where the operation's own derivative formula does not hold"
    BEYOND = "a call beyond those for which clarke has a formula"
    OVERLAP = "bounds that coincide while they depend on the variables"


@dataclass(frozen=True, eq=False)
class Ranks:
    """Places among tied elements, for order statistics; (K,) each.

    Attributes:
        greater: How many of a kink's members must be greater than the selected one.
        size: How many members the kink has.
        block: Number of the block of tied elements to which the kink belongs.
        order: (M,) numbers in whose order the members are to be taken, if they are to be in one.
    """

    greater: torch.Tensor
    size: torch.Tensor
    block: torch.Tensor
    order: torch.Tensor | None = None

    def only(self, stay: torch.Tensor) -> Ranks:
        """Those of some kinks, (K,) bool."""
        return Ranks(self.greater[stay], self.size[stay], self.block[stay])


@dataclass(frozen=True, eq=False)
class Touch:
    """The kinks of one executed operation that were touched.

    Attributes:
        op: The operation.
        elements: (K,) flat positions in the output, one for each touched kink.
        members: (M,) candidates of all kinks: a piece number for a region kink, a flat position
            in the input for a choice among tied elements.
        owner: (M,) the kink, 0..K-1, to which each candidate belongs (sorted).
        weights: (M,) float64, AD's proxy as weights of the candidates' derivatives.
        hazards: Kinks (positions 0..K-1) by what puts them out of reach, if anything does.
        base: Flat selection of every output element (touched ones hold AD's first candidate).
        ranks: For order statistics, the places among tied elements.
        returned: For region kinks, the derivatives that AD returned there with respect to the
            operation's q floating point arguments, (q, K).
    """

    op: OpRecord
    elements: torch.Tensor
    members: torch.Tensor
    owner: torch.Tensor
    weights: torch.Tensor
    hazards: Mapping[Hazard, torch.Tensor]
    base: torch.Tensor
    ranks: Ranks | None = None
    returned: torch.Tensor | None = None

    @property
    def count(self) -> int:
        """How many kinks are touched."""
        return int(self.elements.numel())

    @property
    def location(self) -> Location:
        """Where the operation stands."""
        return self.op.location

    def only(self, stay: torch.Tensor) -> Touch:
        """The same with those kinks alone for which `stay`, (K,) bool, holds.

        At the others nothing changes beside the point: `base` has what they are.
        """
        place = torch.cumsum(stay.to(torch.int64), 0) - 1
        mine = stay[self.owner]
        hazards = {h: place[k[stay[k]]] for h, k in self.hazards.items()}
        return replace(
            self,
            elements=self.elements[stay],
            members=self.members[mine],
            owner=place[self.owner[mine]],
            weights=self.weights[mine],
            hazards={h: k for h, k in hazards.items() if k.numel()},
            ranks=None if self.ranks is None else self.ranks.only(stay),
            returned=None if self.returned is None else self.returned[:, stay],
        )

    def in_order(self, order: torch.Tensor) -> Touch:
        """The same with its members, if it ranks them, in the order of some numbers, (M,)."""
        ranks = self.ranks
        return self if ranks is None else replace(self, ranks=replace(ranks, order=order))

    def mixed(self) -> torch.Tensor:
        """(K,) bool: AD's proxy mixes several candidates instead of selecting one."""
        largest = torch.zeros(self.count, dtype=torch.float64)
        largest.scatter_reduce_(0, self.owner, self.weights, "amax")
        return largest < 1.0

    def chosen(self) -> torch.Tensor:
        """(K,) the candidate with AD's largest weight (the first among equals)."""
        return self._chosen.clone()

    @cached_property
    def _chosen(self) -> torch.Tensor:
        if self.count == 0:
            return self.members[:0]
        largest = torch.full((self.count,), -1.0, dtype=torch.float64)
        largest.scatter_reduce_(0, self.owner, self.weights, "amax")
        position = torch.arange(self.members.numel())
        best = torch.where(
            self.weights == largest[self.owner], position, torch.full_like(position, 1 << 60)
        )
        first = torch.full((self.count,), 1 << 60, dtype=torch.int64)
        first.scatter_reduce_(0, self.owner, best, "amin")
        return self.members[first]


class KinkRule(ABC):
    """Pieces, switching functions and AD's weights of one family of operations.

    Attributes:
        by_value: The pieces are constants (comparisons, sign): they matter through the operations
            that multiply by them or select with them, not by their own derivatives.
        by_weights: A selection is not one candidate but a sum of them with weights of any sign.
        doubtful: Autograd's own formula for the operation holds for some programs only, so that
            a replay with the rule's must be compared with what autograd returned.
    """

    by_value: ClassVar[bool] = False
    by_weights: ClassVar[bool] = False
    doubtful: ClassVar[bool] = False

    @property
    def keep(self) -> Keep:
        """What a recorder must keep of the operations that the rule speaks for."""
        return Keep.VALUES

    def speaks_for(self, op: OpRecord) -> bool:
        """Whether the rule holds for the arguments of `op`: by default, for real numbers."""
        # Of a ReLU, of which only signs are kept, there is no complex form.
        return op.signs is not None or not any(v.is_complex() for v in op.kept.values())

    @abstractmethod
    def find(self, op: OpRecord) -> Touch:
        """The kinks touched by `op`, from the values kept in the record."""

    def bends(self, op: OpRecord) -> bool:
        """Whether the pieces of `op` meet with different slopes, so that kinks may matter.

        Those of a Huber loss and of an ELU with slope 1 below zero do not.
        """
        return True

    def places(self, op: OpRecord) -> tuple[int, torch.Tensor] | None:
        """How many elements `op` has, and the flat positions of the touched ones.

        What `find` finds, without what AD chose there, in a small part of its time; None where the
        rule has no such way.
        """
        return None

    @abstractmethod
    def evaluate(self, call: Call, selection: torch.Tensor, touch: Touch) -> Any:
        """The operation with the given selection for every output element: analytic.

        `selection` is flat, as `Touch.base`. Returns what the operation returns.
        """

    @abstractmethod
    def candidates(self, call: Call, touch: Touch) -> torch.Tensor:
        """(M,) the values of all candidates of the touched kinks, differentiable."""

    @abstractmethod
    def rows(
        self, call: Call, touch: Touch, choice: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Switching functions signed so that positive values select `choice`.

        Args:
            call: The operation in a replay.
            touch: Its touched kinks.
            choice: (K,) the candidate selected at each.

        Returns:
            (m,) differentiable values and (m,) the kink to which each belongs.
        """

    @abstractmethod
    def along(self, call: Call, touch: Touch, tangents: torch.Tensor) -> torch.Tensor:
        """(K,) the candidates active along a direction, given `switching`'s tangents."""

    @abstractmethod
    def switching(self, call: Call, touch: Touch) -> torch.Tensor:
        """The unsigned switching functions that `along` wants tangents of, differentiable."""

    def is_level(self) -> bool:
        """Whether away from its kinks every result keeps its value (signs, roundings)."""
        return self.by_value

    def merge(self, touch: Touch, choice: torch.Tensor) -> torch.Tensor:
        """`touch.base` with the touched elements set to `choice`."""
        selection = touch.base.clone()
        selection[touch.elements] = choice.to(selection.dtype)
        return selection


class UnsteeredRule(KinkRule):
    """A rule without pieces to choose from: it only says where an operation is out of reach."""

    def merge(self, touch: Touch, choice: torch.Tensor) -> torch.Tensor:
        return touch.base

    def evaluate(self, call: Call, selection: torch.Tensor, touch: Touch) -> Any:
        return call.func(*call.args, **call.kwargs)

    def candidates(self, call: Call, touch: Touch) -> torch.Tensor:
        return torch.zeros(touch.members.numel(), dtype=torch.float64)

    def switching(self, call: Call, touch: Touch) -> torch.Tensor:
        return self.candidates(call, touch)

    def rows(
        self, call: Call, touch: Touch, choice: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.zeros(0, dtype=torch.float64), torch.zeros(0, dtype=torch.int64)

    def along(self, call: Call, touch: Touch, tangents: torch.Tensor) -> torch.Tensor:
        return touch.members
