"""Rows that are one and the same function of the variables: codes of the first dimension.

Two edges between the same nodes of a graph carry one message twice, and the largest message is
then attained twice: a tie between a function and itself, which is none. Equal codes mean that the
rows are computed in the same way from the same rows. What is not known to work row by row makes all
rows different.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch

from clarke.capture import Origin, Ref, bare_op, tensor_at
from clarke.decide import TouchCount
from clarke.devices import array_of
from clarke.fast.codes import mix
from clarke.kinks.table_scattered import attained

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from clarke.fast.graph import Graph
    from clarke.kinks.table_scattered import Attained, ByIndex

# Of one argument that is no number, entry by entry.
_UNARY: Final = frozenset(
    {"relu", "tanh", "sigmoid", "exp", "neg", "abs", "gelu", "elu", "silu", "leaky_relu"}
    | {"softplus", "hardtanh", "hardsigmoid", "hardswish", "square", "sin", "cos", "detach"}
)
_WITH_NUMBER: Final = frozenset({"add", "sub", "mul", "div", "pow", "clamp"})
_OF_TWO: Final = frozenset({"add", "sub", "mul", "div"})
# Within rows, if the dimension that they name is not the first, counted from the front.
_ALONG: Final = frozenset({"slice", "squeeze", "unsqueeze", "select", "softmax", "_softmax"})
_DEEP: Final = 64  # operations that are followed
_ODD: Final = np.uint64(0x9E3779B97F4A7C15)
_PAIR: Final = 2
_ARRAYS: Final = frozenset({torch.float32, torch.float64})


def same_rows(graph: Graph, position: int, found: ByIndex, source: int) -> TouchCount | None:
    """The count of a reduction by index whose ties are all between equal rows; None if not.

    Args:
        graph: The trace.
        position: The reduction.
        found: What it read and returned.
        source: Position of the argument with the rows that are reduced.
    """
    if found.dim == 0 and not graph.writes:
        whole = _whole_rows(found)
        if whole is not None:
            count = _ties(found, whole, _known_codes(graph, position, source))
            if count is not None:
                return count
    reached = attained(found)
    return None if reached is None else _by_entries(graph, position, found, reached, source)


def _by_entries(
    graph: Graph, position: int, found: ByIndex, reached: Attained, source: int
) -> TouchCount | None:
    """The same of any index, entry by entry."""
    count = reached.count
    tied = count > 1
    touched = int(tied.count_nonzero())
    if not touched:
        return TouchCount(found.op, count.numel(), 0, 0)
    if found.dim != 0 or graph.writes:
        return None
    codes = _known_codes(graph, position, source).codes
    if codes is None or len(codes) < found.index.shape[0]:
        return None
    # Of what attains a result: its row, and which result.
    wide, narrow = count.shape[1:], reached.equal.shape[1:]
    at = np.flatnonzero(reached.equal.numpy())
    row, column = np.divmod(at, narrow.numel())
    if narrow != wide:
        column = np.ravel_multi_index(np.unravel_index(column, narrow), wide)
    key = array_of(found.index.reshape(-1))[at] * wide.numel() + column
    among = tied.reshape(-1).numpy()[key]
    key, own = key[among], codes[row[among]]
    one = np.empty(count.numel(), dtype=own.dtype)
    one[key] = own  # of those that attain a result, any one
    if not np.array_equal(one[key], own):
        return None
    return _shared(found, touched, int(count.max()))


def _shared(found: ByIndex, touched: int, most: int) -> TouchCount:
    """The count of ties that are between equal rows."""
    many = "both" if most == _PAIR else "all"
    choice = f"autograd shared the slope equally among {many} tied elements"
    return TouchCount(found.op, found.x.numel(), touched, 0, choice=choice)


# ---------------------------------------------------------------- whole rows


def _whole_rows(found: ByIndex) -> NDArray[np.int64] | None:
    """(rows,) where each row goes, if it goes there as a whole; None if not, or not at hand."""
    x, index, src = found.x, found.index, found.src
    if src.shape[1:] != x.shape[1:] or any(index.stride()[1:]) or not x.numel():
        return None
    if not all(t.is_cpu and t.dtype in _ARRAYS for t in (x, src)) or x.dtype != src.dtype:
        return None
    return array_of(index.as_strided(index.shape[:1], index.stride()[:1]))


@dataclass(frozen=True, eq=False)
class Classes:
    """Rows that go to one place and are one function, for some index and codes.

    Attributes:
        target: (rows,) where they go.
        apart: (places,) bool, those to which no row goes.
        several: Rows of the classes that have several, class by class.
        starts: Where each of these begins among `several`.
        reached: How many places some row goes to.
    """

    target: NDArray[np.int64]
    apart: NDArray[np.bool_]
    several: NDArray[np.intp]
    starts: NDArray[np.intp]
    reached: int

    @classmethod
    def of(
        cls, target: NDArray[np.int64], codes: NDArray[np.uint64] | None, places: int
    ) -> Classes:
        """The classes of rows with these codes; of none, all rows are different."""
        apart = np.ones(places, dtype=np.bool_)
        apart[target] = False
        own = np.arange(len(target)) if codes is None else codes[: len(target)]
        order = np.lexsort((own, target))
        pairs = np.stack([target[order], own[order].astype(np.int64)])
        first = np.ones(len(target), dtype=np.bool_)
        first[1:] = (pairs[:, 1:] != pairs[:, :-1]).any(axis=0)
        begin = np.flatnonzero(first)
        sizes = np.diff(begin, append=len(target))
        several = order[np.repeat(sizes > 1, sizes)]
        starts = np.cumsum(sizes[sizes > 1]) - sizes[sizes > 1]
        return cls(target.copy(), apart, several, starts, places - int(apart.sum()))


def _ties(found: ByIndex, target: NDArray[np.int64], known: RowCodes) -> TouchCount | None:
    """The count where no result is attained by rows of two classes; None where it may be.

    Every result to which rows go is attained. It is attained more often than once either by rows of
    one class, which `within` counts, or by several; so there are none of the latter where the sums
    agree.
    """
    if known.codes is not None and len(known.codes) < len(target):
        return None
    x, result = array_of(found.x), array_of(found.result)
    classes = known.classes_of(target, len(x))
    own = (x == result).reshape(len(x), -1)
    # A result that is an entry of the first argument, or a NaN.
    if not (own == classes.apart[:, None]).all() or np.isnan(result).any():
        return None
    equal = (array_of(found.src) == np.take(result, target, axis=0)).reshape(len(target), -1)
    more = int(np.count_nonzero(equal)) - classes.reached * own.shape[1]
    if more == 0:
        return TouchCount(found.op, x.size, 0, 0)
    if not len(classes.starts):
        return None
    within = np.add.reduceat(equal[classes.several], classes.starts, axis=0, dtype=np.int64)
    tied = within > 1
    touched = int(np.count_nonzero(tied))
    if int(within[tied].sum()) - touched != more:
        return None
    return _shared(found, touched, int(within.max()))


# ---------------------------------------------------------------- codes


@dataclass(frozen=True, eq=False)
class RowCodes:
    """Codes of rows, with all that they rest on beside the operations and their wiring.

    Attributes:
        codes: (rows,) codes; None where all rows are different.
        arguments: Of the operations that were asked, by position.
        indices: The entries of the indices that pick rows, by slot.
        biases: Whether what is added to a product has one dimension, by slot.
    """

    codes: NDArray[np.uint64] | None
    arguments: Mapping[int, tuple[Any, ...]]
    indices: Mapping[int, NDArray[np.int64]]
    biases: Mapping[int, bool]
    _classes: list[Classes] = field(default_factory=list)  # the last ones asked for

    def classes_of(self, target: NDArray[np.int64], places: int) -> Classes:
        """The classes of rows that go to these of so many places."""
        known = self._classes
        if not (
            known and len(known[0].apart) == places and np.array_equal(known[0].target, target)
        ):
            known[:] = [Classes.of(target, self.codes, places)]
        return known[0]

    def hold(self, graph: Graph) -> bool:
        """Whether another run of the program has the same ones."""
        trace = graph.trace
        for position, args in self.arguments.items():  # in every step: without generators
            own = bare_op(trace, position).args
            if own is not args and repr(own) != repr(args):
                return False  # to the type and to the sign of a zero
        for slot, flat in self.biases.items():
            if (tensor_at(trace, slot).dim() == 1) is not flat:
                return False
        for slot, index in self.indices.items():
            tensor = tensor_at(trace, slot)
            if not (tensor.is_cpu and np.array_equal(array_of(tensor), index)):
                return False
        return True


def _known_codes(graph: Graph, position: int, source: int) -> RowCodes:
    """Codes of what a reduction reduces, which an earlier run may have told."""
    known = graph.rows.get(position)
    if known is None or not known.hold(graph):
        coding = _Coding(graph)
        codes = coding.of_argument(position, source, _DEEP)
        known = RowCodes(codes, coding.arguments, coding.indices, coding.biases)
        graph.rows[position] = known
    return known


class _Coding:
    """Codes rows, and notes what the codes rest on."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self.arguments: dict[int, tuple[Any, ...]] = {}
        self.indices: dict[int, NDArray[np.int64]] = {}
        self.biases: dict[int, bool] = {}

    def of_argument(self, position: int, argument: int, left: int) -> NDArray[np.uint64] | None:
        """(rows,) codes of an argument; None where all rows are different."""
        args = self.arguments[position] = self._graph.trace.ops[position].args
        value = args[argument] if argument < len(args) else None
        return self._of(position, value, left) if isinstance(value, Ref) else None

    def _of(self, position: int, value: Ref, left: int) -> NDArray[np.uint64] | None:
        maker = self._graph.makers[position].get(value.slot)
        if maker is None or left == 0:
            return None
        op = self._graph.trace.ops[maker]
        self.arguments[maker] = op.args
        name, args, left = op.short_name, op.args, left - 1
        if op.outputs != (value.slot,) or op.kwargs:
            return None
        if name in ("index", "index_select"):
            return self._picked(maker, left)
        if name == "cat" and len(args) > 1 and args[1] > 0:
            parts = [self._of(maker, ref, left) for ref in args[0]]
            known = [p for p in parts if p is not None]
            return _joined(known) if len(known) == len(parts) else None
        if name == "addmm" and len(args) == 3 and self._is_bias(maker):
            return self.of_argument(maker, 1, left)
        if name in _OF_TWO and len(args) > 1 and isinstance(args[1], Ref):
            both = [self._of(maker, ref, left) for ref in args[:2]]
            known = [b for b in both if b is not None]
            # What is broadcast aligns the last dimensions: equal rows of both make equal rows.
            same = len(known) == len(both) and len(known[0]) == len(known[1])
            return _joined(known) if same else None
        numbers = all(not isinstance(a, (Ref, list, tuple)) for a in args[1:])
        along = name in _ALONG and len(args) > 1 and isinstance(args[1], int) and args[1] > 0
        kept = name == "mm" or along
        by_entry = numbers and (name in _UNARY or name in _WITH_NUMBER)
        return self.of_argument(maker, 0, left) if kept or by_entry else None

    def _picked(self, position: int, left: int) -> NDArray[np.uint64] | None:
        """Codes of rows that are picked by a constant index."""
        op = self._graph.trace.ops[position]
        given: Any = op.args[1]
        if op.short_name == "index_select":
            if op.args[1] != 0:
                return None
            given = [op.args[2]]
        if len(given) != 1 or not isinstance(given[0], Ref):
            return None
        external = self._graph.trace.externals.get(given[0].slot)
        if (
            external is None
            or external.origin is not Origin.CONSTANT
            or external.snapshot is not None
        ):
            return None
        index = external.tensor
        if index.dtype != torch.int64 or index.dim() != 1 or index.device.type != "cpu":
            return None
        places = array_of(index)
        self.indices[given[0].slot] = places.copy()
        below = self.of_argument(position, 0, left)
        if below is None:
            own: NDArray[np.uint64] = mix(places.astype(np.uint64))
            return own
        inside = len(places) == 0 or (int(places.min()) >= 0 and int(places.max()) < len(below))
        return below[places] if inside else None

    def _is_bias(self, position: int) -> bool:
        """Whether what is added to a product of matrices is the same for all rows."""
        row = self._graph.trace.ops[position].args[0]
        external = self._graph.trace.externals.get(row.slot) if isinstance(row, Ref) else None
        if external is None:
            return False
        flat = self.biases[external.slot] = external.tensor.dim() == 1
        return flat


def _joined(parts: list[NDArray[np.uint64]]) -> NDArray[np.uint64]:
    total = np.zeros_like(parts[0])
    for part in parts:
        total = mix(total * _ODD + mix(part))
    return total
