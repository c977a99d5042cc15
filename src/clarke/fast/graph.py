"""A trace as a graph of values: who made what, from which leaves, with which uses."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from clarke.capture import OpRecord, Origin, Ref, input_slots
from clarke.decide.hazards import may_be_constant

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from clarke.capture import Trace
    from clarke.fast.rows import RowCodes
    from clarke.fast.same import Agreement

# Operations that hand on the whole of their first argument's values in another shape.
RESHAPES = frozenset({"view", "_unsafe_view", "reshape", "t", "transpose", "permute", "flatten"})
_SAME = frozenset({"clone", "contiguous", "alias"})
# Parts of an argument's memory, apart from each other, that do not say so.
_UNSAFE = frozenset({"unsafe_split", "unsafe_split_with_sizes", "unsafe_chunk"})


@dataclass(frozen=True, eq=False)
class Graph:
    """Positions are indices into ``trace.ops``.

    Attributes:
        trace: What ran.
        makers: For every operation, the position that made each of its input slots (None for
            externals), as it was when the operation ran.
        ancestors: For every operation, a bit set of the variables that its outputs depend on
            (bit i for ``variables[i]``).
        uses: Position of the only operation that reads a variable (through reshapes), by
            variable's slot; missing for variables that several read.
        bits: The bit of each variable's slot.
        readers: For every operation, the positions of those that read its outputs.
        needed: Positions of the operations on which the result depends; the others were recorded
            because Python read a value of theirs.
        writes: Some operation writes to what it reads.
        tangled: Some operation writes to what others still read, under this or another name: the
            wiring does not tell then of which values a result is made.
        agreements: By position of a minimum or maximum, whether both sides are one function, as far
            as somebody has asked: a program that runs again has the same ones.
        rows: By position of a reduction by index, the codes of the rows that it reduces, likewise.
    """

    trace: Trace
    makers: tuple[Mapping[int, int | None], ...]
    ancestors: tuple[int, ...]
    uses: Mapping[int, int]
    bits: Mapping[int, int]
    readers: tuple[tuple[int, ...], ...]
    needed: frozenset[int]
    writes: bool
    tangled: bool
    agreements: dict[int, Agreement] = field(default_factory=dict)
    rows: dict[int, RowCodes] = field(default_factory=dict)

    def running(self, trace: Trace) -> Graph:
        """The graph of another run of the same program."""
        made = object.__new__(Graph)
        made.__dict__.update(self.__dict__, trace=trace)
        return made

    def maker(self, position: int, argument: int) -> int | None:
        """Position of the operation that made a positional tensor argument, or None."""
        value = self.trace.ops[position].args[argument]
        return self.makers[position].get(value.slot) if isinstance(value, Ref) else None

    def leaf(self, position: int, argument: int) -> int | None:
        """The variable's slot if an argument is a variable itself, through reshapes; or None."""
        op = self.trace.ops[position]
        if argument >= len(op.args) or not isinstance(op.args[argument], Ref):
            return None
        slot = op.args[argument].slot
        made = self.makers[position].get(slot)
        if made is None:
            return slot if slot in self.bits else None
        if self.trace.ops[made].short_name in RESHAPES:
            return self.leaf(made, 0)
        return None

    def depends(self, position: int | None, slot: int) -> bool:
        """Whether an operation's outputs depend on a variable."""
        return position is not None and bool(self.ancestors[position] & self.bits[slot])


def is_behind(graph: Graph, position: int, name: str) -> bool:
    """Whether what an operation reads first is the result of a named one along its last dimension.

    With its dimensions in another order, perhaps.
    """
    reading = graph.trace.ops[position].kept.get(0)
    if graph.tangled or reading is None:
        return False
    rank = reading.dim()
    at, dim = graph.maker(position, 0), rank - 1
    while at is not None:
        op = graph.trace.ops[at]
        if op.short_name == name:
            return bool(op.args[1] % rank == dim)
        order = list(range(rank))
        if op.short_name == "transpose":
            one, two = (d % rank for d in op.args[1:3])
            order[one], order[two] = two, one
        elif op.short_name == "permute":
            order = [d % rank for d in op.args[1]]
        elif op.short_name not in _SAME:
            return False
        at, dim = graph.maker(at, 0), order[dim]
    return False


def build_graph(trace: Trace, variables: Sequence[int]) -> Graph:
    """The graph of a trace; tangled if in-place operations make it more than a graph of values.

    An in-place operation is fine where nobody else reads what it overwrites.
    """
    bits = {slot: 1 << i for i, slot in enumerate(variables)}
    made: dict[int, int] = {}
    makers: list[dict[int, int | None]] = []
    ancestors: list[int] = []
    readers: list[list[int]] = [[] for _ in trace.ops]
    reads: dict[int, list[int]] = {}
    for position, op in enumerate(trace.ops):
        own: dict[int, int | None] = {}
        mask = 0
        for slot in input_slots(op):
            maker = made.get(slot)
            own[slot] = maker
            mask |= bits.get(slot, 0) if maker is None else ancestors[maker]
            if maker is not None:
                readers[maker].append(position)
            else:
                reads.setdefault(slot, []).append(position)
        makers.append(own)
        ancestors.append(mask)
        made.update({out: position for out in op.outputs if out is not None})
    every = range(len(trace.ops))
    tangled = not all(_harmless(trace, position, makers, readers) for position in every)
    uses: dict[int, int] = {}
    for variable in variables:
        at = reads.get(variable, [])
        while len(at) == 1 and trace.ops[at[0]].short_name in RESHAPES:
            at = readers[at[0]]
        if len(at) == 1:
            uses[variable] = at[0]
    needed: set[int] = set()
    todo = [made.get(trace.output)]
    while todo:
        at_op = todo.pop()
        if at_op is not None and at_op not in needed:
            needed.add(at_op)
            todo.extend(makers[at_op].values())
    return Graph(
        trace,
        tuple(makers),
        tuple(ancestors),
        uses,
        bits,
        tuple(tuple(r) for r in readers),
        frozenset(every if tangled else needed),
        any(op.func._schema.is_mutable for op in trace.ops),
        tangled,
    )


def _harmless(
    trace: Trace,
    position: int,
    makers: Sequence[Mapping[int, int | None]],
    readers: Sequence[Sequence[int]],
) -> bool:
    """Whether an operation writes to nothing that others still read under its old value."""
    rest = makers, readers
    op = trace.ops[position]
    if not op.func._schema.is_mutable:  # its arguments, one by one, take long to look at
        return True
    written = [
        i
        for i, a in enumerate(op.func._schema.arguments)
        if a.alias_info is not None and a.alias_info.is_write
    ]
    if not written or _only_statistics(op):
        return True
    first = op.args[0]
    return written == [0] and isinstance(first, Ref) and _alone(trace, position, first.slot, rest)


def _alone(
    trace: Trace,
    position: int,
    slot: int,
    rest: tuple[Sequence[Mapping[int, int | None]], Sequence[Sequence[int]]],
) -> bool:
    """Whether an operation is the only one that reads a value, and what shares its memory."""
    makers, readers = rest
    maker = makers[position].get(slot)
    if maker is None:
        return _is_own(trace, position, slot, makers)
    if [r for r in readers[maker] if makers[r].get(slot) == maker] != [position]:
        return False
    op = trace.ops[maker]
    returned = [r.alias_info for r in op.func._schema.returns if r.alias_info is not None]
    if returned:  # its own argument, if it writes to that: then it has been looked at by itself
        return all(info.is_write for info in returned)
    if op.short_name in _UNSAFE:  # the cells of an LSTM or GRU
        source = op.args[0]
        return isinstance(source, Ref) and _alone(trace, maker, source.slot, rest)
    return True


def _is_own(
    trace: Trace, position: int, slot: int, makers: Sequence[Mapping[int, int | None]]
) -> bool:
    """Whether an operation is the only one that reads a constant, whose memory nobody shares."""
    external = trace.externals.get(slot)
    if external is None or external.origin is not Origin.CONSTANT or external.stopped:
        return False
    same = {s for s, e in trace.externals.items() if e.storage == external.storage}
    readers = (i for i, own in enumerate(makers) if any(own.get(s, i) is None for s in same))
    return same == {slot} and list(readers) == [position]


def _only_statistics(op: OpRecord) -> bool:
    """Batch normalisation writes to its running statistics, which nothing differentiable reads."""
    return "batch_norm" in op.short_name


def trusted_externals(trace: Trace) -> bool:
    """Whether everything that the trace reads is a leaf or a constant, unchanged since."""
    for e in trace.externals.values():
        if e.origin not in (Origin.LEAF, Origin.CONSTANT) or e.tensor.is_inference():
            return False
        if e.rewritten or (e.cut_by and not may_be_constant(e.cut_by)):
            return False
        if e.origin is Origin.LEAF and (e.snapshot is not None or e.tensor._version != e.version):
            return False
    return True
