"""Elements at which a touched kink cannot matter: what does not move, and what nobody takes.

The overlap of boxes that do not meet is zero, and stays zero beside the point: a clamp is off. A
largest of such zeros is tied with constants alone. And whatever is strictly smaller than the
largest of its row, nobody takes, here and beside. Both are told from recorded values, element by
element, along operations that work entry by entry, hand on values in another shape, or put them
side by side. Of everything else nothing is said.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import torch

from clarke.capture import Origin, Ref

if TYPE_CHECKING:
    from clarke.capture import OpRecord
    from clarke.fast.graph import Graph
    from clarke.kinks import Touch

_DEEP: Final = 64  # operations that are followed
_SHAPES: Final = frozenset(
    {"view", "_unsafe_view", "reshape", "t", "transpose", "permute", "flatten", "unsqueeze"}
    | {"squeeze", "expand", "select", "slice", "unbind", "split", "split_with_sizes", "chunk"}
    | {"detach", "alias", "clone", "contiguous", "unfold"}
)
# Of one argument, entry by entry, and zero of zero.
_ODD: Final = frozenset({"neg", "abs", "sign", "sin", "tan", "tanh", "relu", "sqrt", "square"})
_ENTRY: Final = frozenset({"exp", "log", "log1p", "sigmoid", "reciprocal", "cos", "rsub"})
_OF_TWO: Final = frozenset({"add", "sub", "mul", "div"})
_DISTANCES: Final = frozenset({"_cdist_forward", "_euclidean_dist"})
_MATRIX: Final = 2
_LARGEST: Final = frozenset({"max", "min", "amax", "amin"})


class Dead(NamedTuple):
    """(shape,) bool each: elements that keep their value beside the point, and that are zero.

    Attributes:
        still: Those that keep it.
        zero: Of these, those that are zero.
        whole: The shape is that of the value, and not one that is broadcast to it.
    """

    still: torch.Tensor
    zero: torch.Tensor
    whole: bool = True


def without_dead(graph: Graph, position: int, touch: Touch) -> Touch:
    """The touched kinks that are left when those that cannot matter are taken out."""
    if graph.tangled or not touch.count or 0 not in touch.op.kept:
        return touch
    read = touch.op.kept[0]
    choice = touch.base.dtype == torch.int64
    by_entry = touch.base.numel() == read.numel()  # a norm's element has many
    open_ = torch.ones(touch.count, dtype=torch.bool)
    dead = _Forward(graph).argument(position, 0)
    if dead is not None and (dead.still.shape == read.shape or not dead.whole):
        still = dead.still.expand(read.shape).reshape(-1)
        if choice:
            moving = torch.zeros(touch.count, dtype=torch.int64)
            moving.index_add_(0, touch.owner, (~still[touch.members]).to(torch.int64))
            open_ = moving > 0
        elif len(touch.op.kept) == 1 and by_entry:
            open_ = ~still[touch.elements]
    if bool(open_.any()) and not choice and by_entry:
        taken = _Backward(graph).taken(position, read.shape)
        if taken is not None:
            open_ &= taken.reshape(-1)[touch.elements]
    return touch if bool(open_.all()) else touch.only(open_)


def without_own_distance(op: OpRecord, touch: Touch) -> Touch:
    """The touched distances between rows without those between a row and itself, which stay zero.

    `touch` is that of a distance of every row of the first argument from every one of the second.
    """
    if op.short_name not in _DISTANCES or op.args[0] != op.args[1] or op.kept[0].dim() < _MATRIX:
        return touch
    rows = op.kept[0].shape[-2]
    place = touch.elements % (rows * rows)
    return touch.only(place // rows != place % rows)


@dataclass(eq=False)
class _Forward:
    """What keeps its value, from the constants on."""

    graph: Graph
    left: int = _DEEP
    known: dict[tuple[int, int | None], Dead | None] = field(default_factory=dict)

    def argument(self, position: int, number: int) -> Dead | None:
        """Of a positional argument of an operation; None where nothing is known."""
        return self._of(position, self.graph.trace.ops[position].args[number])

    def _of(self, position: int, value: Any) -> Dead | None:
        if isinstance(value, (int, float)):
            return Dead(torch.tensor(True), torch.tensor(value == 0), whole=False)
        if not isinstance(value, Ref):
            return None
        maker = self.graph.makers[position].get(value.slot)
        key = (value.slot, maker)
        if key not in self.known:
            self.known[key] = None
            self.known[key] = self._made(value.slot, maker)
        return self.known[key]

    def _made(self, slot: int, maker: int | None) -> Dead | None:
        if maker is None:
            return self._outside(slot)
        self.left -= 1
        if self.left < 0:
            return None
        op = self.graph.trace.ops[maker]
        name = op.short_name.removesuffix("_")
        if name in ("relu", "clamp", "clamp_min"):
            return _off(op, name)
        if name in ("cat", "stack"):
            return self._joined(maker, op)
        found = [self._of(maker, a) for a in op.args]
        if name in _SHAPES:
            return _reshaped(op, slot, found[0])
        if name in _OF_TWO and len(found) > 1 and set(op.kwargs) <= {"alpha"}:
            return _of_two(name, found[0], found[1])
        if op.kwargs or found[0] is None or any(isinstance(a, Ref) for a in op.args[1:]):
            return None
        if name in _ODD:
            return found[0]
        if name in _ENTRY:
            return found[0]._replace(zero=torch.zeros_like(found[0].zero))
        return None

    def _outside(self, slot: int) -> Dead | None:
        external = self.graph.trace.externals.get(slot)
        if external is None or external.snapshot is not None:
            return None
        tensor = external.tensor.detach()
        if tensor.layout != torch.strided or tensor.device.type != "cpu":
            return None
        constant = external.origin is Origin.CONSTANT and not (
            external.stopped or external.rewritten or external.cut_by
        )
        if not constant:
            none = torch.zeros(tensor.shape, dtype=torch.bool)
            return Dead(none, none)
        return Dead(torch.ones(tensor.shape, dtype=torch.bool), tensor == 0)

    def _joined(self, position: int, op: OpRecord) -> Dead | None:
        parts = [self._of(position, a) for a in op.args[0]]
        known = [p for p in parts if p is not None and p.whole]
        stacked = op.short_name == "stack"
        if stacked and known:  # all have one shape
            none = torch.zeros_like(known[0].still)
            known = [p if p is not None and p.whole else Dead(none, none) for p in parts]
        if len(known) != len(parts):
            return None
        join = torch.stack if stacked else torch.cat
        rest = (op.args[1] if len(op.args) > 1 else op.kwargs.get("dim", 0),)
        return Dead(join([p.still for p in known], *rest), join([p.zero for p in known], *rest))


def _off(op: OpRecord, name: str) -> Dead | None:
    """Of a ReLU or a clamp between numbers: where it is off, strictly."""
    if name == "relu":
        if op.signs is not None:
            off = op.signs.output == 0
            off.reshape(-1)[op.signs.zeros] = False
        elif 0 in op.kept:
            off = op.kept[0] < 0
        else:
            return None
        return Dead(off, off)
    if 0 not in op.kept or any(isinstance(b, Ref) for b in op.args[1:]):
        return None
    low = op.args[1] if len(op.args) > 1 else op.kwargs.get("min")
    high = op.args[2] if len(op.args) > 2 else op.kwargs.get("max")
    read = op.kept[0]
    none = torch.zeros(read.shape, dtype=torch.bool)
    below = none if low is None else read < low
    above = none if high is None else read > high
    zero = (below if low == 0 else none) | (above if high == 0 else none)
    return Dead(below | above, zero)


def _reshaped(op: OpRecord, slot: int, found: Dead | None) -> Dead | None:
    """Of what an operation hands on in another shape, by that operation."""
    if found is None or not found.whole:
        return None
    kwargs = {k: v for k, v in op.kwargs.items() if k in ("dim", "start", "end", "step")}
    try:
        parts = [op.func(part, *op.args[1:], **kwargs) for part in (found.still, found.zero)]
    except (RuntimeError, TypeError, IndexError):
        return None
    if isinstance(parts[0], (list, tuple)):
        number = op.outputs.index(slot)
        parts = [p[number] for p in parts]
    return Dead(parts[0], parts[1])


def _of_two(name: str, one: Dead | None, two: Dead | None) -> Dead | None:
    """Of sums, products and quotients: a product is zero where one factor is."""
    none = torch.tensor(False)
    lost = Dead(none, none, whole=False)
    if one is None and two is None:
        return None
    whole = one is not None and two is not None and (one.whole or two.whole)
    left, right = one or lost, two or lost
    still, zero = left.still & right.still, left.zero & right.zero
    if name == "mul":
        zero = left.zero | right.zero
    elif name == "div":
        zero = left.zero & ~right.zero
    return Dead(still | zero, zero & (still | zero), whole)


@dataclass(eq=False)
class _Backward:
    """Which elements of a value the result takes, perhaps."""

    graph: Graph
    left: int = _DEEP

    def taken(self, position: int, shape: torch.Size) -> torch.Tensor | None:
        """(shape,) bool of the first result of an operation; None where all may be."""
        graph, outputs = self.graph, self.graph.trace.ops[position].outputs
        slot, others = (outputs[0], outputs[1:]) if outputs else (None, ())
        self.left -= 1
        if slot is None or any(o is not None for o in others) or slot == graph.trace.output:
            return None
        if self.left < 0:
            return None
        total = torch.zeros(shape, dtype=torch.bool)
        for reader in graph.readers[position]:
            if graph.makers[reader].get(slot) != position:
                return None
            own = self._by(reader, slot, shape)
            if own is None:
                return None
            total |= own
        return total

    def _by(self, reader: int, slot: int, shape: torch.Size) -> torch.Tensor | None:
        op = self.graph.trace.ops[reader]
        name = op.short_name.removesuffix("_")
        read = op.kept.get(0)
        if read is not None and read.shape != shape:
            return None
        if name in ("relu", "clamp", "clamp_min") and op.args[0] == Ref(slot):
            off = _off(op, name)
            rest = None if off is None or off.still.shape != shape else ~off.still
            further = self.taken(reader, shape)
            return rest if further is None else further if rest is None else further & rest
        if name in _LARGEST and read is not None and len(op.args) > 1:
            return self._of_largest(op, read)
        entry = name in _ODD or name in _ENTRY
        if not (entry or name in _OF_TWO) or not self._keeps_shape(reader, op, slot, shape):
            return None
        return self.taken(reader, shape)

    def _of_largest(self, op: OpRecord, read: torch.Tensor) -> torch.Tensor | None:
        """All that is as large as the largest of its row."""
        dims = op.args[1]
        largest = op.short_name in ("max", "amax")
        best = (read.amax if largest else read.amin)(dims, keepdim=True)
        return read == best

    def _keeps_shape(self, reader: int, op: OpRecord, slot: int, shape: torch.Size) -> bool:
        """Whether the result has the shape of this argument, which only one other may exceed."""
        for value in op.args:
            if not isinstance(value, Ref) or value.slot == slot:
                continue
            external = self.graph.trace.externals.get(value.slot)
            if self.graph.makers[reader].get(value.slot) is not None or external is None:
                return False
            if torch.broadcast_tensors(external.tensor, torch.empty(shape))[0].shape != shape:
                return False
        return True
