"""Elementwise operations whose pieces are separated by ordered switching functions.

Piece ``r`` is active where the switching functions ``s_1 .. s_r`` are positive and the following
ones negative: relu has ``s = (x,)`` and pieces ``(0, x)``; hardtanh ``(x - lo, x - hi)`` and
``(lo, x, hi)``; maximum ``(x - y,)`` and ``(y, x)``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import torch

from clarke.capture import Keep
from clarke.kinks.model import Call, Hazard, KinkRule, Touch, broadcast_shape
from clarke.numerics import DIVISOR, SLOPE_SINGLE

if TYPE_CHECKING:
    from collections.abc import Callable

    from clarke.capture import OpRecord

    Pairs = tuple[tuple[torch.Tensor, torch.Tensor | float], ...]

_NONE: Final = torch.zeros(0, dtype=torch.int64)
_COMPUTED: Final = frozenset({torch.float32, torch.float64})
_ROUNDINGS = 8  # derivatives of one operation in one dtype differ by a few roundings only


class Differences:
    """Switching functions ``a - b`` of an argument and a number, or of two arguments.

    Args:
        pairs: Gives them.
    """

    def __init__(self, pairs: Callable[[Call], Pairs]) -> None:
        self.pairs = pairs

    def __call__(self, call: Call) -> tuple[torch.Tensor, ...]:
        """The switching functions of a call."""
        return tuple([_minus(a, b) for a, b in self.pairs(call)])


def _minus(x: torch.Tensor, other: torch.Tensor | float) -> torch.Tensor:
    if isinstance(other, torch.Tensor):
        return x - other
    if x.dtype not in _COMPUTED:
        return x - torch.full_like(x, other)
    if other == 0:
        return x
    # Not `x - other`: forward mode would give the number a tangent of zeros, slowly.
    found: torch.Tensor = torch.ops.aten.sub.Scalar(x, other)
    return found


def _flat(value: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    return value.expand(shape).reshape(-1)


@dataclass(frozen=True)
class RegionRule(KinkRule):
    """A rule for one elementwise operation.

    Attributes:
        split: The switching functions, in ascending order of the pieces that they separate.
        pieces: The pieces; each a full tensor, evaluated everywhere.
        overlap: Says where the order of the pieces is not fixed, since bounds coincide.
        jumps: The pieces need not meet (threshold, hardshrink): where they do not, it is a step.
        signs_suffice: Which pieces meet depends on the sign of the only argument alone, and
            AD's weights at zero on nothing else, as for the ReLU.
        by: The argument that alone decides which piece it is, where there are others; None: all.
        one_slope: Where the pieces meet with one slope, whatever the arguments; None: nowhere.
    """

    split: Callable[[Call], tuple[torch.Tensor, ...]]
    pieces: Callable[[Call], tuple[torch.Tensor, ...]]
    jumps: bool = False
    overlap: Callable[[Call], torch.Tensor | None] | None = None
    signs_suffice: bool = False
    by: int | None = None
    one_slope: Callable[[Call], bool] | None = None

    @property
    def keep(self) -> Keep:
        return Keep.SIGNS if self.signs_suffice else Keep.VALUES

    def bends(self, op: OpRecord) -> bool:
        return self.one_slope is None or not self.one_slope(Call(op.func, op.args, op.kwargs))

    def places(self, op: OpRecord) -> tuple[int, torch.Tensor] | None:
        call = Call(op.func, tuple(op.kept.get(i, a) for i, a in enumerate(op.args)), op.kwargs)
        if self.overlap is not None and self._bounds_move(op):
            return None
        splits = self.split(call)
        shape = broadcast_shape(*call.args)
        # Most often there is none, which a count tells without a copy.
        some = [s for s in splits if int(s.count_nonzero()) != s.numel()]
        if not some:
            return shape.numel(), _NONE
        touched = _flat(some[0], shape) == 0
        for split in some[1:]:
            touched = touched | (_flat(split, shape) == 0)
        return shape.numel(), touched.nonzero().squeeze(1)

    @staticmethod
    def _bounds_move(op: OpRecord) -> bool:
        """Whether an operation's bounds are differentiated, not its argument alone."""
        return bool(op.kwargs) or bool(op.varied - {0})

    def _stays(self, op: OpRecord) -> bool:
        """Whether what decides is a constant: such as ``x`` in the derivative of ``x -> J v``."""
        return self.by is not None and self.by not in op.varied and not op.reads_stopped

    def find(self, op: OpRecord) -> Touch:
        args = tuple(op.kept.get(i, a) for i, a in enumerate(op.args))
        call = Call(op.func, args, op.kwargs)
        with torch.no_grad():
            splits = self.split(call)
            shape = broadcast_shape(*call.args)
            numel = shape.numel()
            touched: torch.Tensor | None = None
            base = torch.zeros(numel, dtype=torch.int8)
            for split in splits:
                s = _flat(split, shape)
                base += s > 0
                zero = s == 0
                touched = zero if touched is None else touched | zero
            follow = self.overlap is not None and self._bounds_move(op)
            overlap = self.overlap(call) if follow and self.overlap is not None else None
            if overlap is not None and touched is not None:
                # Below bounds that coincide the least of them counts, which is a kink of theirs.
                overlap = _flat(overlap, shape)
                touched = touched | (overlap & (_flat(splits[0], shape) <= 0))
            if touched is None or self._stays(op) or not bool(touched.any()):
                return _nothing(op, base)
            elements = touched.nonzero().squeeze(1)
            at = torch.stack([_flat(s, shape)[elements] for s in splits])
        low = (at > 0).sum(0)
        high = low + (at == 0).sum(0)
        counts = high - low + 1
        owner = torch.repeat_interleave(torch.arange(elements.numel()), counts)
        start = torch.cumsum(counts, 0) - counts
        members = torch.arange(int(counts.sum())) - start[owner] + low[owner]
        weights, hazards, returned = self._measure(call, shape, elements, members, owner)
        if overlap is not None:
            both = overlap[elements]
            if bool(both.any()):
                hazards[Hazard.OVERLAP] = both.nonzero().squeeze(1)
        touch = Touch(op, elements, members, owner, weights, hazards, base, returned=returned)
        base[elements] = touch.chosen().to(torch.int8)
        return touch

    def _measure(
        self,
        call: Call,
        shape: torch.Size,
        elements: torch.Tensor,
        members: torch.Tensor,
        owner: torch.Tensor,
    ) -> tuple[torch.Tensor, dict[Hazard, torch.Tensor], torch.Tensor | None]:
        """AD's weights, hazards and slopes, by differentiating the operation at those elements."""
        gathered = tuple(
            _flat(a.detach(), shape)[elements] if isinstance(a, torch.Tensor) else a
            for a in call.args
        )
        places = [i for i, a in enumerate(gathered) if _is_float(a)]
        with torch.enable_grad():
            inputs = [gathered[i].clone().requires_grad_() for i in places]
            # In-place operations need a non-leaf; `* 1` gives one.
            args = list(gathered)
            for i, x in zip(places, inputs, strict=True):
                args[i] = x * 1
            returned = _slopes(call.func(*args, **call.kwargs), inputs)
            args = list(gathered)
            for i, x in zip(places, inputs, strict=True):
                args[i] = x
            pieces = self.pieces(Call(call.func, tuple(args), call.kwargs))
            values = torch.stack([_expand(p, elements.numel()).detach() for p in pieces])
            slopes = torch.stack([_slopes(_expand(p, elements.numel()), inputs) for p in pieces])
        match = max(_ROUNDINGS * max(torch.finfo(x.dtype).eps for x in inputs), SLOPE_SINGLE)
        weights, improper = _weights(returned, slopes, members, owner, match)
        hazards: dict[Hazard, torch.Tensor] = {}
        if bool(improper.any()):
            hazards[Hazard.IMPROPER] = improper.nonzero().squeeze(1)
        if self.jumps:
            first = torch.cat([torch.tensor([True]), owner[1:] != owner[:-1]])
            low = members[first]
            step = values[members, owner] != values[low[owner], owner]
            if bool(step.any()):
                hazards[Hazard.STEP] = owner[step].unique()
        return weights, hazards, returned

    def evaluate(self, call: Call, selection: torch.Tensor, touch: Touch) -> Any:
        pieces = self.pieces(call)
        shape = broadcast_shape(*call.args)
        region = selection.reshape(shape)
        out = pieces[0].expand(shape)
        for number, piece in enumerate(pieces[1:], start=1):
            out = torch.where(region == number, piece.expand(shape), out)
        return out

    def candidates(self, call: Call, touch: Touch) -> torch.Tensor:
        shape = broadcast_shape(*call.args)
        values = torch.stack([_flat(p, shape)[touch.elements] for p in self.pieces(call)])
        return values[touch.members, touch.owner]

    def switching(self, call: Call, touch: Touch) -> torch.Tensor:
        shape = broadcast_shape(*call.args)
        return torch.stack([_flat(s, shape)[touch.elements] for s in self.split(call)])

    def rows(
        self, call: Call, touch: Touch, choice: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        values = self.switching(call, touch)
        level, kink = self._touched_levels(touch)
        sign = torch.where(choice[kink] >= level + 1, 1.0, -1.0).to(values.dtype)
        return values[level, kink] * sign, kink

    @staticmethod
    def _touched_levels(touch: Touch) -> tuple[torch.Tensor, torch.Tensor]:
        """Which switching functions vanish: pairs (level, kink)."""
        last = torch.cat([touch.owner[1:] != touch.owner[:-1], torch.tensor([True])])
        inner = ~last  # between candidate r and r + 1 stands switching function r + 1 (level r)
        return touch.members[inner], touch.owner[inner]

    def along(self, call: Call, touch: Touch, tangents: torch.Tensor) -> torch.Tensor:
        level, kink = self._touched_levels(touch)
        low = torch.full((touch.count,), 1 << 30, dtype=torch.int64)
        low.scatter_reduce_(0, touch.owner, touch.members, "amin")
        positive = (tangents[level, kink] > 0).to(torch.int64)
        return low.scatter_add(0, kink, positive)


def _nothing(op: OpRecord, base: torch.Tensor) -> Touch:
    empty = torch.zeros(0, dtype=torch.int64)
    return Touch(op, empty, empty, empty, torch.zeros(0, dtype=torch.float64), {}, base)


def _is_float(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.is_floating_point()


def _expand(value: torch.Tensor, count: int) -> torch.Tensor:
    return value.expand(count) if value.dim() < 2 else value.reshape(count)


def _slopes(value: torch.Tensor, inputs: list[torch.Tensor]) -> torch.Tensor:
    """(len(inputs), K) derivatives of an elementwise result."""
    if not value.requires_grad:
        return torch.zeros(len(inputs), inputs[0].numel(), dtype=torch.float64)
    grads = torch.autograd.grad(value.sum(), inputs, allow_unused=True, retain_graph=True)
    return torch.stack(
        [
            torch.zeros(x.numel(), dtype=torch.float64)
            if g is None  # type: ignore[redundant-expr]
            else g.to(torch.float64).expand(x.numel())
            for g, x in zip(grads, inputs, strict=True)
        ]
    ).cpu()


def _weights(
    returned: torch.Tensor,
    slopes: torch.Tensor,
    members: torch.Tensor,
    owner: torch.Tensor,
    match: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Write AD's derivative as a convex combination of two pieces' derivatives, if possible.

    Args:
        returned: (q, K) AD's derivatives with respect to the q inputs.
        slopes: (P, q, K) the pieces' derivatives.
        members: The candidate pieces of all kinks.
        owner: The kink of each candidate.
        match: Relative difference that counts as equal.

    Returns:
        (M,) weights and (K,) whether no combination fits.
    """
    count = returned.shape[1]
    weights = torch.zeros(members.numel(), dtype=torch.float64)
    own = slopes[members, :, owner]  # (M, q)
    want = returned.T[owner]
    scale = slopes.abs().amax((0, 1)) + returned.abs().amax(0)
    fits = (own - want).abs().amax(1) <= match * scale[owner]
    position = torch.arange(members.numel())
    far = torch.full_like(position, 1 << 60)
    first = torch.full((count,), 1 << 60, dtype=torch.int64)
    first.scatter_reduce_(0, owner, torch.where(fits, position, far), "amin")
    done = first < 1 << 60
    weights[first[done]] = 1.0
    # Otherwise a mixture of two neighbouring candidates.
    pair = position[:-1][(owner[1:] == owner[:-1]) & ~done[owner[:-1]]]
    if pair.numel():
        difference = own[pair + 1] - own[pair]
        length = (difference * difference).sum(1)
        share = ((want[pair] - own[pair]) * difference).sum(1) / length.clamp(min=DIVISOR)
        share = torch.where((share - 0.5).abs() < match, torch.full_like(share, 0.5), share)
        rest = (own[pair] + share[:, None] * difference - want[pair]).abs().amax(1)
        good = (rest <= match * scale[owner[pair]]) & (share > 0) & (share < 1) & (length > 0)
        chosen = pair[good]
        kinks = owner[chosen]
        taken = torch.full((count,), 1 << 60, dtype=torch.int64)
        taken.scatter_reduce_(0, kinks, chosen, "amin")
        use = taken[kinks] == chosen
        weights[chosen[use]] = 1.0 - share[good][use]
        weights[chosen[use] + 1] = share[good][use]
        done = done | (taken < 1 << 60)
    return weights, ~done
