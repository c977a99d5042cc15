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

from clarke.capture import Ref

if TYPE_CHECKING:
    import torch

    from clarke.capture import OpRecord
    from clarke.fast.graph import Graph

CHOICES = frozenset({"minimum", "maximum", "fmin", "fmax"})
_OPAQUE = frozenset({"mul", "div", "pow", "exp", "log", "tanh", "sigmoid", "sqrt", "square"})
_DEEP = 64  # operations that are followed

# A sum: multiples of atoms, sorted; an atom is ("slot", n), ("number",) for one, or an operation's
# name with the numbers of its arguments' sums.
_Sum = tuple[tuple[Any, float], ...]


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
    forms = _Forms(graph, left.shape, elements)
    return forms.argument(position, 0) == forms.argument(position, 1)


@dataclass(eq=False)
class _Forms:
    """Normal forms of values, at some flat positions of all that has a certain shape.

    Elementwise operations never make a shape smaller. So what lies between a clamp and a result of
    its shape has that shape too, and positions in one are positions in the other.
    """

    graph: Graph
    shape: torch.Size
    elements: torch.Tensor
    left: int = _DEEP
    known: dict[tuple[int, int | None], _Sum] = field(default_factory=dict)
    numbers: dict[_Sum, int] = field(default_factory=dict)

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
            return self.argument(maker, 0) if self._is_inactive(op) else atom
        if name in _OPAQUE:
            parts = tuple(self._number(self.argument(maker, i)) for i in range(len(op.args)))
            return (((name, *parts), 1.0),)
        return atom

    def _number(self, form: _Sum) -> int:
        """A number for each form: to compare trees of what is used twice would take for ever."""
        return self.numbers.setdefault(form, len(self.numbers))

    def _is_inactive(self, op: OpRecord) -> bool:
        """Whether a clamp between numbers leaves all elements in question as they are."""
        read = op.kept.get(0)
        bounds = [b for b in op.args[1:] if b is not None]
        if read is None or read.shape != self.shape or any(isinstance(b, Ref) for b in bounds):
            return False
        values = read.reshape(-1)[self.elements]
        low, high = (*op.args[1:], None, None)[:2]
        above = low is None or bool((values > low).all())
        return above and (high is None or bool((values < high).all()))


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, (Ref, int, float))


def _added(left: _Sum, right: _Sum, factor: float) -> _Sum:
    total = dict(left)
    for atom, multiple in right:
        total[atom] = total.get(atom, 0.0) + factor * multiple
    return tuple(sorted(((a, m) for a, m in total.items() if m), key=repr))
