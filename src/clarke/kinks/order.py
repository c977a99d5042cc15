"""Order statistics and running maxima: sort, topk, kthvalue, median, cummax, cummin.

Every output element is one input element. Where several inputs tie for its place, which of them
takes it is a kink. The outputs of one block of tied elements share its members: a selection of all
of them is a permutation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from clarke.kinks.choices import MANY_MEMBERS, ChoiceRule, IndexedRule, make_touch, some_of_many
from clarke.kinks.model import Call, Hazard, Ranks, Touch

if TYPE_CHECKING:
    from collections.abc import Callable

    from clarke.capture import OpRecord


@dataclass(frozen=True)
class Placement:
    """Which places of the ascending order an operation returns.

    Attributes:
        dim: The dimension along which it orders.
        places: (rows, q) for every output its place in ascending order, 0 .. n-1.
        loose: The order among the outputs is not defined (topk without sorting).
    """

    dim: int
    places: torch.Tensor
    loose: bool = False


@dataclass(frozen=True)
class OrderRule(ChoiceRule):
    """An operation that returns (values, indices), or values alone, of an ordered dimension.

    Attributes:
        place: The places that it returns, from the call and its input with the ordered
            dimension last, (rows, n).
        flat: It orders all elements and returns one value, without an index.
    """

    place: Callable[[Call, torch.Tensor], Placement]
    flat: bool = False

    def evaluate(self, call: Call, selection: torch.Tensor, touch: Touch) -> Any:
        values = call.args[0].reshape(-1)[selection]
        if self.flat:
            return values.reshape(())
        indices = touch.op.kept_outputs[1]
        return (values.reshape(indices.shape), indices)

    def find(self, op: OpRecord) -> Touch:
        x = op.kept[0]
        call = Call(op.func, (x, *op.args[1:]), op.kwargs)
        with torch.no_grad():
            where = torch.arange(x.numel()).reshape(x.shape)
            if self.flat or x.dim() == 0:
                dim, table, where = 0, x.reshape(1, -1), where.reshape(1, -1)
            else:
                dim = self.place(call, x.new_zeros(1, 1)).dim % x.dim()
                table = x.movedim(dim, -1).reshape(-1, x.shape[dim])
                where = where.movedim(dim, -1).reshape(table.shape)
            placed = self.place(call, table)
            base, elements, column = self._outputs(op, table, where, placed, dim)
            # torch warns of searching where memory has gaps, as it has after another dimension.
            ordered, order = table.contiguous().sort(dim=1, stable=True)
            values = ordered.gather(1, placed.places)
            low = torch.searchsorted(ordered, values)
            high = torch.searchsorted(ordered, values, right=True)
            size = high - low
            tied = (size > 1) & ~values.isnan()
            row, _ = tied.nonzero(as_tuple=True)
            size, low = size[tied], low[tied]
            too_many = int(size.sum()) > MANY_MEMBERS
            listed = torch.full_like(size, 2) if too_many else size
            owner = torch.repeat_interleave(torch.arange(row.numel()), listed)
            local = torch.arange(owner.numel()) - (torch.cumsum(listed, 0) - listed)[owner]
            members = where[row[owner], order[row[owner], low[owner] + local]]
            greater = size - 1 - (placed.places[tied] - low)
            if too_many:  # the chosen element stands first
                members[local == 0] = where[row, column[tied]]
        block = torch.unique(row * table.shape[1] + low, return_inverse=True)[1]
        at = elements[tied]
        if self.flat:
            weights = _even_weights(op, x, members)
        else:
            weights = (members == base[at][owner]).to(torch.float64)
        touch = make_touch(op, base, at, members, owner, weights)
        hazards: dict[Hazard, torch.Tensor] = {}
        if touch.count and (too_many or placed.loose):
            hazards[Hazard.SEVERAL] = torch.arange(touch.count)
        return Touch(
            op, at, members, owner, weights, hazards, touch.base, Ranks(greater, size, block)
        )

    def _outputs(
        self,
        op: OpRecord,
        table: torch.Tensor,
        where: torch.Tensor,
        placed: Placement,
        dim: int,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The flat selection, and (rows, q) each output's flat position and chosen column."""
        if self.flat:
            ordered = table.sort(dim=1, stable=True)[1]
            column = ordered.gather(1, placed.places)
            return where.gather(1, column).reshape(-1), torch.zeros_like(column), column
        indices = op.kept_outputs[1]
        position = torch.arange(indices.numel()).reshape(indices.shape)
        kept_dim = indices.dim() == op.kept[0].dim()
        if indices.dim() == 0 or not kept_dim:
            column, elements = indices.reshape(-1, 1), position.reshape(-1, 1)
        else:
            column = indices.movedim(dim, -1).reshape(table.shape[0], -1)
            elements = position.movedim(dim, -1).reshape(column.shape)
        base = torch.zeros(indices.numel(), dtype=torch.int64)
        base[elements.reshape(-1)] = where.gather(1, column).reshape(-1)
        return base, elements, column

    def side(self, touch: Touch, kink: int) -> int:
        ranks = touch.ranks
        if ranks is None:
            return 0
        greater, size = int(ranks.greater[kink]), int(ranks.size[kink])
        return 1 if greater == 0 else -1 if greater == size - 1 else 0

    def greater(self, touch: Touch, kink: int) -> int:
        if touch.ranks is None:
            return super().greater(touch, kink)
        return int(touch.ranks.greater[kink])

    def rows(
        self, call: Call, touch: Touch, choice: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        flat = call.args[0].reshape(-1)
        other = touch.members != choice[touch.owner]
        above = self._above(touch, choice)[other]
        kink = touch.owner[other]
        gap = flat[touch.members[other]] - flat[choice[kink]]
        return torch.where(above, gap, -gap), kink

    @classmethod
    def _above(cls, touch: Touch, choice: torch.Tensor) -> torch.Tensor:
        """(M,) whether a member lies above its kink's choice.

        As the members' order says, where it has as many above the choice as there are to be. Else
        the choices of one block are completed to a permutation; where they are none, every kink is
        completed by itself.
        """
        completed = cls._completed(touch, choice)
        if touch.ranks is None or touch.ranks.order is None:
            return completed
        order = touch.ranks.order
        own = torch.full((touch.count,), torch.nan, dtype=order.dtype)
        mine = touch.members == choice[touch.owner]
        own[touch.owner[mine]] = order[mine]
        above = order > own[touch.owner]
        number = torch.zeros(touch.count, dtype=torch.int64)
        number.index_add_(0, touch.owner, above.to(torch.int64))
        return torch.where((number == touch.ranks.greater)[touch.owner], above, completed)

    @staticmethod
    def _completed(touch: Touch, choice: torch.Tensor) -> torch.Tensor:
        ranks = touch.ranks
        if ranks is None or touch.members.numel() != int(ranks.size.sum()):
            return torch.zeros(touch.members.numel(), dtype=torch.bool)
        count = touch.count
        start = torch.cumsum(ranks.size, 0) - ranks.size
        local = torch.arange(touch.members.numel()) - start[touch.owner]
        mine = touch.members == choice[touch.owner]
        picked = torch.zeros(count, dtype=torch.int64)
        picked[touch.owner[mine]] = local[mine]
        # By itself: the first `greater` of the other members lie above.
        place = local - (local > picked[touch.owner]).to(torch.int64)
        alone = place < ranks.greater[touch.owner]
        # Together: one table of members per block.
        blocks = int(ranks.block.max()) + 1 if count else 0
        size = torch.zeros(blocks, dtype=torch.int64)
        size[ranks.block] = ranks.size
        offset = torch.cumsum(size, 0) - size
        used = torch.zeros(int(size.sum()), dtype=torch.int64)
        filled = torch.zeros_like(used)
        one = torch.ones(count, dtype=torch.int64)
        used.index_add_(0, offset[ranks.block] + picked, one)
        filled.index_add_(0, offset[ranks.block] + ranks.greater, one)
        of_block = torch.repeat_interleave(torch.arange(blocks), size)
        broken = torch.zeros(blocks, dtype=torch.bool)
        broken[of_block[(used > 1) | (filled > 1)]] = True
        rank = torch.zeros_like(used)
        rank[offset[ranks.block] + picked] = ranks.greater
        sound = ~broken[of_block]
        free = (torch.arange(used.numel()) - offset[of_block])[(filled == 0) & sound]
        rank[(used == 0) & sound] = free
        member_rank = rank[offset[ranks.block[touch.owner]] + local]
        together = member_rank < ranks.greater[touch.owner]
        return torch.where(broken[ranks.block[touch.owner]], alone, together)

    def along(self, call: Call, touch: Touch, tangents: torch.Tensor) -> torch.Tensor:
        ranks = touch.ranks
        if ranks is None or touch.members.numel() != int(ranks.size.sum()):
            return touch.chosen()
        # Within each kink descending, and members in their order where tangents are equal.
        by_value = torch.argsort(tangents, descending=True, stable=True)
        by_kink = torch.argsort(touch.owner[by_value], stable=True)
        start = torch.cumsum(ranks.size, 0) - ranks.size
        return touch.members[by_value[by_kink]][start + ranks.greater]


def _even_weights(op: OpRecord, x: torch.Tensor, members: torch.Tensor) -> torch.Tensor:
    """AD's weights of the members, by differentiating the operation."""
    if members.numel() == 0:
        return torch.zeros(0, dtype=torch.float64)
    with torch.enable_grad():  # in float64: a third in float32 is none
        leaf = x.detach().to(torch.float64, copy=True).requires_grad_()
        (slope,) = torch.autograd.grad(op.func(leaf), [leaf])
    return slope.reshape(-1)[members]


def sort_places(call: Call, table: torch.Tensor) -> Placement:
    """The places of both overloads of sort."""
    stable = call.func._schema.overload_name == "stable"
    if stable:
        dim, down = call.arg(2, "dim", -1), call.arg(3, "descending", False)
        dim = call.kwargs.get("dim", dim)
        down = call.kwargs.get("descending", down)
    else:
        dim, down = call.arg(1, "dim", -1), call.arg(2, "descending", False)
    places = torch.arange(table.shape[1]).expand(table.shape)
    return Placement(dim, places.flip(1) if down else places)


def topk_places(call: Call, table: torch.Tensor) -> Placement:
    """The places of topk."""
    k, n = call.arg(1, "k"), table.shape[1]
    places = torch.arange(min(k, n)).expand(table.shape[0], -1)
    if call.arg(3, "largest", True):
        places = n - 1 - places
    return Placement(call.arg(2, "dim", -1), places, loose=not call.arg(4, "sorted", True))


def kth_places(call: Call, table: torch.Tensor) -> Placement:
    """The place of kthvalue."""
    k = min(call.arg(1, "k"), table.shape[1])
    return Placement(call.arg(2, "dim", -1), torch.full((table.shape[0], 1), k - 1))


def median_places(call: Call, table: torch.Tensor) -> Placement:
    """The place of median and nanmedian: the lower of two middle elements; NaN is left out."""
    count = (~table.isnan()).sum(1, keepdim=True)
    return Placement(call.arg(1, "dim", 0), ((count - 1) // 2).clamp(min=0))


@dataclass(frozen=True)
class RunningRule(IndexedRule):
    """cummax and cummin: AD follows the index that the forward pass returns."""

    def find(self, op: OpRecord) -> Touch:
        x = op.kept[0]
        dim = Call(op.func, op.args, op.kwargs).arg(1, "dim")
        indices = op.kept_outputs[1]
        with torch.no_grad():
            where = torch.arange(x.numel()).reshape(x.shape)
            if x.dim() == 0:
                base = where.reshape(-1)
                nothing = base[:0]
                empty = torch.zeros(0, dtype=torch.float64)
                return make_touch(op, base, nothing, nothing, nothing, empty)
            n = x.shape[dim]
            table = x.movedim(dim, -1).reshape(-1, n)
            places = where.movedim(dim, -1).reshape(-1, n)
            column = indices.movedim(dim, -1).reshape(-1, n)
            base = torch.zeros(x.numel(), dtype=torch.int64)
            base[places.reshape(-1)] = places.gather(1, column).reshape(-1)
            best = table.gather(1, column)
            # Elements equal to the running maximum up to here: a repeat is one step later.
            hit = table == best
            repeats = torch.zeros_like(hit, dtype=torch.int64)
            total = torch.cumsum(hit.to(torch.int64), 1)
            new = torch.ones_like(hit)
            new[:, 1:] = best[:, 1:] != best[:, :-1]
            begin = torch.where(new, torch.arange(n).expand_as(total), 0).cummax(1).values
            before = torch.where(begin > 0, total.gather(1, (begin - 1).clamp(min=0)), 0)
            repeats = total - before
            row, at = (repeats > 1).nonzero(as_tuple=True)
            size = repeats[row, at]
            too_many = int(size.sum()) > MANY_MEMBERS
            if too_many:
                size = torch.full_like(size, 2)
            owner = torch.repeat_interleave(torch.arange(row.numel()), size)
            local = torch.arange(owner.numel()) - (torch.cumsum(size, 0) - size)[owner]
            # The hits of a row, in order, as one list.
            hits = hit.nonzero()[:, 1]
            first = torch.cumsum(hit.sum(1), 0) - hit.sum(1)
            picked = hits[first[row[owner]] + before[row, at][owner] + local]
            members = places[row[owner], picked]
            elements = places[row, at]
        if too_many:
            return some_of_many(op, base, elements, members, owner)
        weights = (members == base[elements][owner]).to(torch.float64)
        return make_touch(op, base, elements, members, owner, weights)
