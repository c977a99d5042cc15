"""Name the operation whose derivative differs from that of its neighbourhood, or is not finite."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from clarke.capture import OpRecord, all_finite, input_slots
from clarke.deadline import rung
from clarke.decide.model import Culprit
from clarke.decide.tolerance import of_tensors, peak, relative_difference
from clarke.kinks.smooth import why_not
from clarke.numerics import NAMED_PART, NAMED_STEP
from clarke.steering import Pieces, Program, Run

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


def adjoints(run: Run) -> dict[int, torch.Tensor]:
    """The derivative of the result with respect to every tensor of a replay, by slot."""
    if not run.output.requires_grad:
        return {}
    slots = [s for s, t in run.tensors.items() if t.requires_grad and t.is_floating_point()]
    grads = torch.autograd.grad(
        run.output.sum(), [run.tensors[s] for s in slots], materialize_grads=True
    )
    return {s: g.detach() for s, g in zip(slots, grads, strict=True)}


def _are_alike(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two adjoints differ by little; no: of two sizes, where masks pick others."""
    if one.shape != other.shape:
        return False
    return relative_difference([one], [other], of_tensors([one])) <= NAMED_PART


def _first_parting(
    program: Program,
    good: Callable[[int], bool],
    known: set[int],
    reason: str,
) -> tuple[Culprit, ...]:
    """Walk backward to the first operation with good outputs and a bad input."""
    for op in reversed(program.analysis.recorded.ops):
        outputs = [s for s in op.outputs if s in known]
        inputs = [s for s in input_slots(op) if s in known and s not in outputs]
        if outputs and all(good(s) for s in outputs) and not all(good(s) for s in inputs):
            return (Culprit(op.shown, op.location, reason),)
    return ()


@rung("naming what differs")
def name_disagreement(program: Program, direction: Sequence[torch.Tensor]) -> tuple[Culprit, ...]:
    """The operation at which adjoints at the point and just beside it part."""
    size = peak(direction) or 1.0
    moved = [p + NAMED_STEP / size * d for p, d in zip(program.point, direction, strict=True)]
    here = adjoints(program.run(pieces=Pieces.NATURAL))
    there = adjoints(program.run(moved, pieces=Pieces.NATURAL))
    known = set(here) & set(there)
    return _first_parting(
        program,
        lambda s: _are_alike(here[s], there[s]),
        known,
        "its derivative here is not the limit of its derivatives nearby",
    )


def name_formula(program: Program, weights: Mapping[int, torch.Tensor]) -> tuple[Culprit, ...]:
    """The operation whose own derivative formula is not that of the pieces that it computed."""
    here = adjoints(program.run(pieces=Pieces.NATURAL))
    there = adjoints(program.run(weights=weights))
    found = _first_parting(
        program,
        lambda s: _are_alike(here[s], there[s]),
        set(here) & set(there),
        "autograd's formula for it does not hold here",
    )
    names = {op.shown: op.name for op in program.analysis.recorded.ops}
    return tuple(replace(c, reason=why_not(names.get(c.operation, "")) or c.reason) for c in found)


@rung("tracing values that are not finite")
def name_nonfinite(program: Program) -> tuple[Culprit, ...]:
    """The operation whose backward pass first turned a finite adjoint into NaN or infinity."""
    run = program.run(pieces=Pieces.NATURAL)
    if not run.output.requires_grad:
        return ()
    found: list[OpRecord] = []

    def watch(op: OpRecord) -> Callable[[Any, Any], None]:
        def look(inner: Any, outer: Any) -> None:
            if all_finite(_present(outer)) and not all_finite(_present(inner)):
                found.append(op)

        return look

    handles = []
    for op in program.analysis.recorded.ops:
        for slot in op.outputs:
            value = run.tensors.get(slot) if slot is not None else None
            if value is not None and value.grad_fn is not None:
                handles.append(value.grad_fn.register_hook(watch(op)))
                break
    leaves = [x for x in run.leaves if x.requires_grad]
    torch.autograd.grad(run.output.sum(), leaves, allow_unused=True)
    for handle in handles:
        handle.remove()
    if not found:
        return ()
    reason = "its backward pass made NaN or infinity from finite values"
    first = Culprit(found[0].shown, found[0].location, reason)
    origin = _origin(program, run, found[0])
    if origin is None:
        return (first,)
    if origin is not found[0]:
        why = (
            f"its value is not finite, and the backward pass of {first.operation} multiplies by it"
        )
        return (Culprit(origin.shown, origin.location, why), first)
    return (Culprit(first.operation, first.location, "its value is not finite, nor its slope"),)


def name_nonfinite_value(program: Program) -> tuple[Culprit, ...]:
    """The operation that first made the NaN or infinity that is the program's own value."""
    run = program.run(pieces=Pieces.NATURAL, grad=False)
    last = [
        op for op in program.analysis.recorded.ops if program.analysis.recorded.output in op.outputs
    ]
    # An infinity may be meant, a mask for instance; what makes NaN of it is the fault.
    fine = _all_numbers if bool(torch.isnan(run.output).any()) else _finite
    origin = _origin(program, run, last[-1], fine) if last else None
    if origin is None:
        return ()
    return (Culprit(origin.shown, origin.location, "its value is not finite"),)


def _origin(
    program: Program,
    run: Run,
    op: OpRecord,
    fine: Callable[[torch.Tensor | None], bool] | None = None,
) -> OpRecord | None:
    """Where a value that `op` reads or makes, and that is not finite, was made from finite ones.

    `fine` tells such values; what is not finite is not, unless another is given.
    """
    fine = fine or _finite
    makers = {s: o for o in program.analysis.recorded.ops for s in o.outputs if s is not None}
    seen: set[int] = set()
    while op.index not in seen:
        seen.add(op.index)
        bad = [s for s in input_slots(op) if not fine(run.tensors.get(s))]
        made = [makers[s] for s in bad if s in makers and makers[s].index not in seen]
        if made:
            op = made[0]
        elif bad:
            return None  # a constant was not finite: the program's author meant it
        else:
            values = [run.tensors.get(s) for s in op.outputs if s is not None]
            return None if all(fine(v) for v in values) else op
    return None


def _finite(value: torch.Tensor | None) -> bool:
    return value is None or not value.is_floating_point() or bool(torch.isfinite(value).all())


def _all_numbers(value: torch.Tensor | None) -> bool:
    return value is None or not value.is_floating_point() or not bool(torch.isnan(value).any())


def _present(values: Sequence[torch.Tensor | None]) -> list[torch.Tensor]:
    return [v for v in values if v is not None]
