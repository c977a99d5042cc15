"""Whether both sides of a minimum or maximum are one and the same function where they are equal.

Proximal policy optimisation takes the smaller of ``r * a`` and ``r.clamp(0.8, 1.2) * a``: equal
wherever nothing is clipped, at the point and beside it. So the kink between them is none.

What is compared are normal forms of elementwise arithmetic: a value is a sum of multiples of atoms,
an atom what another operation made, or a product or power of such sums. A clamp that is strictly
inactive at the elements in question is what it reads.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from clarke.capture import Ref, bare_op

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import torch

    from clarke.capture import OpRecord, Trace
    from clarke.fast.graph import Graph

CHOICES = frozenset({"minimum", "maximum", "fmin", "fmax"})
_OPAQUE = frozenset({"mul", "div", "pow", "exp", "log", "tanh", "sigmoid", "sqrt", "square"})
_DEEP = 64  # operations that are followed

# A sum: multiples of atoms, sorted; an atom is ("slot", n), ("number",) for one, or an operation's
# name with the numbers of its arguments' sums.
_Sum = tuple[tuple[Any, float], ...]


@dataclass(frozen=True, eq=False)
class Agreement:
    """Whether two arguments are the same function where some clamps do nothing.

    Attributes:
        equal: Whether they are.
        clamps: Positions of these clamps.
        rests_on: Positions of the operations that were followed, with their arguments.
    """

    equal: bool
    clamps: tuple[int, ...]
    rests_on: tuple[tuple[int, tuple[Any, ...], Mapping[str, Any]], ...]

    def holds(self, trace: Trace) -> bool:
        """Whether these are operations with the same arguments."""
        for position, args, kwargs in self.rests_on:
            op = bare_op(trace, position)
            if not (op.args is args or op.args == args):
                return False
            if not (op.kwargs is kwargs or op.kwargs == kwargs):
                return False
        return True


def agree(graph: Graph, position: int, elements: torch.Tensor) -> bool:
    """Whether the two arguments of an operation are the same function at some of its elements."""
    op = graph.trace.ops[position]
    if op.short_name not in CHOICES or op.kwargs or len(op.args) != 2:
        return False
    left, right = op.kept.get(0), op.kept.get(1)
    if left is None or right is None or left.shape != right.shape:
        return False
    if graph.writes:
        return False  # a slot may have had other values before
    ops, shape = graph.trace.ops, left.shape
    known = graph.agreements.get(position)
    if known is None or not known.holds(graph.trace):
        known = graph.agreements[position] = _agreement(graph, position)
    if not known.equal:
        return False  # nor with clamps that do something: what they return is of one name
    if all(_is_inactive(ops[p], shape, elements) for p in known.clamps):
        return True
    forms = _Forms(graph, lambda p: _is_inactive(ops[p], shape, elements))
    return forms.argument(position, 0) == forms.argument(position, 1)


def _agreement(graph: Graph, position: int) -> Agreement:
    ops = graph.trace.ops
    clamps: list[int] = []

    def assumed(clamp: int) -> bool:
        if not _may_be_inactive(ops[clamp]):
            return False
        clamps.append(clamp)
        return True

    forms = _Forms(graph, assumed)
    equal = forms.argument(position, 0) == forms.argument(position, 1)
    followed = (position, *sorted(forms.followed))
    rests_on = tuple([(p, ops[p].args, ops[p].kwargs) for p in followed])
    return Agreement(equal, tuple(clamps), rests_on)


@dataclass(eq=False)
class _Forms:
    """Normal forms of values, at some flat positions of all that has a certain shape.

    Elementwise operations never make a shape smaller. So what lies between a clamp and a result of
    its shape has that shape too, and positions in one are positions in the other.

    `is_inactive` says of a clamp, by its position, whether it does nothing there.
    """

    graph: Graph
    is_inactive: Callable[[int], bool]
    left: int = _DEEP
    known: dict[tuple[int, int | None], _Sum] = field(default_factory=dict)
    numbers: dict[_Sum, int] = field(default_factory=dict)
    followed: set[int] = field(default_factory=set)

    def argument(self, position: int, number: int) -> _Sum:
        """The form of a positional argument of an operation."""
        value = self.graph.trace.ops[position].args[number]
        if not isinstance(value, Ref):
            return ((("number",), float(value)),) if value else ()
        maker = self.graph.makers[position].get(value.slot)
        key = (value.slot, maker)
        if key not in self.known:
            self.known[key] = self._made(value.slot, maker)
        return self.known[key]

    def _made(self, slot: int, maker: int | None) -> _Sum:
        atom = ((("slot", slot), 1.0),)
        self.left -= 1
        if maker is None or self.left < 0:
            return atom
        self.followed.add(maker)
        op = self.graph.trace.ops[maker]
        if op.outputs != (slot,) or not all(_is_plain(a) for a in op.args):
            return atom
        name = op.short_name
        if name in ("add", "sub") and len(op.args) == 2 and set(op.kwargs) <= {"alpha"}:
            factor = float(op.kwargs.get("alpha", 1)) * (1.0 if name == "add" else -1.0)
            return _added(self.argument(maker, 0), self.argument(maker, 1), factor)
        if op.kwargs:
            return atom
        if name == "neg":
            return _added((), self.argument(maker, 0), -1.0)
        if name == "clamp":
            return self.argument(maker, 0) if self.is_inactive(maker) else atom
        if name in _OPAQUE:
            parts = tuple(self._number(self.argument(maker, i)) for i in range(len(op.args)))
            return (((name, *parts), 1.0),)
        return atom

    def _number(self, form: _Sum) -> int:
        """A number for each form: to compare trees of what is used twice would take for ever."""
        return self.numbers.setdefault(form, len(self.numbers))


def _may_be_inactive(op: OpRecord) -> bool:
    """Whether a clamp is one between numbers, of which the values are at hand."""
    return 0 in op.kept and not any(isinstance(b, Ref) for b in op.args[1:])


def _is_inactive(op: OpRecord, shape: torch.Size, elements: torch.Tensor) -> bool:
    """Whether a clamp between numbers leaves all elements in question as they are."""
    if not _may_be_inactive(op):
        return False
    read = op.kept[0]
    if read.shape != shape or not elements.numel():
        return read.shape == shape
    # As tensors: a bound counts as a number of their type.
    smallest, largest = read.reshape(-1)[elements].aminmax()
    low, high = (*op.args[1:], None, None)[:2]
    above = low is None or bool(smallest > low)
    return above and (high is None or bool(largest < high))


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, (Ref, int, float))


def _added(left: _Sum, right: _Sum, factor: float) -> _Sum:
    total = dict(left)
    for atom, multiple in right:
        total[atom] = total.get(atom, 0.0) + factor * multiple
    return tuple(sorted(((a, m) for a, m in total.items() if m), key=repr))
