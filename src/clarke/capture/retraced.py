"""One run of a known structure: its operations and what they read, made when asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, cast

from clarke.capture.collect import external_of, values_of
from clarke.capture.live import NOTHING_KEPT, TENSOR
from clarke.capture.reached import Behind, behind_cut
from clarke.capture.trace import External, OpRecord, Ref, Trace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import torch

    from clarke.capture.live import Node, Slot
    from clarke.capture.reached import Level
    from clarke.capture.recorder import Recorder
    from clarke.capture.structure import Structure


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
        return self._trace(tuple(_Ops(self, repeatable)), emptied=repeatable is not None)

    def glance(self) -> Trace:
        """The same with operations that are made when they are asked for.

        For those who look at a few of them, before any value is let go.
        """
        return self._trace(cast("tuple[OpRecord, ...]", _Ops(self, None)), emptied=False)

    def _trace(self, ops: tuple[OpRecord, ...], *, emptied: bool) -> Trace:
        known = self.structure.trace
        return Trace(
            ops=ops,
            externals=_Externals(self.outside, self.structure),
            output=known.output,
            scalar_reads=known.scalar_reads,
            slot_dtypes=known.slot_dtypes,
            emptied=emptied,
        )

    def holds_for(self, variables: Iterable[int], level: Level) -> bool:
        """Whether detached values came from where they did when the structure was taken.

        What the variables themselves were computed from does not matter, nor what values come from
        that reach the result by steps only.

        Args:
            variables: Numbers of the variables.
            level: Says of an operator and the type of a result that this keeps its value beside
                the point.
        """
        stepped = self.structure.stepped
        own = frozenset(variables)
        apart = own | stepped
        cut = [s for n, s in self.outside.items() if s.stopped and n not in apart]
        found = behind_cut(cut, [self.outside[n] for n in own], level) if cut else Behind.OTHERS
        lost = not stepped.issuperset(self.structure.cut)
        return found is (Behind.LOST if lost else Behind.OTHERS)

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


class _Ops(Sequence["OpRecord"]):
    """The operations of a run, each made when it is first asked for."""

    def __init__(self, run: Retraced, repeatable: Callable[[Any], bool] | None) -> None:
        self._run, self._repeatable = run, repeatable
        self._known = run.structure.trace.ops
        self._made: dict[int, OpRecord] = {}

    def __len__(self) -> int:
        return len(self._known)

    def __getitem__(self, position: Any) -> Any:
        if isinstance(position, slice):
            return tuple([self[i] for i in range(*position.indices(len(self)))])
        if position < 0:
            position += len(self)
        found = self._made.get(position)
        if found is None:
            found = self._made[position] = self._op(position)
        return found

    def at(self, position: int) -> OpRecord:
        """The same, perhaps without its values: these need not be there for its arguments."""
        return self._known[position] if self._has_known(position) else self[position]

    def _has_known(self, position: int) -> bool:
        node, op = self._run.nodes[position], self._known[position]
        return _same_arguments(node.pattern, op.args) and _same_named(node.named, op.kwargs)

    def _op(self, position: int) -> OpRecord:
        node, op, repeatable = self._run.nodes[position], self._known[position], self._repeatable
        if not self._has_known(position):
            args, kwargs = node.arguments()
            op = op.holding(
                args=tuple([reference(a, self._run.numbers) for a in args]),
                kwargs=named(kwargs, self._run.numbers),
            )
        if holds(node) and not (repeatable is not None and _is_let_go(node, repeatable)):
            op = op.holding(**values_of(node))
        return op


class _Externals(Mapping[int, External]):
    """What a run read and did not make; looked at when it is first asked for."""

    def __init__(self, outside: Mapping[int, Slot], structure: Structure) -> None:
        self._outside, self._cut = outside, structure.cut
        self._made: dict[int, External] = {}

    def __getitem__(self, slot: int) -> External:
        found = self._made.get(slot)
        if found is None:
            found = self._made[slot] = external_of(self._outside[slot]).seen_as(
                slot, cut=slot in self._cut
            )
        return found

    def tensor(self, slot: int) -> torch.Tensor:
        """The tensor alone."""
        found = self._outside[slot]
        if found.held is None or found.storage.gathered is not None:
            return self[slot].tensor
        return found.held

    def __iter__(self) -> Iterator[int]:
        return iter(self._outside)

    def __len__(self) -> int:
        return len(self._outside)


def bare_op(trace: Trace, position: int) -> OpRecord:
    """An operation, for those who look at its arguments alone; perhaps without its values."""
    ops: Any = trace.ops
    found: OpRecord = ops.at(position) if isinstance(ops, _Ops) else ops[position]
    return found


def tensor_at(trace: Trace, slot: int) -> torch.Tensor:
    """``trace.externals[slot].tensor``, likewise."""
    externals = trace.externals
    if isinstance(externals, _Externals):
        return externals.tensor(slot)
    return externals[slot].tensor


def holds(node: Node) -> bool:
    """Whether values are kept of an operation."""
    kept = node.kept or node.kept_outputs or node.kept_lists or node.kept_named or node.drawn
    return node.zeros is not None or bool(kept)


def _is_let_go(node: Node, repeatable: Callable[[Any], bool]) -> bool:
    """As `without_values` does: casts of whole numbers keep their results alone."""
    results_alone = node.kept_outputs and not node.kept and node.zeros is None
    return repeatable(node.func) and not results_alone


def named(kwargs: Mapping[str, Any], numbers: Mapping[int, int]) -> Mapping[str, Any]:
    """Keyword arguments with a structure's numbers for those of the record."""
    if not kwargs:
        return NOTHING_KEPT
    return MappingProxyType({k: reference(v, numbers) for k, v in kwargs.items()})


def reference(value: Any, numbers: Mapping[int, int]) -> Any:
    """An argument likewise."""
    if isinstance(value, Ref):
        return Ref(numbers[value.slot])
    if isinstance(value, (list, tuple)) and any(isinstance(v, Ref) for v in value):
        return type(value)([reference(v, numbers) for v in value])
    return value


def _same_named(kwargs: Mapping[str, Any], known: Mapping[str, Any]) -> bool:
    """The same of keyword arguments of the same names, of whatever types."""
    if not kwargs:
        return not known
    own, others = tuple(kwargs.values()), tuple(known.values())
    kinds = [Ref if v is TENSOR else type(v) for v in own]
    return kinds == list(map(type, others)) and _same_arguments(own, others)


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
