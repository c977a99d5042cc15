"""The sum or mean of several programs that read the same parameters, as one program.

Calls whose gradients add up are one program, their sum. Processes that train together take the mean
of their gradients. Each of these is that of a program of its own, and what is to be judged is the
gradient of all together: their kinks stand at one point, and one direction has to serve them all.
"""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch

from clarke.capture import External, Location, OpRecord, Origin, Ref, ScalarRead, Trace, filled
from clarke.errors import InputError
from clarke.proof.files import NO_PROOF, Stored
from clarke.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_HERE = Location("", __file__, 0, "mean")  # of the operations that put the programs together


def mean_of(
    parts: Sequence[tuple[str, Stored, Sequence[int]]],
    *,
    of: float,
    gradient: Mapping[int, torch.Tensor] | None = None,
) -> tuple[Stored, tuple[int, ...]]:
    """The sum of the programs of kept steps, divided by a number.

    Args:
        parts: Of each step, what it is called (``rank 1``), what was kept, and which parameter each
            of its variables is: equal numbers, one parameter.
        of: What the sum is divided by, such as how many processes there are.
        gradient: What is to be judged, by parameter; by default the sum of the gradients of the
            steps, divided likewise.

    Returns:
        A step to be judged, and the parameter of each of its variables.

    Raises:
        InputError: The programs read parameters that are not equal.
    """
    ops: list[OpRecord] = []
    externals: dict[int, External] = {}
    reads: list[ScalarRead] = []
    shared: dict[int, int] = {}  # by parameter, its slot
    outputs: list[int] = []
    first = 0
    for name, step, own in parts:
        moved = _Moved(first, name)
        for slot, key in zip(step.variables, own, strict=True):
            leaf = step.trace.externals[slot]
            if leaf.origin is not Origin.LEAF or leaf.snapshot is not None:
                raise InputError(f"{_begun(name)} writes to a parameter while its program runs.")
            if key not in shared:
                shared[key] = moved.slot(slot)
                continue
            moved.known[slot] = shared[key]
            if not torch.equal(leaf.tensor, externals[shared[key]].tensor):
                raise InputError(
                    f"The parameters of {name} are not those of what was there before, so that the "
                    "gradients put together are none at one point."
                )
        for external in step.trace.externals.values():
            if external.slot not in moved.known:
                externals[moved.slot(external.slot)] = moved.external(external)
        ops += [moved.op(op, len(ops) + i) for i, op in enumerate(step.trace.ops)]
        reads += [moved.read(r) for r in step.trace.scalar_reads]
        outputs.append(moved.slot(step.trace.output))
        first += 1 + max(_slots(step.trace))
    output = _put_together(ops, outputs, of, first)
    order = tuple(sorted(shared))
    given = _summed(parts, of) if gradient is None else gradient
    step = Stored(
        verdict=Verdict.UNDECIDED,
        theorem="",
        trace=Trace(
            ops=tuple(ops),
            externals=MappingProxyType(externals),
            output=output,
            scalar_reads=tuple(reads),
            emptied=True,
        ),
        variables=tuple(shared[key] for key in order),
        replayed=True,
        claim=MappingProxyType({"kind": "nothing"}),
        instructions=NO_PROOF,
        tensors=MappingProxyType({f"gradient.{i}": given[k] for i, k in enumerate(order)}),
    )
    return step, order


def _begun(name: str) -> str:
    """A name at the begin of a sentence."""
    return name[:1].upper() + name[1:]


def _summed(
    parts: Sequence[tuple[str, Stored, Sequence[int]]], of: float
) -> dict[int, torch.Tensor]:
    found: dict[int, torch.Tensor] = {}
    for _, step, own in parts:
        for key, g in zip(own, step.gradient, strict=True):
            found[key] = found[key] + g.to(torch.float64) if key in found else g.to(torch.float64)
    dtypes = {k: g.dtype for _, step, own in parts for k, g in zip(own, step.gradient, strict=True)}
    return {key: (g / of).to(dtypes[key]) for key, g in found.items()}


def _put_together(ops: list[OpRecord], outputs: Sequence[int], of: float, free: int) -> int:
    """Add the operations that compute the sum, divided; returns its slot."""
    total = outputs[0]
    for other in outputs[1:]:
        ops.append(_combined(torch.ops.aten.add.Tensor, (Ref(total), Ref(other)), free, len(ops)))
        total, free = free, free + 1
    if of == 1:
        return total
    ops.append(_combined(torch.ops.aten.div.Tensor, (Ref(total), of), free, len(ops)))
    return free


def with_parameters(step: Stored, wholes: Mapping[int, torch.Tensor]) -> Stored:
    """A step with the values of parameters that were not kept in it.

    A program that computes with them in a narrower type is one of the parameters as they are, and
    begins with a cast; its gradients are then those of the wider type.

    Args:
        step: The step.
        wholes: The values, by slot.
    """
    externals, variables = dict(step.trace.externals), list(step.variables)
    tensors, casts = dict(step.tensors), []
    free = 1 + max(_slots(step.trace))
    for slot, whole in wholes.items():
        e = externals[slot]
        value = whole if e.origin is Origin.LEAF else whole.detach().to(e.tensor.dtype)
        if e.origin is Origin.LEAF and e.tensor.dtype != whole.dtype:
            del externals[slot]
            to = MappingProxyType({"dtype": e.tensor.dtype})
            cast = _combined(torch.ops.aten._to_copy.default, (Ref(free),), slot, 0)  # noqa: SLF001 - the operator's name
            casts.append(replace(cast, kwargs=to, location=e.location))
            if slot in variables:
                position = variables.index(slot)
                variables[position] = free
                key = f"gradient.{position}"
                if key in tensors:
                    tensors[key] = tensors[key].to(whole.dtype)
            slot, free = free, free + 1  # noqa: PLW2901 - from here on the parameter as it is
        externals[slot] = replace(e, slot=slot, tensor=value, version=value._version)
    ops = (*casts, *step.trace.ops)
    trace = replace(
        step.trace,
        ops=tuple(op.holding(index=i) for i, op in enumerate(ops)),
        externals=MappingProxyType(externals),
    )
    return replace(step, trace=trace, variables=tuple(variables), tensors=MappingProxyType(tensors))


def _combined(func: Any, args: tuple[Any, ...], output: int, index: int) -> OpRecord:
    nothing: Mapping[Any, torch.Tensor] = MappingProxyType({})
    return OpRecord(
        index=index,
        func=func,
        args=args,
        kwargs=MappingProxyType({}),
        outputs=(output,),
        differentiated=True,
        kept=nothing,
        kept_outputs=nothing,
        location=_HERE,
    )


def _slots(trace: Trace) -> list[int]:
    made = [s for op in trace.ops for s in op.outputs if s is not None]
    memories = [e.storage for e in trace.externals.values()]
    return [*trace.externals, *memories, *made]


class _Moved:
    """One program with other slots, its places told apart by a name."""

    def __init__(self, first: int, name: str) -> None:
        self._first = first
        self._name = name
        self.known: dict[int, int] = {}

    def slot(self, slot: int) -> int:
        return self.known.get(slot, slot + self._first)

    def _place(self, place: Location) -> Location:
        name = self._name
        return replace(place, module=f"{name}: {place.module}" if place.module else name)

    def external(self, e: External) -> External:
        return replace(
            e,
            slot=self.slot(e.slot),
            storage=e.storage + self._first,
            location=self._place(e.location),
        )

    def read(self, r: ScalarRead) -> ScalarRead:
        return replace(r, slot=self.slot(r.slot), location=self._place(r.location))

    def op(self, op: OpRecord, index: int) -> OpRecord:
        return op.holding(
            index=index,
            args=tuple(filled(a, self._ref) for a in op.args),
            kwargs=MappingProxyType({k: filled(v, self._ref) for k, v in op.kwargs.items()}),
            outputs=tuple(None if s is None else self.slot(s) for s in op.outputs),
            location=self._place(op.location),
        )

    def _ref(self, slot: int) -> Ref:
        return Ref(self.slot(slot))
