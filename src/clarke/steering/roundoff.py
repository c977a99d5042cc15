"""How large the roundings of an operation are: in what it reads, and in the adjoints it returns.

What depends on the record alone is found once for all replays of a program, which make errors of
these sizes by the hundreds of thousands (`clarke.steering.noise`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from clarke.capture import Ref, input_slots
from clarke.numerics import SINGLE_CONSTANTS
from clarke.steering.cancelling import ADJOINTS, ELEMENTWISE, WHOLE
from clarke.steering.memory import aliases, shared_memory

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from clarke.capture import OpRecord, Trace
    from clarke.kinks import Call
    from clarke.steering.cancelling import Terms

_HALF = (torch.float16, torch.bfloat16)
# Kernels that compute with constants rounded to float32 in every type (measured on torch 2.13).
_SINGLE = frozenset({"hardsigmoid"})
# Kernels that add up the terms of equal indices one after the other, in the type of the values
# (measured likewise: of 4096 ones in bfloat16 they make 256).
_ONE_BY_ONE = frozenset(
    {"index", "index_add", "index_put", "embedding", "take", "put", "unfold", "_embedding_bag"}
)
# Products of two tensors that add up many terms, in whatever order the library finds fastest.
_PRODUCTS = frozenset(
    (
        *("mm", "bmm", "addmm", "baddbmm", "addbmm", "mv", "addmv", "dot", "vdot", "matmul"),
        *("linear", "convolution", "_convolution", "mkldnn_convolution"),
        *("convolution_overrideable", "bilinear", "_trilinear", "einsum", "tensordot", "inner"),
        *("_euclidean_dist", "cdist"),
    )
)


def unit_roundoff(dtype: torch.dtype) -> float:
    """The largest relative error of one rounding."""
    return torch.finfo(dtype).eps / 2


def coarsest_unit(trace: Trace) -> float:
    """The largest relative error of one rounding of a program, be it of a kernel's constant."""
    kinds = {d for d in trace.slot_dtypes.values() if d.is_floating_point}
    if any(op.short_name.rstrip("_") in _SINGLE for op in trace.ops):
        kinds.add(torch.float32)
    return max(map(unit_roundoff, kinds or {torch.float64}))


def smallest(dtype: torch.dtype) -> float:
    """The spacing of the numbers around zero: the absolute error of a product that vanishes."""
    info = torch.finfo(dtype)
    return info.smallest_normal * info.eps


@dataclass(frozen=True)
class Units:
    """How far roundings move a value that an operation reads, and the adjoint it returns for it.

    Attributes:
        ahead: Relative error of the value.
        back: Relative error of the adjoint.
        common: The part of either that is the same for all elements.
        least: Absolute error of either.
    """

    ahead: float
    back: float
    common: float
    least: float


@dataclass(frozen=True, eq=False)
class Part:
    """What the record tells of the roundings of one operation.

    Attributes:
        exact: It gives integers or truth values alone: an error would make 1 a 0 where they are
            cast.
        looks: It returns a view: nothing is rounded.
        targets: Slots of the tensors that it changes in place.
        copies: Of a view: the slots of which a copy may be viewed instead, and needs to be, for
            the sum of its adjoints.
        elementwise: Terms of its own derivative, by its result (`cancelling`).
        whole: The same, by its arguments and the adjoint of its result.
        formulas: Of how many of its first arguments.
        result: Unit roundoff of its result.
        units: By slot; filled as they are asked for.
    """

    exact: bool
    looks: bool = False
    targets: tuple[int, ...] = ()
    copies: frozenset[int] = frozenset()
    elementwise: Callable[[torch.Tensor], torch.Tensor] | None = None
    whole: Terms | None = None
    formulas: int = 1
    result: float = 0.0
    units: dict[tuple[int, float], Units] = field(default_factory=dict)


class Roundoffs:
    """Sizes of roundings in one program.

    Args:
        trace: What is run.
        sizes: Elements of every tensor, by slot.
        double: Take all types for float64: the errors of a replay, not those of the program.
    """

    def __init__(self, trace: Trace, sizes: Mapping[int, int], *, double: bool) -> None:
        self._trace = trace
        self._sizes = sizes
        self._double = double
        self._root = shared_memory(trace)
        self._written = frozenset(
            self._root.get(slot, slot) for op in trace.ops for slot in _written(op)
        )
        self._uses: dict[int, int] = {}
        for op in trace.ops:
            for slot in input_slots(op):
                self._uses[slot] = self._uses.get(slot, 0) + 1
        self._parts: dict[OpRecord, Part] = {}

    def of(self, op: OpRecord) -> Part:
        """What the record tells of an operation."""
        found = self._parts.get(op)
        if found is None:
            found = self._parts[op] = self._part(op)
        return found

    def units(self, op: OpRecord, slot: int, many: float) -> Units:
        """Errors of a value that an operation reads.

        Args:
            op: What reads the value.
            slot: The value.
            many: Terms that are added up one by one, in the type of the values.
        """
        known = self.of(op).units
        found = known.get((slot, many))
        if found is None:
            found = known[slot, many] = self._units(op, slot, many)
        return found

    def _part(self, op: OpRecord) -> Part:
        kinds = [self._trace.slot_dtypes.get(s) for s in op.outputs if s is not None]
        if kinds and all(
            k is not None and not (k.is_floating_point or k.is_complex) for k in kinds
        ):
            return Part(exact=True)
        looks = aliases(op) and not op.short_name.endswith("_")
        plain = op.short_name.rstrip("_")
        kind = None if op.outputs[0] is None else self._trace.slot_dtypes.get(op.outputs[0])
        floating = kind is not None and kind.is_floating_point
        own = kind if floating and kind is not None and not self._double else torch.float64
        return Part(
            exact=False,
            looks=looks,
            targets=_written(op),
            copies=frozenset(s for s in input_slots(op) if looks and self._may_copy(op, s)),
            elementwise=ELEMENTWISE.get(op.short_name) or ELEMENTWISE.get(plain),
            whole=WHOLE.get(op.short_name),
            formulas=ADJOINTS.get(op.short_name, 1),
            result=unit_roundoff(own),
        )

    def _may_copy(self, op: OpRecord, slot: int) -> bool:
        apart = self._root.get(slot, slot) not in self._written
        return apart and self._uses[slot] > 2 and op.short_name != "as_strided"

    def _lengths(self, op: OpRecord, slot: int) -> tuple[float, float]:
        """How many terms the entries of a product add up, and those of the slot's adjoint.

        ``(m, k) @ (k, n)`` adds up k terms: the root of the sizes of both, over the result's.
        """
        if op.short_name.rstrip("_") not in _PRODUCTS or slot in self.of(op).targets:
            return 1.0, 1.0
        sizes = {s: self._sizes.get(s, 1) for s in input_slots(op)}
        result = max((self._sizes.get(s, 1) for s in op.outputs if s is not None), default=1)
        whole = math.prod(sorted(sizes.values())[-2:]) / max(result, 1)
        own = max(sizes.get(slot, 1), 1)
        others = sorted([*sizes.values(), result])
        others.remove(sizes.get(slot, 1))
        return math.sqrt(max(whole, 1.0)), math.sqrt(math.prod(others[-2:]) / own)

    def _units(self, op: OpRecord, slot: int, many: float) -> Units:
        ahead, back = self._lengths(op, slot)
        own = torch.float64 if self._double else self._dtype(op, slot)
        unit, least = unit_roundoff(own), 0.0 if self._double else smallest(own)
        # Products add up in a type no coarser than float32.
        inner = unit_roundoff(torch.float32) if own in _HALF else unit
        # What no operation of the program made is not rounded; sums of it are, where they are made.
        value = inner if slot in self._trace.externals else unit
        if op.short_name.rstrip("_") in _SINGLE or op.stands_for.rstrip("_") in _SINGLE:
            value, unit = max(value, SINGLE_CONSTANTS), max(unit, SINGLE_CONSTANTS)
        # Rounding every partial sum of n terms of either sign is an error of sqrt(n / 2) in each.
        value = max(value, inner * math.sqrt(ahead / 2), unit * many / 2 if many > 2 else 0.0)
        # The adjoints of several uses are added up one by one.
        adjoint = unit * max(1.0, self._uses.get(slot, 1) / 2, many / 2)
        return Units(value, max(adjoint, inner * math.sqrt(back / 2)), inner, least)

    def _dtype(self, op: OpRecord, slot: int) -> torch.dtype:
        found = self._trace.slot_dtypes.get(slot)
        if found is not None and found.is_floating_point:
            return found
        if found is not None and found.is_complex:
            return torch.float32 if found == torch.complex64 else torch.float64
        kinds = [self._trace.slot_dtypes.get(s) for s in (*input_slots(op), *op.outputs) if s]
        floats = [k for k in kinds if k is not None and k.is_floating_point]
        return max(floats, key=lambda k: torch.finfo(k).eps, default=torch.float64)


def additions(op: OpRecord, call: Call) -> float:
    """How many terms an operation, or its derivative, adds up one by one."""
    if op.short_name.rstrip("_") not in _ONE_BY_ONE:
        return 1.0
    if op.short_name == "unfold":
        return float(call.args[2])
    given = [i for a in call.args for i in (a if isinstance(a, (list, tuple)) else (a,))]
    indices = [i for i in given if isinstance(i, torch.Tensor) and i.dtype == torch.int64]
    if not indices or not all(i.numel() for i in indices):
        return 1.0
    return most_repeated(indices)


def most_repeated(indices: Sequence[torch.Tensor]) -> float:
    """How often the most frequent place stands among indices, one tensor per dimension."""
    place = torch.zeros((), dtype=torch.int64)
    for index in torch.broadcast_tensors(*indices):
        low, high = index.aminmax()
        place = place * (high - low + 1) + (index - low)
    ordered = place.reshape(-1).sort().values
    return float(ordered.unique_consecutive(return_counts=True)[1].max())


def _written(op: OpRecord) -> tuple[int, ...]:
    """Slots of the tensors that an operation changes in place."""
    found = []
    for declared, value in zip(op.func._schema.arguments, op.args, strict=False):
        alias = declared.alias_info
        if alias is not None and alias.is_write and isinstance(value, Ref):
            found.append(value.slot)
    return tuple(found)
