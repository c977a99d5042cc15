"""A program that runs again and again: what stays the same of it, and whether it has run again.

A training step differs from the last one in its values only. A `Structure` holds the rest:
operations, wiring, types, places. `Structure.retrace` holds the live record of a result against it
without making a `Trace`. Values, shapes and numbers among the arguments are no part of a structure:
whoever draws conclusions from one has to look at them every time.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from clarke.capture.reached import Outside, Reached, kind_of
from clarke.capture.releasing import made_by, saves_nothing
from clarke.capture.retraced import Retraced, holds, named, reference
from clarke.capture.trace import ScalarRead, Trace

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from clarke.capture.live import Node, Slot
    from clarke.capture.reached import Seen
    from clarke.capture.trace import OpRecord

    _Form = tuple[Any, ...]


@dataclass(frozen=True, eq=False)
class Structure:
    """All of a trace but values, shapes and arguments that are no tensors.

    Attributes:
        trace: The trace that it was taken from, without values and tensors. Slots are numbered
            from 0 on in the order in which the operations read and make them.
        outside: What no operation made, by its number.
        cut: Of these, those that were detached from what nobody knows, and what cut them off.
        stepped: Detached values that reach the result by steps only.
        leaves: The numbers of the leaves among these, in order.
        holding: Positions of the operations of which the recorder keeps values.
        signed: Of these, those of which it keeps signs alone.
    """

    trace: Trace
    outside: Mapping[int, Outside]
    cut: Mapping[int, str]
    stepped: frozenset[int]
    leaves: tuple[int, ...]
    holding: tuple[int, ...]
    signed: tuple[int, ...]
    _forms: tuple[_Form, ...]
    _reads: tuple[tuple[Any, ...], ...]
    _freed: tuple[int, ...]
    _memory: tuple[Any, ...]

    def retrace(self, reached: Reached) -> Retraced | None:
        """What ran, in this structure's numbers; None if it was another program."""
        nodes = reached.nodes
        wired = self._wired(nodes)
        if wired is None:
            return None
        numbers, outside = wired
        if not all(holds(nodes[i]) for i in self.holding):
            return None  # let go by an earlier call
        if numbers.get(reached.output.number) != self.trace.output:
            return None
        if tuple([_read(r, numbers) for r in reached.reads]) != self._reads:
            return None
        kinds = self.outside
        if len(kinds) != len(outside):
            return None
        if not all(kind_of(slot) is kinds.get(number) for number, slot in outside.items()):
            return None
        if any(outside[number].cut_by != by for number, by in self.cut.items()):
            return None
        if self._memory and _memory(nodes) != self._memory:
            return None
        return Retraced(self, nodes, numbers, outside)

    def _wired(self, nodes: Sequence[Node]) -> tuple[dict[int, int], dict[int, Slot]] | None:
        """Slots by number, and what no operation made, where operations and wiring are the same."""
        forms = self._forms
        if len(nodes) != len(forms):
            return None
        numbers: dict[int, int] = {}
        outside: dict[int, Slot] = {}
        for node, (func, location, types, inputs, outputs, flags) in zip(nodes, forms, strict=True):
            if node.func is not func or node.location is not location or flags != _flags(node):
                return None
            if tuple(map(type, node.pattern)) != types or len(node.inputs) != len(inputs):
                return None
            for slot, (known, dtype) in zip(node.inputs, inputs, strict=True):
                own = numbers.get(slot.number)
                if own is None:
                    own = numbers[slot.number] = len(numbers)
                    outside[own] = slot
                elif slot.producer is None:  # an operation's own result, cut off at once
                    outside.setdefault(own, slot)
                if own != known or slot.dtype is not dtype:
                    return None
            made = node.outputs
            if len(made) == 1 and made[0] is not None:  # most often
                if (numbers.setdefault(made[0], len(numbers)),) != outputs:
                    return None
            elif _numbered(made, numbers) != outputs:
                return None
        return numbers, outside

    def freed(self, nodes: Sequence[Node]) -> Iterator[Node]:
        """The operations of which autograd keeps nothing when it frees their graph."""
        return (nodes[i] for i in self._freed)


def structure_of(
    trace: Trace, reached: Reached, stepped: frozenset[int] = frozenset()
) -> Structure | None:
    """The structure of what was reached, which is what `trace` holds; None if it has none.

    `stepped` are the slots of detached values that reach the result by steps only.
    """
    nodes = reached.nodes
    if [n.index for n in nodes] != [op.index for op in trace.ops]:
        return None
    freed, memory = _freed(reached), _memory(nodes)
    if freed is None or memory is None or any(n.hidden_write for n in nodes):
        return None
    numbers: dict[int, int] = {}
    outside: dict[int, Slot] = {}
    forms: list[_Form] = []
    for node in nodes:
        for slot in node.inputs:
            if slot.number not in numbers:
                numbers[slot.number] = len(numbers)
            if slot.producer is None:
                outside.setdefault(numbers[slot.number], slot)
        forms.append(
            (
                node.func,
                node.location,
                tuple(map(type, node.pattern)),
                [(numbers[s.number], s.dtype) for s in node.inputs],
                _numbered(node.outputs, numbers),
                _flags(node),
            )
        )
    kinds = {number: kind_of(slot) for number, slot in outside.items()}
    known = {number: kind for number, kind in kinds.items() if kind is not None}
    if len(known) != len(kinds) or set(trace.externals) != {s.number for s in outside.values()}:
        return None
    cut = {
        number: slot.cut_by
        for number, slot in outside.items()
        if trace.externals[slot.number].stopped and known[number] is Outside.CUT
    }
    reads = tuple([_read(r, numbers) for r in reached.reads])
    canonical = Trace(
        ops=tuple([_renumbered(op.bare(), numbers) for op in trace.ops]),
        externals=MappingProxyType({}),
        output=numbers[trace.output],
        scalar_reads=tuple([ScalarRead(*r) for r in reads]),
        slot_dtypes=MappingProxyType(
            {numbers[s]: d for s, d in trace.slot_dtypes.items() if s in numbers}
        ),
        emptied=True,
    )
    return Structure(
        trace=canonical,
        outside=MappingProxyType(known),
        cut=MappingProxyType(cut),
        stepped=frozenset(numbers[s] for s in stepped if s in numbers),
        leaves=tuple([n for n, kind in known.items() if kind is Outside.LEAF]),
        holding=tuple([i for i, n in enumerate(nodes) if holds(n)]),
        signed=tuple([i for i, n in enumerate(nodes) if n.zeros is not None]),
        _forms=tuple(forms),
        _reads=reads,
        _freed=freed,
        _memory=memory,
    )


# ---------------------------------------------------------------- one operation


def _flags(node: Node) -> tuple[Any, ...]:
    return (
        node.varied,
        node.differentiated,
        node.reads_stopped,
        node.resaved,
        node.hidden_write,
        node.writers_before,
        node.zeros is None,
        tuple(node.named) if node.named else (),
    )


def _numbered(outputs: tuple[int | None, ...], numbers: dict[int, int]) -> tuple[int | None, ...]:
    return tuple([None if n is None else numbers.setdefault(n, len(numbers)) for n in outputs])


def _read(read: Seen, numbers: Mapping[int, int]) -> tuple[Any, ...]:
    slot, location, shape = read
    # What is no part of the program has a number that nothing else has.
    return (-1 if slot is None else numbers.get(slot.number, -1)), location, shape


def _memory(nodes: Sequence[Node]) -> tuple[Any, ...] | None:
    """Whose memory every operation reads, and what has written there; empty where nothing has.

    None where something has that is none of these operations.
    """
    if not any(n.writers_before or n.func._schema.is_mutable for n in nodes):
        return ()
    at = {node.index: position for position, node in enumerate(nodes)}
    numbers: dict[int, int] = {}
    found: list[Any] = []
    for node in nodes:
        for slot in node.inputs:
            storage = slot.storage
            found.append(numbers.setdefault(id(storage), len(numbers)))
            if storage.writers:
                found.append(tuple([at.get(n.index) for n in storage.writers]))
                if None in found[-1]:
                    return None
    return tuple(found)


def _freed(reached: Reached) -> tuple[int, ...] | None:
    """Positions of the operations that autograd's own graph loses with its values.

    As `release_nodes` finds them; None where others are among these.
    """
    nodes = reached.nodes
    at = {node.index: position for position, node in enumerate(nodes)}
    found: set[int] = set()
    whole: set[int] = set()
    todo = [n.index for n in made_by(reached.output) if n.differentiated]
    while todo:
        position = at.get(todo.pop())
        if position is None:
            return None
        if position not in found:
            found.add(position)
            todo += _behind(nodes[position])
    for position in sorted(found):
        behind = [at[i] for i in _behind(nodes[position])]
        if saves_nothing(nodes[position]) and whole.issuperset(behind):
            whole.add(position)
    return tuple(sorted(found - whole))


def _behind(node: Node) -> list[int]:
    """The differentiated operations whose results an operation read."""
    return [n.index for slot in node.inputs for n in made_by(slot) if n.differentiated]


def _renumbered(op: OpRecord, numbers: Mapping[int, int]) -> OpRecord:
    return op.holding(
        args=tuple([reference(a, numbers) for a in op.args]),
        kwargs=named(op.kwargs, numbers),
        outputs=tuple([None if n is None else numbers[n] for n in op.outputs]),
    )
