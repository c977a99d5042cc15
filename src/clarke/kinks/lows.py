"""Which tensors are positive, or not negative, whatever the variables are."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Any

import torch

from clarke.capture import OpRecord, Origin, Ref, Trace, input_slots
from clarke.kinks.facts import MOVES, PARTS, words

if TYPE_CHECKING:
    from collections.abc import Sequence


class Low(IntEnum):
    """A lower bound on all entries of a tensor, whatever the variables are."""

    UNKNOWN = 0
    NONNEGATIVE = 1
    POSITIVE = 2


_KEEP = (
    MOVES
    | PARTS
    | words(
        "sum mean _to_copy sqrt cumsum index index_select max_pool2d_with_indices "
        "max_pool3d_with_indices amax amin max min cat stack"
    )
)
_POSITIVE = words("exp exp2 sigmoid _softmax rsqrt softplus cosh")
_NONNEGATIVE = words("relu abs hardsigmoid var sigmoid square linalg_vector_norm std")
SAFE_WHERE_POSITIVE = words("sqrt rsqrt log log2 log10 reciprocal")


def lower_bound(op: OpRecord, lows: Sequence[Low]) -> Low:
    """A bound on the first result, from bounds on the tensors that the operation reads."""
    if op.hidden_write:
        return Low.UNKNOWN
    name = op.short_name.removesuffix("_")
    least = min(lows, default=Low.UNKNOWN)
    if name in _POSITIVE:
        return Low.POSITIVE
    if name in _NONNEGATIVE:
        # Lower bounds survive only where the operation is the identity on positive numbers.
        return Low.POSITIVE if name == "relu" and least is Low.POSITIVE else Low.NONNEGATIVE
    if name in _KEEP:
        return least
    if name == "pow" and len(op.args) > 1 and isinstance(op.args[1], (int, float)):
        return _power(op.args[1], least)
    if name in ("mul", "div"):
        return _product(op, lows, name)
    if name == "add" and op.kwargs.get("alpha", 1) == 1:
        return _sum(op, lows)
    if name in ("clamp_min", "clamp", "hardtanh"):
        return _clamped(op, least)
    return Low.UNKNOWN


def _clamped(op: OpRecord, low: Low) -> Low:
    bounds = [*op.args[1:], *op.kwargs.values()]
    if not bounds or not all(b is None or isinstance(b, (int, float)) for b in bounds):
        return Low.UNKNOWN
    known = [b for b in bounds if b is not None]  # an upper bound below the lower one wins
    if not known or min(known) < 0:
        return Low.UNKNOWN
    if bounds[0] is None:
        return low if min(known) > 0 else min(low, Low.NONNEGATIVE)
    return Low.POSITIVE if min(known) > 0 else Low.NONNEGATIVE


def _power(exponent: float, low: Low) -> Low:
    if exponent == int(exponent) and int(exponent) % 2 == 0 and exponent > 0:
        return max(Low.NONNEGATIVE, low)
    return low if exponent > 0 or low is Low.POSITIVE else Low.UNKNOWN


def _product(op: OpRecord, lows: Sequence[Low], name: str) -> Low:
    a, b = op.args[0], op.args[1]
    if isinstance(a, Ref) and isinstance(b, Ref):
        if name == "mul" and a.slot == b.slot:
            return max(Low.NONNEGATIVE, lows[0])
        if name == "div" and lows[-1] is not Low.POSITIVE:
            return Low.UNKNOWN
        return min(lows)
    number: Any = b if isinstance(a, Ref) else a
    if isinstance(number, (int, float)) and number > 0:
        return lows[0]
    return Low.UNKNOWN


def _sum(op: OpRecord, lows: Sequence[Low]) -> Low:
    if len(lows) == 2:
        return max(lows) if min(lows) is not Low.UNKNOWN else Low.UNKNOWN
    number: Any = op.args[1] if isinstance(op.args[0], Ref) else op.args[0]
    if not isinstance(number, (int, float)) or number < 0 or not lows:
        return Low.UNKNOWN
    if number > 0 and lows[0] is not Low.UNKNOWN:
        return Low.POSITIVE
    return lows[0]


def power_is_analytic(op: OpRecord) -> bool:
    """Whether a power has a constant natural exponent."""
    exponent = op.args[1] if len(op.args) > 1 else None
    return isinstance(exponent, (int, float)) and exponent >= 0 and exponent == int(exponent)


class Lows:
    """Follows lower bounds through a trace, in evaluation order.

    Nothing is said of memory that is written to: the bound may be that of what stood there. Where
    other tensors show that memory, nothing is said of the program.
    """

    def __init__(self, trace: Trace) -> None:
        self._known: dict[int, Low] = {}
        self._written = _written(trace)
        for e in trace.externals.values():
            plain = e.origin is Origin.CONSTANT and not (e.stopped or e.cut_by or e.rewritten)
            comparable = e.tensor.is_floating_point() and e.tensor.layout is torch.strided
            unwritten = self._written is not None and e.slot not in self._written
            unwritten = unwritten and e.snapshot is None  # nor what lies in the same memory
            if plain and unwritten and comparable and bool((e.tensor >= 0).all()):
                self._known[e.slot] = Low.NONNEGATIVE

    def follow(self, op: OpRecord) -> None:
        """Note the bound of what an operation returns."""
        if self._written is None or not op.outputs or op.outputs[0] is None:
            return
        if op.outputs[0] in self._written:
            return
        lows = [self._known.get(s, Low.UNKNOWN) for s in input_slots(op)]
        self._known[op.outputs[0]] = lower_bound(op, lows)

    def is_tame_power(self, op: OpRecord) -> bool:
        """Whether an operation is a power above 1 of what is never negative: flat at 0."""
        base = op.args[0] if op.short_name == "pow" else None
        exponent = op.args[1] if len(op.args) > 1 else None
        if not isinstance(base, Ref) or not isinstance(exponent, (int, float)):
            return False
        return exponent > 1 and self._known.get(base.slot, Low.UNKNOWN) >= Low.NONNEGATIVE


def _written(trace: Trace) -> frozenset[int] | None:
    """Slots that operations write to; None where other slots may show the same memory."""
    found: set[int] = set()
    for op in trace.ops:
        first = op.args[0] if op.args else None
        if op.hidden_write:
            return None
        if op.short_name.endswith("_"):
            if not isinstance(first, Ref) or set(op.outputs) - {first.slot}:
                return None
            found.add(first.slot)
    if found and any(_shows(op, found) for op in trace.ops):
        return None
    return frozenset(found)


def _shows(op: OpRecord, slots: set[int]) -> bool:
    """Whether an operation returns a view of one of these, or one of these as a view."""
    given = [a.alias_info for a in op.func._schema.arguments]
    if not any(a is not None and not a.is_write for a in given):
        return False
    return not slots.isdisjoint((*input_slots(op), *op.outputs))
