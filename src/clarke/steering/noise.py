"""Random relative errors in a replay: what rounding can do to a gradient, found by doing it.

Every floating point value that an operation reads, and every adjoint that it passes back, is
changed by a random number of the size of its rounding in the type that the program used there. The
errors of the elements of a sum stand for those of its partial sums, and the errors of each use of a
value for those of the uses. As for real roundings, equal values have equal errors in one operation:
a thousand equal terms do not cancel theirs. A part of the errors goes one way for all elements: a
mean that BatchNorm takes off is rounded once for all of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from clarke.capture import Ref, input_slots
from clarke.numerics import (
    RANDOM_BITS,
    SINGLE_CONSTANTS,
)
from clarke.steering.cancelling import ELEMENTWISE, WHOLE
from clarke.steering.memory import aliases, shared_memory

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

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

# Products of two tensors that add up many terms, in whatever order the library finds fastest.
_PRODUCTS = (
    *("mm", "bmm", "addmm", "baddbmm", "addbmm", "mv", "addmv", "dot", "vdot", "matmul", "linear"),
    *("convolution", "_convolution", "mkldnn_convolution", "convolution_overrideable"),
    *("bilinear", "_trilinear", "einsum", "tensordot", "inner", "_euclidean_dist", "cdist"),
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

    def __init__(self, trace: Trace, errors: Errors, sizes: Mapping[int, int]) -> None:
        self._sizes = sizes
        self._errors = errors
        self._trace = trace
        self._generator = torch.Generator().manual_seed(errors.seed)
        self._root = shared_memory(trace)
        self._written = frozenset(
            self._root.get(slot, slot) for op in trace.ops for slot in _written(op)
        )
        self._uses: dict[int, int] = {}
        for op in trace.ops:
            for slot in input_slots(op):
                self._uses[slot] = self._uses.get(slot, 0) + 1
        self._key = 0
        self._behind: _Behind | None = None

    def of(self, op: OpRecord, call: Call) -> Call:
        """An operation's call with errors in what it reads and in the adjoints that it returns."""
        if self._is_discrete(op):
            return call  # whole numbers are exact: an error would make 1 a 0 where they are cast
        many = _additions(op, call)
        ahead, back = self._lengths(op)
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
                own = self._units(op, reference.slot, many, ahead, back(reference.slot))
                return self._apply(value, *own, forward=not looks)
            if isinstance(reference, (list, tuple)) and reference:
                found = [put(r, v) for r, v in zip(reference, value, strict=True)]
                return type(value)(found)
            return value

        args = tuple(put(r, v) for r, v in zip(op.args, call.args, strict=True))
        kwargs = {k: put(op.kwargs.get(k), v) for k, v in call.kwargs.items()}
        self._behind = None
        if op.short_name in WHOLE and args[0].requires_grad:
            self._behind = _Behind()
            args = (_Added.apply(args[0], self._behind), *args[1:])
        return type(call)(call.func, args, kwargs)

    def after(self, op: OpRecord, call: Call, out: Any) -> None:
        """Errors of derivative formulas in which digits cancel; see `cancelling`."""
        result = out[0] if isinstance(out, (list, tuple)) else out
        if not isinstance(result, torch.Tensor) or not result.requires_grad:
            return
        elementwise = ELEMENTWISE.get(op.short_name) or ELEMENTWISE.get(op.short_name.rstrip("_"))
        if elementwise is None and self._behind is None:
            return
        error, value = self._error_of_terms(op), result.detach()
        if elementwise is not None:
            sizes = elementwise(value).nan_to_num(0.0, 0.0, 0.0)
            result.register_hook(lambda adjoint: adjoint * (1 + error(sizes)))
            return
        behind, terms = self._behind, WHOLE[op.short_name]

        def found(adjoint: torch.Tensor) -> None:
            if behind is not None:
                behind.errors.append(error(terms(call, value, adjoint.detach())))

        result.register_hook(found)

    def _error_of_terms(self, op: OpRecord) -> Callable[[torch.Tensor], torch.Tensor]:
        """A rounding of each of some sizes; where signs are turned, the sizes themselves."""
        if self._errors.signs:
            return self._turned
        own = torch.float64 if self._errors.double else self._result_dtype(op)
        key = self._key = self._key + 2
        change = self._rounding(key, unit_roundoff(own) * self._errors.size, 0.0, 0.0)
        return lambda sizes: change(sizes) - sizes

    def _result_dtype(self, op: OpRecord) -> torch.dtype:
        kind = None if op.outputs[0] is None else self._trace.slot_dtypes.get(op.outputs[0])
        return kind if kind is not None and kind.is_floating_point else torch.float64

    def _is_discrete(self, op: OpRecord) -> bool:
        """Whether an operation gives integers or truth values alone."""
        kinds = [self._trace.slot_dtypes.get(s) for s in op.outputs if s is not None]
        return bool(kinds) and all(
            k is not None and not (k.is_floating_point or k.is_complex) for k in kinds
        )

    def _may_copy(self, op: OpRecord, slot: int) -> bool:
        """Whether a view may be taken of a copy, and needs to be, for the sum of its adjoints."""
        apart = self._root.get(slot, slot) not in self._written
        return apart and self._uses[slot] > 2 and op.short_name != "as_strided"

    def _write(self, op: OpRecord, slot: int, target: torch.Tensor) -> None:
        """Errors in memory that the operation goes on to change."""
        if not (target.is_leaf and target.requires_grad) and not self._errors.signs:
            own = self._units(op, slot, 1.0, 1.0, 1.0)
            target.copy_(self._apply(target.clone(), *own, forward=True))

    def _lengths(self, op: OpRecord) -> tuple[float, Callable[[int], float]]:
        """How many terms the entries of a product add up, and those of each adjoint.

        ``(m, k) @ (k, n)`` adds up k terms: the root of the sizes of both, over the result's.
        """
        if op.short_name.rstrip("_") not in _PRODUCTS:
            return 1.0, lambda _: 1.0
        sizes = {s: self._sizes.get(s, 1) for s in input_slots(op)}
        result = max((self._sizes.get(s, 1) for s in op.outputs if s is not None), default=1)
        factors = sorted(sizes.values())[-2:]
        whole = math.prod(factors) / max(result, 1)

        def back(slot: int) -> float:
            own = max(sizes.get(slot, 1), 1)
            others = sorted([*sizes.values(), result])
            others.remove(sizes.get(slot, 1))
            return math.sqrt(math.prod(others[-2:]) / own)

        return math.sqrt(max(whole, 1.0)), back

    def _units(
        self, op: OpRecord, slot: int, many: float, ahead: float, back: float
    ) -> tuple[float, float, float, float]:
        """Relative errors of a value and of its adjoint, the part in common, the absolute error.

        Args:
            op: What reads the value.
            slot: The value.
            many: Terms that are added up one by one, in the type of the values.
            ahead: Terms that are added up in a type no coarser than float32, forward.
            back: The same for the adjoint.
        """
        own = torch.float64 if self._errors.double else self._dtype(op, slot)
        unit, least = unit_roundoff(own), 0.0 if self._errors.double else smallest(own)
        inner = unit_roundoff(torch.float32) if own in _HALF else unit
        # What no operation of the program made is not rounded; sums of it are, where they are made.
        value = inner if slot in self._trace.externals else unit
        if op.short_name.rstrip("_") in _SINGLE or op.stands_for.rstrip("_") in _SINGLE:
            value, unit = max(value, SINGLE_CONSTANTS), max(unit, SINGLE_CONSTANTS)
        # Rounding every partial sum of n terms of either sign is an error of sqrt(n / 2) in each.
        value = max(value, inner * math.sqrt(ahead / 2), unit * many / 2 if many > 2 else 0.0)
        # The adjoints of several uses are added up one by one.
        adjoint = unit * max(1.0, self._uses.get(slot, 1) / 2, many / 2)
        return value, max(adjoint, inner * math.sqrt(back / 2)), inner, least

    def _apply(
        self,
        value: torch.Tensor,
        ahead: float,
        back: float,
        common: float,
        least: float,
        *,
        forward: bool,
    ) -> torch.Tensor:
        if self._errors.signs:
            return _Changed.apply(value, _same, self._turned) if value.requires_grad else value
        size = self._errors.size
        key = self._key = self._key + 2
        common, least = common * size, least * size
        change = self._rounding(key, ahead * size, common, least) if forward else _same
        if not value.requires_grad:
            return change(value)
        found: torch.Tensor = _Changed.apply(
            value, change, self._rounding(key + 1, back * size, common, least)
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
        self, key: int, unit: float, common: float, least: float
    ) -> Callable[[torch.Tensor], torch.Tensor]:
        mixed = ((self._errors.seed * _SECOND + key) * _FIRST) & _MASK
        side = common if (mixed >> 40) & 1 else -common

        def rounded(value: torch.Tensor) -> torch.Tensor:
            if value.is_complex():
                return torch.view_as_complex(rounded(torch.view_as_real(value).contiguous()))
            bits = value.detach().to(torch.float64).view(torch.int64) >> _KEPT
            bits = bits.bitwise_xor_(mixed).mul_(_FIRST)
            bits = bits.bitwise_xor_(bits >> 29).mul_(_SECOND)
            random = bits.to(torch.float64).mul_(unit * RANDOM_BITS)
            # What an operation computes once for all elements, as a mean, is off for all alike.
            error = random * value + side * value.abs()
            if least:
                error += random * (value != 0) * (least / unit)
            return error.add_(value)

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


class _Behind:
    """Errors that an operation's derivative leaves, known once its result's adjoint is."""

    def __init__(self) -> None:
        self.errors: list[torch.Tensor] = []


class _Added(torch.autograd.Function):
    """A value whose adjoint has errors added to it."""

    @staticmethod
    def forward(ctx: Any, value: torch.Tensor, behind: _Behind) -> torch.Tensor:
        ctx.behind = behind
        return value.detach().clone()

    @staticmethod
    def backward(ctx: Any, *adjoints: torch.Tensor) -> tuple[torch.Tensor, None]:
        found = adjoints[0]
        for error in ctx.behind.errors:
            found = found + error
        return found, None


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
    place = torch.zeros((), dtype=torch.int64)
    for index in torch.broadcast_tensors(*indices):
        low, high = index.aminmax()
        place = place * (high - low + 1) + (index - low)
    ordered = place.reshape(-1).sort().values
    return float(ordered.unique_consecutive(return_counts=True)[1].max())


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
