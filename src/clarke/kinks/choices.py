"""Operations that return one of several input elements: maxima over a set, and maxpools.

Pieces are the elements of the set; the switching functions are the differences between the chosen
element and the others tied with it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import torch

from clarke.kinks.model import Call, Hazard, KinkRule, Touch, UnsteeredRule

if TYPE_CHECKING:
    from clarke.capture import OpRecord


def per_owner_argmax(values: torch.Tensor, owner: torch.Tensor, count: int) -> torch.Tensor:
    """(count,) position of the first largest value of each owner."""
    largest = torch.full((count,), -torch.inf, dtype=values.dtype)
    largest.scatter_reduce_(0, owner, values, "amax")
    position = torch.arange(values.numel())
    far = torch.full_like(position, 1 << 60)
    best = torch.where(values >= largest[owner], position, far)
    first = torch.full((count,), 1 << 60, dtype=torch.int64)
    return first.scatter_reduce_(0, owner, best, "amin")


@dataclass(frozen=True)
class ChoiceRule(KinkRule):
    """Common part: the output is ``input.flatten()[selection]``.

    Attributes:
        sign: +1 for maxima, -1 for minima.
    """

    sign: int

    def side(self, touch: Touch, kink: int) -> int:
        """1 or -1: the selected element is greater, or less, than all others tied with it.

        0: it is between others, so that differences from it alone do not say when it is selected.
        """
        return self.sign

    def greater(self, touch: Touch, kink: int) -> int:
        """How many of the elements tied with the selected one are greater."""
        return 0 if self.sign > 0 else int((touch.owner == kink).sum()) - 1

    def candidates(self, call: Call, touch: Touch) -> torch.Tensor:
        values: torch.Tensor = call.args[0].reshape(-1)[touch.members]
        return values

    def switching(self, call: Call, touch: Touch) -> torch.Tensor:
        return self.sign * self.candidates(call, touch)

    def rows(
        self, call: Call, touch: Touch, choice: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        flat = call.args[0].reshape(-1)
        other = touch.members != choice[touch.owner]
        kink = touch.owner[other]
        return self.sign * (flat[choice[kink]] - flat[touch.members[other]]), kink

    def along(self, call: Call, touch: Touch, tangents: torch.Tensor) -> torch.Tensor:
        if Hazard.SEVERAL in touch.hazards:  # not all members are listed
            return touch.chosen()
        return touch.members[per_owner_argmax(tangents, touch.owner, touch.count)]


class IndexedRule(ChoiceRule):
    """Common part of those that return what they chose together with its index."""

    def evaluate(self, call: Call, selection: torch.Tensor, touch: Touch) -> Any:
        indices = touch.op.kept_outputs[1]
        return (call.args[0].reshape(-1)[selection].reshape(indices.shape), indices)


def make_touch(
    op: OpRecord,
    base: torch.Tensor,
    elements: torch.Tensor,
    members: torch.Tensor,
    owner: torch.Tensor,
    weights: torch.Tensor,
) -> Touch:
    """A touch whose base holds AD's first candidate at the touched elements."""
    touch = Touch(op, elements, members, owner, weights, {}, base)
    base[elements] = touch.chosen()
    return touch


MANY_MEMBERS: Final = 1 << 24  # candidates of one operation that are still listed one by one


def some_of_many(
    op: OpRecord,
    base: torch.Tensor,
    elements: torch.Tensor,
    members: torch.Tensor,
    owner: torch.Tensor,
) -> Touch:
    """A touch where too many tie to list them: two for each, AD's and another, and a hazard.

    Args:
        op: The operation.
        base: AD's choices, for all outputs.
        elements: The outputs with ties.
        members: Two of those that tie, for each output in turn.
        owner: The output, as an index into `elements`, to which each belongs.
    """
    own = base[elements]
    one, two = members.reshape(-1, 2).unbind(1)
    pairs = torch.stack([own, torch.where(two == own, one, two)], 1).reshape(-1)
    weights = (pairs == own[owner]).to(torch.float64)
    touch = make_touch(op, base, elements, pairs, owner, weights)
    return replace(touch, hazards={Hazard.SEVERAL: torch.arange(touch.count)})


@dataclass(frozen=True)
class ReductionRule(ChoiceRule):
    """max/min/amax/amin over all elements or over dimensions.

    Attributes:
        indexed: The operation returns (values, indices), and AD follows the indices.
    """

    indexed: bool

    def _dims(self, call: Call) -> tuple[int, ...]:
        rank = call.args[0].dim()
        dims = call.arg(1, "dim", ())
        dims = (dims,) if isinstance(dims, int) else tuple(dims)
        if not dims:
            dims = tuple(range(rank))
        return tuple(sorted(d % rank if rank else 0 for d in dims))

    def evaluate(self, call: Call, selection: torch.Tensor, touch: Touch) -> Any:
        dims, keep = self._dims(call), bool(call.arg(2, "keepdim", False))
        shape = [
            1 if i in dims else n for i, n in enumerate(call.args[0].shape) if keep or i not in dims
        ]
        values = call.args[0].reshape(-1)[selection].reshape(shape)
        return (values, touch.op.kept_outputs[1]) if self.indexed else values

    def places(self, op: OpRecord) -> tuple[int, torch.Tensor] | None:
        x = op.kept[0]
        dims = self._dims(Call(op.func, (x, *op.args[1:]), op.kwargs))
        if x.dim() == 0:
            return None
        with torch.no_grad():
            best = x.amax(dims, keepdim=True) if self.sign > 0 else x.amin(dims, keepdim=True)
            if int((x == best).count_nonzero()) != best.numel():
                return None
        return best.numel(), torch.zeros(0, dtype=torch.int64)

    def find(self, op: OpRecord) -> Touch:
        x = op.kept[0]
        call = Call(op.func, (x, *op.args[1:]), op.kwargs)
        with torch.no_grad():
            rank = x.dim()
            dims = self._dims(call)
            keep = [i for i in range(rank) if i not in dims]
            order = [*keep, *(dims if rank else ())]
            size = 1
            for d in dims if rank else ():
                size *= x.shape[d]
            table = x.permute(order).reshape(-1, size)
            where = torch.arange(x.numel()).reshape(x.shape).permute(order).reshape(-1, size)
            if self.indexed:
                column = op.kept_outputs[1].reshape(-1, 1)
            else:
                column = (table if self.sign > 0 else -table).argmax(1, keepdim=True)
            best = table.gather(1, column)
            base = where.gather(1, column).squeeze(1)
            equal = table == best
            tied = equal.sum(1) > 1
            elements = tied.nonzero().squeeze(1)
            owner, at = equal[elements].nonzero(as_tuple=True)
            members = where[elements[owner], at]
        if self.indexed:
            weights = (members == base[elements][owner]).to(torch.float64)
        else:
            weights = self._measure(op, x.reshape(-1), members, owner, elements.numel())
        return make_touch(op, base, elements, members, owner, weights)

    def _measure(
        self,
        op: OpRecord,
        flat: torch.Tensor,
        members: torch.Tensor,
        owner: torch.Tensor,
        count: int,
    ) -> torch.Tensor:
        """AD's weights, by differentiating the operation on the tied values of each kink."""
        if count == 0:
            return torch.zeros(0, dtype=torch.float64)
        sizes = torch.bincount(owner, minlength=count)
        column = torch.arange(members.numel()) - (torch.cumsum(sizes, 0) - sizes)[owner]
        worst = -torch.inf if self.sign > 0 else torch.inf
        # In float64: a third in float32 is none, and three of them are no mean.
        rows = torch.full((count, int(sizes.max())), worst, dtype=torch.float64)
        rows[owner, column] = flat[members].detach().to(torch.float64)
        with torch.enable_grad():
            rows.requires_grad_()
            if op.func._schema.name.endswith(("amax", "amin")):
                out = op.func(rows, [1])
            else:  # the full reductions take no dimension: one kink
                out = op.func(rows)
            (slope,) = torch.autograd.grad(out.sum(), [rows])
        return slope[owner, column]


@dataclass(frozen=True)
class ArgRule(UnsteeredRule):
    """argmax/argmin: an integer that jumps where the maximum is tied."""

    sign: int

    def is_level(self) -> bool:
        return True

    def _tied(self, x: torch.Tensor, op: OpRecord) -> tuple[torch.Tensor, torch.Tensor]:
        """(rows, n) what each result chooses from; and bool: what is as good as the best."""
        dim = op.args[1] if len(op.args) > 1 else op.kwargs.get("dim")
        table = x.reshape(1, -1) if dim is None else x.movedim(dim, -1).reshape(-1, x.shape[dim])
        with torch.no_grad():
            best = table.amax(1, keepdim=True) if self.sign > 0 else table.amin(1, keepdim=True)
            return table, table == best

    def find(self, op: OpRecord) -> Touch:
        elements = (self._tied(op.kept[0], op)[1].sum(1) > 1).nonzero().squeeze(1)
        indices = op.kept_outputs[0].reshape(-1)
        hazards = {Hazard.STEP: torch.arange(elements.numel())} if elements.numel() else {}
        owner = torch.arange(elements.numel())
        ones = torch.ones(elements.numel(), dtype=torch.float64)
        return Touch(op, elements, indices[elements], owner, ones, hazards, indices.clone())

    def rows(
        self, call: Call, touch: Touch, choice: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The index that was returned stays: what it points at beats all others of the tie."""
        table = self._tied(call.args[0], touch.op)[0][touch.elements]
        tied = self._tied(touch.op.kept[0], touch.op)[1][touch.elements]
        kink, other = (tied & (torch.arange(tied.shape[1]) != choice[:, None])).nonzero().unbind(1)
        return self.sign * (table[kink, choice[kink]] - table[kink, other]), kink

    def merge(self, touch: Touch, choice: torch.Tensor) -> torch.Tensor:
        return KinkRule.merge(self, touch, choice)

    def evaluate(self, call: Call, selection: torch.Tensor, touch: Touch) -> Any:
        return selection.reshape(touch.op.kept_outputs[0].shape)
