"""Random relative errors in a replay: what rounding can do to a gradient, found by doing it.

Every floating point value that an operation reads, and every adjoint that it passes back, is
multiplied by one plus a random number of the size of a rounding in the type that the program used
there. The errors of the elements of a sum stand for those of its partial sums, and the errors of
each use of a value for those of the uses. As for real roundings, equal values have equal errors in
one operation: a thousand equal terms do not cancel theirs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from clarke.capture import Ref, input_slots
from clarke.numerics import SINGLE_CONSTANTS
from clarke.steering.memory import aliases, shared_memory

if TYPE_CHECKING:
    from collections.abc import Callable

    from clarke.capture import OpRecord, Trace
    from clarke.kinks import Call

_KEPT = 20  # low bits of a float64 that do not tell two values apart
_FIRST, _SECOND = 0x1F3D5B79A3C4E685, 0x2545F4914F6CDD1D  # odd, of random bits (a hash)
_MASK = (1 << 63) - 1
_HALF = (torch.float16, torch.bfloat16)
# Kernels that compute with constants rounded to float32 in every type (measured on torch 2.13).
_SINGLE = frozenset({"hardsigmoid"})
# Kernels that add up the terms of equal indices one after the other, in the type of the values
# (measured likewise: of 4096 ones in bfloat16 they make 256).
_ONE_BY_ONE = frozenset(
    {"index", "index_add", "index_put", "embedding", "take", "put", "unfold", "embedding_bag"}
)


@dataclass(frozen=True)
class Errors:
    """Which errors to make.

    Attributes:
        seed: Of the random numbers.
        size: Multiple of a rounding; from it the effect of one rounding is extrapolated.
        double: Take all types for float64: the errors of a replay, not those of the program.
        signs: Turn the signs of adjoints at random instead, which adds up the terms of every
            entry without regard to their signs.
    """

    seed: int
    size: float = 1.0
    double: bool = False
    signs: bool = False


def unit_roundoff(dtype: torch.dtype) -> float:
    """The largest relative error of one rounding."""
    return torch.finfo(dtype).eps / 2


def smallest(dtype: torch.dtype) -> float:
    """The spacing of the numbers around zero: the absolute error of a product that vanishes."""
    info = torch.finfo(dtype)
    return info.smallest_normal * info.eps


class Noise:
    """The errors of one replay; see the module."""

    def __init__(self, trace: Trace, errors: Errors) -> None:
        self._errors = errors
        self._trace = trace
        self._generator = torch.Generator().manual_seed(errors.seed)
        self._root = shared_memory(trace.ops)
        self._written = frozenset(
            self._root.get(slot, slot) for op in trace.ops for slot in _written(op)
        )
        self._uses: dict[int, int] = {}
        for op in trace.ops:
            for slot in input_slots(op):
                self._uses[slot] = self._uses.get(slot, 0) + 1
        self._key = 0

    def of(self, op: OpRecord, call: Call) -> Call:
        """An operation's call with errors in what it reads and in the adjoints that it returns."""
        many = _additions(op, call)
        looks = aliases(op) and not op.short_name.endswith("_")  # a view: nothing is rounded
        targets = _written(op)

        def put(reference: Any, value: Any) -> Any:
            if isinstance(reference, Ref):
                if not isinstance(value, torch.Tensor) or not _is_floating(value):
                    return value
                if looks and not self._may_copy(op, reference.slot):
                    return value
                if reference.slot in targets:
                    self._write(op, reference.slot, value)
                    return value
                return self._apply(op, reference.slot, value, many, forward=not looks)
            if isinstance(reference, (list, tuple)) and reference:
                found = [put(r, v) for r, v in zip(reference, value, strict=True)]
                return type(value)(found)
            return value

        args = tuple(put(r, v) for r, v in zip(op.args, call.args, strict=True))
        kwargs = {k: put(op.kwargs.get(k), v) for k, v in call.kwargs.items()}
        return type(call)(call.func, args, kwargs)

    def _may_copy(self, op: OpRecord, slot: int) -> bool:
        """Whether a view may be taken of a copy, and needs to be, for the sum of its adjoints."""
        apart = self._root.get(slot, slot) not in self._written
        return apart and self._uses[slot] > 2 and op.short_name != "as_strided"

    def _write(self, op: OpRecord, slot: int, target: torch.Tensor) -> None:
        """Errors in memory that the operation goes on to change."""
        if not (target.is_leaf and target.requires_grad) and not self._errors.signs:
            target.copy_(self._apply(op, slot, target.clone(), 1.0, forward=True))

    def _apply(
        self, op: OpRecord, slot: int, value: torch.Tensor, many: float, *, forward: bool
    ) -> torch.Tensor:
        if self._errors.signs:
            return _Changed.apply(value, _same, self._turned) if value.requires_grad else value
        own = torch.float64 if self._errors.double else self._dtype(op, slot)
        unit, least = unit_roundoff(own), 0.0 if self._errors.double else smallest(own)
        # What no operation of the program made is not rounded; sums of it are, where they are made.
        fresh = slot in self._trace.externals and own in _HALF
        ahead = unit_roundoff(torch.float32) if fresh else unit
        if op.short_name.rstrip("_") in _SINGLE or op.stands_for.rstrip("_") in _SINGLE:
            ahead, unit = max(ahead, SINGLE_CONSTANTS), max(unit, SINGLE_CONSTANTS)
        # The adjoints of several uses are added up one by one: that rounds every partial sum.
        back = unit * max(1.0, self._uses.get(slot, 1) / 2, many / 2)
        ahead = ahead if many <= 2 else max(ahead, unit * many / 2)
        size = self._errors.size
        key = self._key = self._key + 2
        change = self._rounding(key, ahead * size, least * size) if forward else _same
        if not value.requires_grad:
            return change(value)
        found: torch.Tensor = _Changed.apply(
            value, change, self._rounding(key + 1, back * size, least * size)
        )
        return found

    def _dtype(self, op: OpRecord, slot: int) -> torch.dtype:
        found = self._trace.slot_dtypes.get(slot)
        if found is not None and found.is_floating_point:
            return found
        if found is not None and found.is_complex:
            return torch.float32 if found == torch.complex64 else torch.float64
        kinds = [self._trace.slot_dtypes.get(s) for s in (*input_slots(op), *op.outputs) if s]
        floats = [k for k in kinds if k is not None and k.is_floating_point]
        return max(floats, key=lambda k: torch.finfo(k).eps, default=torch.float64)

    def _turned(self, adjoint: torch.Tensor) -> torch.Tensor:
        signs = torch.randint(0, 2, adjoint.shape, generator=self._generator)
        return adjoint * (2 * signs - 1).to(adjoint.device)

    def _rounding(
        self, key: int, unit: float, least: float
    ) -> Callable[[torch.Tensor], torch.Tensor]:
        mixed = ((self._errors.seed * _SECOND + key) * _FIRST) & _MASK

        def rounded(value: torch.Tensor) -> torch.Tensor:
            if value.is_complex():
                return torch.view_as_complex(rounded(torch.view_as_real(value).contiguous()))
            bits = value.detach().to(torch.float64).contiguous().view(torch.int64) >> _KEPT
            bits = (bits ^ mixed) * _FIRST
            bits = (bits ^ (bits >> 29)) * _SECOND
            random = (bits ^ (bits >> 32)).to(torch.float64) * 2.0**-63
            error = random * (unit * value.abs() + least * (value != 0))
            return value + error.to(value.dtype)

        return rounded


class _Changed(torch.autograd.Function):
    """A value and its adjoint, each with errors."""

    @staticmethod
    def forward(ctx: Any, value: torch.Tensor, ahead: Any, back: Any) -> torch.Tensor:
        ctx.back = back
        found: torch.Tensor = ahead(value.detach())
        return found.clone() if ahead is _same else found

    @staticmethod
    def backward(ctx: Any, *adjoints: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        return ctx.back(adjoints[0]), None, None


def _same(value: torch.Tensor) -> torch.Tensor:
    return value


def _additions(op: OpRecord, call: Call) -> float:
    """How many terms an operation, or its derivative, adds up one by one."""
    if op.short_name.rstrip("_") not in _ONE_BY_ONE:
        return 1.0
    if op.short_name == "unfold":
        return float(call.args[2])
    given = [i for a in call.args for i in (a if isinstance(a, (list, tuple)) else (a,))]
    indices = [i for i in given if isinstance(i, torch.Tensor) and i.dtype == torch.int64]
    if not indices or not all(i.numel() for i in indices):
        return 1.0
    places = torch.stack([i.reshape(-1) for i in torch.broadcast_tensors(*indices)])
    return float(places.unique(dim=1, return_counts=True)[1].max())


def _is_floating(value: torch.Tensor) -> bool:
    return value.is_floating_point() or value.is_complex()


def _written(op: OpRecord) -> tuple[int, ...]:
    """Slots of the tensors that an operation changes in place."""
    found = []
    for declared, value in zip(op.func._schema.arguments, op.args, strict=False):
        alias = declared.alias_info
        if alias is not None and alias.is_write and isinstance(value, Ref):
            found.append(value.slot)
    return tuple(found)
