"""Ties by origin: those that a function has, and those that exist by rounding alone.

In a narrow type many values are equal that are not in the numbers they stand for. A direction in
the variables that parts all of them need not exist, and says little where it does: the next
rounding falls otherwise. So what an operation has rounded away is given back to the program as a
variable of its own, zero here, and the gradient is judged in all variables together. It is then,
for the user's variables, a limit of gradients of programs whose roundings differ from these by as
little as one likes. What an operation has not rounded stays as it is: a tie of exact values is the
function's.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from clarke.capture import External, OpRecord, Origin, Ref, input_slots, values_again
from clarke.constraints import build_rows, find_relevant, random_tangents
from clarke.deadline import rung
from clarke.decide.certificate import Certificate
from clarke.decide.context import Context
from clarke.decide.model import Decision, Witness
from clarke.decide.search import witness_selection
from clarke.decide.verification import own_gradient
from clarke.errors import OutOfTimeError, ReplayError
from clarke.feasibility import find_witness
from clarke.kinks import Call, default_registry
from clarke.numerics import ROW_VANISHING, SEARCH_SHARE, WITNESS_MARGIN
from clarke.steering import Program, adapted, analyse, natural_gradient, selected_gradient
from clarke.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from clarke.capture import Trace
    from clarke.deadline import Deadline
    from clarke.kinks import Registry

_LOOKS = 3  # random directions along which rows are compared
_BLOCK = 1024
_ADD = torch.ops.aten.addcmul.default
_NOTHING: Mapping[Any, torch.Tensor] = MappingProxyType({})


def told_by_origin(context: Context, found: Decision) -> Decision:
    """A decision with its ties told apart, and for which program it holds: rounded, or exact."""
    relevance = context.relevance
    if not context.is_narrow or not bool(relevance.relevant.any()):
        return found
    try:
        rounded = context.rounded & relevance.relevant
        notes = found.notes
        if bool(rounded.any()):
            notes = (*notes, _for_which(context, int(rounded.sum())))
    except (OutOfTimeError, ReplayError):
        return found
    return replace(found, rounded=rounded, notes=notes)


def _for_which(context: Context, many: int) -> str:
    """What the program does in float64, where ties of rounding are none."""
    exact = natural_gradient(context.program)
    bounds = (context.freed or context).rounding.bounds  # of all variables, the user's first
    worst = max(
        (
            float(((e - o).abs() - b).max()) / max(float(o.abs().max()), float(e.abs().max()))
            for e, o, b in zip(exact, context.own, bounds, strict=False)
            if e.numel() and bool((e - o).any())
        ),
        default=0.0,
    )
    of = int(context.relevance.relevant.sum())
    ties = f"{many} of the {of} ties that matter exist by rounding alone: in float64 they are none"
    if worst <= 0:
        return (
            f"{ties}, and autograd returns the same gradient there, within rounding: it is that of "
            "the exact program, too."
        )
    return (
        f"{ties}, and autograd returns another gradient there (an entry is {worst:.2g} of the "
        "largest one away, beyond rounding). The verdict is on the program as it rounds, not on "
        "the exact one."
    )


def judge_beside_roundings(context: Context) -> Decision | None:
    """BOULIGAND among programs that round otherwise by as little as one likes; None if not proved.

    Raises:
        OutOfTimeError: There is not time enough.
    """
    program, relevance = context.program, context.relevance
    if context.given or context.looked_beside or not context.is_narrow:
        return None
    context.looked_beside = True
    tied = context.rounded & relevance.relevant
    if not bool(tied.any()) or _are_opposed(program, relevance.relevant, context.generator):
        return None
    freed = with_roundings(program, default_registry(), tied)
    if freed is None:
        return None
    every = find_relevant(freed, context.generator)
    if every.hazards or bool((every.relevant & every.mixed).any()):
        return None
    behind = own_gradient(freed)[len(program.variables) :]
    gradient = (*context.gradient, *behind)
    other = Context(freed, gradient, every, context.settings, context.generator, None)
    witness = _by_roundings_alone(freed, every.relevant, len(program.variables))
    if witness is None:
        witness, _ = witness_selection(
            other.within(SEARCH_SHARE), {}, every.relevant, context.settings, context.generator
        )
    if witness is None or other.differs:
        return None
    context.freed = other
    found = other.accept(Verdict.BOULIGAND, (witness,), (1.0,), "witness beside roundings")
    proof = found.certificate
    if found.verdict is not Verdict.BOULIGAND or not isinstance(proof, Certificate):
        return None
    # Whoever runs the program along the direction sees what it rounds between the ties.
    proof = replace(proof, replay_bounds=other.rounding.bounds).sealed()
    reason = (
        "Correct beside its roundings: the gradient is a limit of gradients of programs that round "
        "otherwise by as little as one likes."
    )
    return replace(
        found,
        reason=reason,
        certificate=proof,
        analysis=program.analysis,
        relevance=relevance,
    )


def _are_opposed(program: Program, relevant: torch.Tensor, generator: torch.Generator) -> bool:
    """Whether two kinks ask for opposite signs of one value.

    A program may compute that value twice, each time with a rounding of its own: of
    ``relu(x - y) - relu(y - x)`` both are zero at a tie, and nobody would call their slopes right.
    """
    rows = build_rows(program, {}, relevant)
    found = [rows.times(random_tangents(program, generator)) for _ in range(_LOOKS)]
    vectors = torch.stack(found, 1).to(torch.float64)
    sizes = vectors.norm(dim=1, keepdim=True)
    units = (vectors / sizes)[sizes[:, 0] > 0]
    for start in range(0, len(units), _BLOCK):
        program.deadline.ask("comparing {} rows", len(units))
        if float((units[start : start + _BLOCK] @ units.T).min()) < ROW_VANISHING - 1:
            return True
    return False


@rung("parting ties of rounding")
def _by_roundings_alone(program: Program, relevant: torch.Tensor, first: int) -> Witness | None:
    """A witness along roundings, where each operation's own part its ties.

    Args:
        program: The program with roundings as variables.
        relevant: (count,) bool, the kinks whose rows must hold.
        first: How many variables are the user's.
    """
    rows = build_rows(program, {}, relevant)
    still = tuple(torch.zeros_like(p) for p in program.point[:first])
    taken = [torch.zeros(p.shape, dtype=torch.bool) for p in program.point[first:]]
    directions, columns = [], []
    for site in program.analysis.ordered():
        own = (rows.kinks >= site.first) & (rows.kinks < site.first + site.touch.count)
        if not bool(own.any()):
            continue
        # What moves earlier kinks has been seen there; what is left moves these, and later ones.
        pull = rows.transposed_times(own.to(program.dtype))[first:]
        signs = [torch.sign(p) * ~t for p, t in zip(pull, taken, strict=True)]
        taken = [t | (p != 0) for p, t in zip(pull, taken, strict=True)]
        directions.append((*still, *signs))
        columns.append(rows.times(directions[-1]).to(torch.float64).numpy())
    found = find_witness(np.stack(columns, 1), margin=WITNESS_MARGIN, deadline=program.deadline)
    if found.direction is None:
        return None
    parts = zip(*directions, strict=True)
    scales = found.direction.tolist()
    return Witness(
        direction=tuple(sum(c * p for c, p in zip(scales, ps, strict=True)) for ps in parts),
        choices={},
        gradient=selected_gradient(program),
        rows=np.stack(columns, 1) @ found.direction,
        kinks=rows.kinks.numpy(),
    )


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
    if not slots:
        return None
    lost = {s: rounded.of[s] for s in slots}
    whole = _behind(program, _freed(trace, lost), registry)
    for slot, moves in _moving(whole, slots, before, kinks).items():
        lost[slot] &= moves
    lost = {s: gone for s, gone in lost.items() if bool(gone.any())}
    return _behind(program, _freed(trace, lost), registry) if lost else None


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

    def wide(value: Any) -> Any:
        if isinstance(value, Ref):
            found = values[value.slot]
            return found.to(torch.float64) if found.is_floating_point() else found
        if isinstance(value, (list, tuple)) and value:
            return type(value)([wide(v) for v in value])
        return value

    try:
        call = Call(op.func, tuple(map(wide, op.args)), {k: wide(v) for k, v in op.kwargs.items()})
        func, args, kwargs = adapted(op, call, torch.float64)
        with torch.no_grad():
            out = func(*args, **kwargs)
    except (RuntimeError, NotImplementedError, TypeError, IndexError, KeyError, ValueError):
        return None
    exact = (out if isinstance(out, (list, tuple)) else (out,))[op.outputs.index(slot)]
    return exact != own.to(torch.float64) if exact.shape == own.shape else None


@dataclass(frozen=True)
class _Freed:
    """A trace with roundings as variables, and their slots."""

    trace: Trace
    variables: tuple[int, ...]


def _freed(trace: Trace, lost: Mapping[int, torch.Tensor]) -> _Freed:
    every = [*trace.externals, *(o for op in trace.ops for o in op.outputs if o is not None)]
    memories = [e.storage for e in trace.externals.values()]
    free = 1 + max((*every, *memories))
    externals, kinds = dict(trace.externals), dict(trace.slot_dtypes)
    ops: list[OpRecord] = []
    renamed: dict[int, int] = {}
    variables = []

    def other(value: Any) -> Any:
        if isinstance(value, Ref):
            return Ref(renamed.get(value.slot, value.slot))
        if isinstance(value, (list, tuple)) and value:
            return type(value)([other(v) for v in value])
        return value

    def external(tensor: torch.Tensor, like: OpRecord) -> int:
        nonlocal free
        slot, free = free, free + 1
        kinds[slot] = tensor.dtype
        externals[slot] = External(
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

    for op in trace.ops:
        args = tuple(map(other, op.args))
        kwargs = MappingProxyType({k: other(v) for k, v in op.kwargs.items()})
        ops.append(op.holding(index=len(ops), args=args, kwargs=kwargs))
        for slot in [o for o in op.outputs if o is not None and o in lost]:
            mask = lost[slot].to(trace.slot_dtypes[slot])
            where = external(mask, op)
            what = external(torch.zeros_like(mask, requires_grad=True), op)
            variables.append(what)
            renamed[slot], free = free, free + 1
            kinds[renamed[slot]] = mask.dtype
            ops.append(
                OpRecord(
                    index=len(ops),
                    func=_ADD,
                    args=(Ref(slot), Ref(where), Ref(what)),
                    kwargs=MappingProxyType({}),
                    outputs=(renamed[slot],),
                    differentiated=True,
                    kept=_NOTHING,
                    kept_outputs=_NOTHING,
                    location=op.location,
                    varied=frozenset((0, 2)),
                )
            )
    found = replace(
        trace,
        ops=tuple(ops),
        externals=MappingProxyType(externals),
        output=renamed.get(trace.output, trace.output),
        slot_dtypes=MappingProxyType(kinds),
    )
    return _Freed(found, tuple(variables))
