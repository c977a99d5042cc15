"""A program with what its operations rounded as variables behind its own."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch

from clarke.capture import External, OpRecord, Origin, Ref, filled, input_slots, values_again
from clarke.constraints import build_rows, random_tangents
from clarke.decide.tied import largest_candidates
from clarke.errors import ReplayError
from clarke.kinks import Call
from clarke.numerics import ROUNDED_TIE, ROW_VANISHING
from clarke.steering import Program, adapted, analyse

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from clarke.capture import Trace
    from clarke.deadline import Deadline
    from clarke.kinks import Registry

_LOOKS = 3  # random directions along which rows are compared
_BLOCK = 1024
_ADD = torch.ops.aten.addcmul.default
_NOTHING: Mapping[Any, torch.Tensor] = MappingProxyType({})


def _are_opposed(program: Program, kinks: torch.Tensor, before: Sequence[Sequence[int]]) -> bool:
    """Whether two kinks ask for opposite signs of one value that the program computes twice.

    Each time it is rounded anew: of ``relu(x - y) - relu(y - x)`` both are zero at a tie, and
    nobody would call their slopes right. Values of one operation are told apart by its data: two
    windows of a maximum may hold equal patches in another order.

    Args:
        program: The program.
        kinks: (count,) bool, ties of rounding.
        before: By site, in evaluation order, what was rounded next before it.
    """
    rows = build_rows(program, {}, kinks)
    generator = torch.Generator().manual_seed(0)
    one_operation = torch.full((kinks.numel(),), -1)
    for number, (site, own) in enumerate(zip(program.analysis.ordered(), before, strict=True)):
        if len(own) == 1:
            one_operation[site.first : site.first + site.touch.count] = number
    by = one_operation[rows.kinks]
    found = [rows.times(random_tangents(program, generator)) for _ in range(_LOOKS)]
    vectors = torch.stack(found, 1).to(torch.float64)
    sizes = vectors.norm(dim=1, keepdim=True)
    units = torch.where(sizes > 0, vectors / sizes, 0.0)
    values = largest_candidates(program)[rows.kinks]
    for start in range(0, len(units), _BLOCK):
        program.deadline.ask("comparing {} rows", len(units))
        opposed = units[start : start + _BLOCK] @ units.T < ROW_VANISHING - 1
        first, second = opposed.nonzero(as_tuple=True)
        one, other = values[first + start], values[second]
        equal = (one - other).abs() <= ROUNDED_TIE * torch.maximum(one, other)
        apart = (by[first + start] != by[second]) | (by[second] < 0)
        if bool((equal & apart).any()):
            return True
    return False


def with_roundings(program: Program, registry: Registry, kinks: torch.Tensor) -> Program | None:
    """The program with the roundings before some kinks as variables behind its own.

    Args:
        program: The program.
        registry: The rules.
        kinks: (count,) bool, the kinks.

    Returns:
        None where nothing was rounded on the way to them, or where the program writes in place.

    Raises:
        OutOfTimeError: There is not time enough.
    """
    trace = program.analysis.trace
    if trace.applied or any(op.short_name.endswith("_") for op in trace.ops):
        return None
    try:
        values = values_again(trace, program.deadline)
    except (ReplayError, RuntimeError):
        return None
    rounded = _Rounded(trace, values, program.deadline)
    places = {op.index: i for i, op in enumerate(trace.ops)}
    before: list[list[int]] = []  # by site, in evaluation order
    for site in program.analysis.ordered():
        own = kinks[site.first : site.first + site.touch.count]
        before.append(rounded.before(places[site.touch.op.index]) if bool(own.any()) else [])
    slots = list(dict.fromkeys(s for found in before for s in found))
    if not slots or _are_opposed(program, kinks, before):
        return None
    lost = {s: rounded.of[s] for s in slots}
    whole = _behind(program, _Freed(trace, lost), registry)
    for slot, moves in _moving(whole, slots, before, kinks).items():
        lost[slot] &= moves
    lost = {s: gone for s, gone in lost.items() if bool(gone.any())}
    return _behind(program, _Freed(trace, lost), registry) if lost else None


def _behind(program: Program, freed: _Freed, registry: Registry) -> Program:
    """A program with more variables behind its own."""
    variables = (*program.variables, *freed.variables)
    analysis = analyse(freed.trace, registry, program.deadline)
    return Program(analysis, variables, deadline=program.deadline)


def _moving(
    program: Program, slots: Sequence[int], before: Sequence[Sequence[int]], kinks: torch.Tensor
) -> dict[int, torch.Tensor]:
    """By slot: which roundings move what is tied at some kinks, with no other one in between.

    Others would make kinks matter that do not.
    """
    run = program.run(probe=True)
    leaves = dict(zip(slots, run.leaves[-len(slots) :], strict=True))
    found = {s: torch.zeros(leaf.shape, dtype=torch.bool) for s, leaf in leaves.items()}
    generator = torch.Generator().manual_seed(0)
    for site, own in zip(program.analysis.ordered(), before, strict=True):
        if not own:
            continue
        program.deadline.ask("telling which roundings move ties")
        touch, values = site.touch, run.probes[site.position].candidates
        chosen = kinks[site.first : site.first + touch.count][touch.owner].to(values.dtype)
        weights = chosen * (1 + torch.rand(values.shape, generator=generator).to(values.dtype))
        adjoints = torch.autograd.grad(
            values, [leaves[s] for s in own], weights, retain_graph=True, allow_unused=True
        )
        for slot, adjoint in zip(own, adjoints, strict=True):
            if adjoint is not None:
                found[slot] |= adjoint != 0
    return found


class _Rounded:
    """Where the operations of a trace have rounded their results.

    Attributes:
        of: By slot, as far as it was asked.
    """

    def __init__(
        self, trace: Trace, values: Mapping[int, torch.Tensor], deadline: Deadline
    ) -> None:
        self.of: dict[int, torch.Tensor] = {}
        self._trace, self._values, self._deadline = trace, values, deadline
        self._makers = {o: i for i, op in enumerate(trace.ops) for o in op.outputs if o is not None}

    def before(self, position: int) -> list[int]:
        """The slots of what was rounded next before an operation."""
        todo = list(input_slots(self._trace.ops[position]))
        found: list[int] = []
        seen: set[int] = set()
        while todo:
            slot = todo.pop()
            maker = self._makers.get(slot)
            if slot in seen or maker is None:
                continue
            seen.add(slot)
            self._deadline.ask("telling what was rounded where: {} values so far", len(seen))
            op = self._trace.ops[maker]
            if slot not in self.of:
                gone = _rounded_by(op, slot, self._values)
                if gone is None:
                    continue  # nobody knows
                self.of[slot] = gone
            if bool(self.of[slot].any()):
                found.append(slot)
            else:
                todo += input_slots(op)
        return found


def _rounded_by(op: OpRecord, slot: int, values: Mapping[int, torch.Tensor]) -> torch.Tensor | None:
    """Where an operation has rounded a result; None where that cannot be told."""
    own = values.get(slot)
    if own is None or not own.is_floating_point() or not op.differentiated:
        return None

    def wide(slot: int) -> torch.Tensor:
        found = values[slot]
        return found.to(torch.float64) if found.is_floating_point() else found

    try:
        args = tuple(filled(a, wide) for a in op.args)
        call = Call(op.func, args, {k: filled(v, wide) for k, v in op.kwargs.items()})
        func, args, kwargs = adapted(op, call, torch.float64)
        with torch.no_grad():
            out = func(*args, **kwargs)
    except (RuntimeError, NotImplementedError, TypeError, IndexError, KeyError, ValueError):
        return None
    exact = (out if isinstance(out, (list, tuple)) else (out,))[op.outputs.index(slot)]
    return exact != own.to(torch.float64) if exact.shape == own.shape else None


class _Freed:
    """A trace with roundings as variables.

    Attributes:
        trace: The trace.
        variables: The roundings' slots.
    """

    def __init__(self, trace: Trace, lost: Mapping[int, torch.Tensor]) -> None:
        every = [*trace.externals, *(o for op in trace.ops for o in op.outputs if o is not None)]
        self._free = 1 + max((*every, *(e.storage for e in trace.externals.values())))
        self._externals, self._kinds = dict(trace.externals), dict(trace.slot_dtypes)
        self._ops: list[OpRecord] = []
        self._renamed: dict[int, int] = {}
        self.variables: list[int] = []
        for op in trace.ops:
            args = tuple(filled(a, self._ref) for a in op.args)
            kwargs = MappingProxyType({k: filled(v, self._ref) for k, v in op.kwargs.items()})
            self._ops.append(op.holding(index=len(self._ops), args=args, kwargs=kwargs))
            for slot in [o for o in op.outputs if o is not None and o in lost]:
                self._add(op, slot, lost[slot].to(trace.slot_dtypes[slot]))
        self.trace = replace(
            trace,
            ops=tuple(self._ops),
            externals=MappingProxyType(self._externals),
            output=self._renamed.get(trace.output, trace.output),
            slot_dtypes=MappingProxyType(self._kinds),
        )

    def _add(self, op: OpRecord, slot: int, mask: torch.Tensor) -> None:
        """Add a variable of value zero to a result, where it was rounded."""
        where = self._external(mask, op)
        what = self._external(torch.zeros_like(mask, requires_grad=True), op)
        self.variables.append(what)
        self._renamed[slot] = self._slot(mask.dtype)
        self._ops.append(
            OpRecord(
                index=len(self._ops),
                func=_ADD,
                args=(Ref(slot), Ref(where), Ref(what)),
                kwargs=MappingProxyType({}),
                outputs=(self._renamed[slot],),
                differentiated=True,
                kept=_NOTHING,
                kept_outputs=_NOTHING,
                location=op.location,
                varied=frozenset((0, 2)),
            )
        )

    def _ref(self, slot: int) -> Ref:
        return Ref(self._renamed.get(slot, slot))

    def _slot(self, dtype: torch.dtype) -> int:
        found, self._free = self._free, self._free + 1
        self._kinds[found] = dtype
        return found

    def _external(self, tensor: torch.Tensor, like: OpRecord) -> int:
        slot = self._slot(tensor.dtype)
        self._externals[slot] = External(
            slot=slot,
            tensor=tensor,
            origin=Origin.LEAF if tensor.requires_grad else Origin.CONSTANT,
            version=tensor._version,
            snapshot=None,
            storage=slot,
            name="",
            location=like.location,
            stopped=False,
        )
        return slot
