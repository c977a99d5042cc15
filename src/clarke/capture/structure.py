"""A program that runs again and again: what stays the same of it, and whether it has run again.

A training step differs from the last one in its values only. A `Structure` holds the rest:
operations, wiring, types, places. `Structure.retrace` holds the live record of a result against it
without making a `Trace`. Values, shapes and numbers among the arguments are no part of a structure:
whoever draws conclusions from one has to look at them every time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from clarke.capture.collect import external_of, made_by, saves_nothing, values_of
from clarke.capture.live import NOTHING_KEPT, TENSOR
from clarke.capture.reached import Outside, Reached, are_apart, kind_of
from clarke.capture.trace import External, OpRecord, Ref, ScalarRead, Trace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    import torch

    from clarke.capture.live import Node, Slot
    from clarke.capture.reached import Seen
    from clarke.capture.recorder import Recorder

    _Form = tuple[Any, ...]


@dataclass(frozen=True, eq=False)
class Structure:
    """All of a trace but values, shapes and arguments that are no tensors.

    Attributes:
        trace: The trace that it was taken from, without values and tensors. Slots are numbered
            from 0 on in the order in which the operations read and make them.
        outside: What no operation made, by its number.
        leaves: The numbers of the leaves among these, in order.
        holding: Positions of the operations of which the recorder keeps values.
        signed: Of these, those of which it keeps signs alone.
    """

    trace: Trace
    outside: Mapping[int, Outside]
    leaves: tuple[int, ...]
    holding: tuple[int, ...]
    signed: tuple[int, ...]
    _forms: tuple[_Form, ...]
    _reads: tuple[tuple[Any, ...], ...]
    _freed: tuple[int, ...]
    _memory: tuple[Any, ...]

    def retrace(self, reached: Reached) -> Retraced | None:
        """What ran, in this structure's numbers; None if it was another program."""
        nodes, forms = reached.nodes, self._forms
        if len(nodes) != len(forms):
            return None
        numbers: dict[int, int] = {}
        outside: dict[int, Slot] = {}
        for node, form in zip(nodes, forms, strict=True):
            func, location, types, inputs, outputs, flags = form
            if node.func is not func or node.location is not location or flags != _flags(node):
                return None
            if tuple(map(type, node.pattern)) != types:
                return None
            read = []
            for slot in node.inputs:
                own = numbers.get(slot.number)
                if own is None:
                    own = numbers[slot.number] = len(numbers)
                    outside[own] = slot
                read.append((own, slot.dtype))
            if read != inputs or _numbered(node.outputs, numbers) != outputs:
                return None
        if not all(_holds(nodes[i]) for i in self.holding):
            return None  # let go by an earlier call
        if numbers.get(reached.output.number) != self.trace.output:
            return None
        if tuple([_read(r, numbers) for r in reached.reads]) != self._reads:
            return None
        kinds = self.outside
        if not all(kind_of(slot) is kinds[number] for number, slot in outside.items()):
            return None
        if self._memory and _memory(nodes) != self._memory:
            return None
        return Retraced(self, nodes, numbers, outside)

    def freed(self, nodes: Sequence[Node]) -> Iterator[Node]:
        """The operations of which autograd keeps nothing when it frees their graph."""
        return (nodes[i] for i in self._freed)


def structure_of(trace: Trace, reached: Reached) -> Structure | None:
    """The structure of what was reached, which is what `trace` holds; None if it has none."""
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
                outside[numbers[slot.number]] = slot
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
    if Outside.CUT in known.values() and any(op.reads_stopped for op in trace.ops):
        return None  # detached from the variables themselves
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
        leaves=tuple([n for n, kind in known.items() if kind is Outside.LEAF]),
        holding=tuple([i for i, n in enumerate(nodes) if _holds(n)]),
        signed=tuple([i for i, n in enumerate(nodes) if n.zeros is not None]),
        _forms=tuple(forms),
        _reads=reads,
        _freed=freed,
        _memory=memory,
    )


@dataclass(frozen=True, eq=False)
class Retraced:
    """One run of a structure.

    Attributes:
        structure: What ran.
        nodes: Its operations, with their values.
        numbers: The structure's numbers by those of the record.
        outside: What no operation made, by the structure's number.
    """

    structure: Structure
    nodes: tuple[Node, ...]
    numbers: Mapping[int, int]
    outside: Mapping[int, Slot]

    def leaf(self, number: int) -> torch.Tensor:
        """A leaf, by its number."""
        held = self.outside[number].held
        if held is None:  # pragma: no cover - a structure has no such leaves
            raise KeyError(number)
        return held

    def same_arguments(self, position: int) -> bool:
        """Whether an operation has the arguments, but for tensors, that the structure shows."""
        node, op = self.nodes[position], self.structure.trace.ops[position]
        return not node.named and _same_arguments(node.pattern, op.args)

    def trace(self, repeatable: Callable[[Any], bool] | None = None) -> Trace:
        """The trace of the run, as `collect_trace` makes it, but for the numbers.

        Args:
            repeatable: Leave out the values of operations of which this holds.
        """
        ops = list(self.structure.trace.ops)
        for position, node in enumerate(self.nodes):
            op = ops[position]
            if node.named or not _same_arguments(node.pattern, op.args):
                args, kwargs = node.arguments()
                op = op.holding(
                    args=tuple([_reference(a, self.numbers) for a in args]),
                    kwargs=_named(kwargs, self.numbers),
                )
            if _holds(node) and not (repeatable is not None and _is_let_go(node, repeatable)):
                op = op.holding(**values_of(node))
            ops[position] = op
        return replace(
            self.structure.trace,
            ops=tuple(ops),
            externals=_Externals(self.outside, self.structure.outside),
            emptied=repeatable is not None,
        )

    def cut_from(self, variables: Iterable[int]) -> bool:
        """Whether detached values may have been computed from some of the leaves."""
        cut = [s for n, s in self.outside.items() if self.structure.outside[n] is Outside.CUT]
        return bool(cut) and not are_apart(cut, [self.outside[n] for n in variables])

    def drop_values(self, repeatable: Callable[[Any], bool]) -> None:
        """Let go of what is kept, so that autograd can free its activations as it goes."""
        for position in self.structure.holding:
            node = self.nodes[position]
            if _is_let_go(node, repeatable):
                node.kept = node.kept_outputs = node.kept_lists = node.kept_named = NOTHING_KEPT
                node.zeros = node.early = None

    def release(self, recorder: Recorder) -> None:
        """Forget the run, as autograd has just done with its graph."""
        recorder.begin_epoch()
        recorder.forget_reads(self.nodes[-1].index)
        for node in self.structure.freed(self.nodes):
            node.release()


class _Externals(Mapping[int, External]):
    """What a run read and did not make; looked at when it is first asked for."""

    def __init__(self, outside: Mapping[int, Slot], kinds: Mapping[int, Outside]) -> None:
        self._outside, self._kinds = outside, kinds
        self._made: dict[int, External] | None = None

    def _all(self) -> dict[int, External]:
        if self._made is None:
            self._made = {
                n: replace(external_of(s), slot=n, stopped=False, cut_by="")
                for n, s in self._outside.items()
            }
        return self._made

    def __getitem__(self, slot: int) -> External:
        return self._all()[slot]

    def __iter__(self) -> Iterator[int]:
        return iter(self._outside)

    def __len__(self) -> int:
        return len(self._outside)


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


def _holds(node: Node) -> bool:
    kept = node.kept or node.kept_outputs or node.kept_lists or node.kept_named or node.drawn
    return node.zeros is not None or bool(kept)


def _is_let_go(node: Node, repeatable: Callable[[Any], bool]) -> bool:
    """As `without_values` does: casts of whole numbers keep their results alone."""
    results_alone = node.kept_outputs and not node.kept and node.zeros is None
    return repeatable(node.func) and not results_alone


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
        args=tuple([_reference(a, numbers) for a in op.args]),
        kwargs=_named(op.kwargs, numbers),
        outputs=tuple([None if n is None else numbers[n] for n in op.outputs]),
    )


def _named(kwargs: Mapping[str, Any], numbers: Mapping[int, int]) -> Mapping[str, Any]:
    if not kwargs:
        return NOTHING_KEPT
    return MappingProxyType({k: _reference(v, numbers) for k, v in kwargs.items()})


def _reference(value: Any, numbers: Mapping[int, int]) -> Any:
    if isinstance(value, Ref):
        return Ref(numbers[value.slot])
    if isinstance(value, (list, tuple)) and any(isinstance(v, Ref) for v in value):
        return type(value)([_reference(v, numbers) for v in value])
    return value


def _same_arguments(args: tuple[Any, ...], known: tuple[Any, ...]) -> bool:
    """Whether arguments of the same types are the same but for tensors.

    Zeros are not told apart by comparing them, so that they count as others.
    """
    for own, other in zip(args, known, strict=True):
        if own is other or own is TENSOR:
            continue
        if not own or own != other:
            return False
        if isinstance(own, (list, tuple)) and not type(own[0]) is type(other[0]) is int:
            return False
    return True
