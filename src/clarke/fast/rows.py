"""Rows that are one and the same function of the variables: codes of the first dimension.

Two edges between the same nodes of a graph carry one message twice, and the largest message is
then attained twice: a tie between a function and itself, which is none. Equal codes mean that the
rows are computed in the same way from the same rows. What is not known to work row by row makes all
rows different.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch

from clarke.capture import Origin, Ref
from clarke.decide import TouchCount
from clarke.fast.codes import mix

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from clarke.fast.graph import Graph
    from clarke.kinks.table_scattered import Attained

# Of one argument that is no number, entry by entry.
_UNARY: Final = frozenset(
    {"relu", "tanh", "sigmoid", "exp", "neg", "abs", "gelu", "elu", "silu", "leaky_relu"}
    | {"softplus", "hardtanh", "hardsigmoid", "hardswish", "square", "sin", "cos", "detach"}
)
_WITH_NUMBER: Final = frozenset({"add", "sub", "mul", "div", "pow", "clamp"})
_DEEP: Final = 64  # operations that are followed
_ODD: Final = np.uint64(0x9E3779B97F4A7C15)
_PAIR: Final = 2


def same_rows(graph: Graph, position: int, found: Attained, source: int) -> TouchCount | None:
    """The count of a reduction by index whose ties are all between equal rows; None if not.

    Args:
        graph: The trace.
        position: The reduction.
        found: What attains its results.
        source: Position of the argument with the rows that are reduced.
    """
    count = found.count
    tied = count > 1
    touched = int(tied.count_nonzero())
    if not touched:
        return TouchCount(found.op, count.numel(), 0, 0)
    if found.dim != 0 or graph.writes:
        return None
    codes = _codes(graph, position, source, _DEEP)
    if codes is None or len(codes) < found.index.shape[0]:
        return None
    # Of what attains a result: its row, and which result.
    wide, narrow = count.shape[1:], found.equal.shape[1:]
    at = np.flatnonzero(found.equal.numpy())
    row, column = np.divmod(at, narrow.numel())
    if narrow != wide:
        column = np.ravel_multi_index(np.unravel_index(column, narrow), wide)
    key = found.index.reshape(-1).numpy()[at] * wide.numel() + column
    among = tied.reshape(-1).numpy()[key]
    key, own = key[among], codes[row[among]]
    order = np.argsort(key, kind="stable")
    key, own = key[order], own[order]
    if not bool(((key[1:] != key[:-1]) | (own[1:] == own[:-1])).all()):
        return None
    many = "both" if float(count.max()) == _PAIR else "all"
    choice = f"autograd shared the slope equally among {many} tied elements"
    return TouchCount(found.op, count.numel(), touched, 0, choice=choice)


def _codes(graph: Graph, position: int, argument: int, left: int) -> NDArray[np.uint64] | None:
    """(rows,) codes of an argument; None where all rows are different."""
    args = graph.trace.ops[position].args
    value = args[argument] if argument < len(args) else None
    return _of(graph, position, value, left) if isinstance(value, Ref) else None


def _of(graph: Graph, position: int, value: Ref, left: int) -> NDArray[np.uint64] | None:
    maker = graph.makers[position].get(value.slot)
    if maker is None or left == 0:
        return None
    op = graph.trace.ops[maker]
    name, args, left = op.short_name, op.args, left - 1
    if op.outputs != (value.slot,) or op.kwargs:
        return None
    if name in ("index", "index_select"):
        return _picked(graph, maker, left)
    if name == "cat" and len(args) > 1 and args[1] > 0:
        parts = [_of(graph, maker, ref, left) for ref in args[0]]
        known = [p for p in parts if p is not None]
        return _joined(known) if len(known) == len(parts) else None
    if name == "addmm" and len(args) == 3 and _is_bias(graph, maker):
        return _codes(graph, maker, 1, left)
    numbers = all(not isinstance(a, (Ref, list, tuple)) for a in args[1:])
    kept = name == "mm" or (name == "slice" and len(args) > 1 and args[1] > 0)
    by_entry = numbers and (name in _UNARY or name in _WITH_NUMBER)
    return _codes(graph, maker, 0, left) if kept or by_entry else None


def _joined(parts: list[NDArray[np.uint64]]) -> NDArray[np.uint64]:
    total = np.zeros_like(parts[0])
    for part in parts:
        total = mix(total * _ODD + mix(part))
    return total


def _picked(graph: Graph, position: int, left: int) -> NDArray[np.uint64] | None:
    """Codes of rows that are picked by a constant index."""
    op = graph.trace.ops[position]
    given: Any = op.args[1]
    if op.short_name == "index_select":
        if op.args[1] != 0:
            return None
        given = [op.args[2]]
    if len(given) != 1 or not isinstance(given[0], Ref):
        return None
    external = graph.trace.externals.get(given[0].slot)
    if external is None or external.origin is not Origin.CONSTANT or external.snapshot is not None:
        return None
    index = external.tensor
    if index.dtype != torch.int64 or index.dim() != 1 or index.device.type != "cpu":
        return None
    places = index.detach().numpy()
    below = _codes(graph, position, 0, left)
    if below is None:
        own: NDArray[np.uint64] = mix(places.astype(np.uint64))
        return own
    inside = len(places) == 0 or (int(places.min()) >= 0 and int(places.max()) < len(below))
    return below[places] if inside else None


def _is_bias(graph: Graph, position: int) -> bool:
    """Whether what is added to a product of matrices is the same for all rows."""
    row = graph.trace.ops[position].args[0]
    external = graph.trace.externals.get(row.slot) if isinstance(row, Ref) else None
    return external is not None and external.tensor.dim() == 1
