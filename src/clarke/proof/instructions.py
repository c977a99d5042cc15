"""A recorded program in the language of `clarke.proof.cells`, operation by operation."""

from __future__ import annotations

from math import prod
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch

from clarke.capture import Ref, input_slots
from clarke.deadline import UNLIMITED, Deadline
from clarke.decide.recomputed import Defect
from clarke.kinks import default_registry
from clarke.kinks.model import broadcast_shape
from clarke.numerics import INSTRUCTION_NUMBERS
from clarke.proof.cells import UNKNOWN, Cells, NoInstructionsError
from clarke.proof.claims import touched
from clarke.proof.moved import CHOSEN, INDEXED, MOVED
from clarke.proof.ordered import ORDERED
from clarke.proof.pointwise import meaning_of
from clarke.proof.wholes import REDUCED, WHOLE, reduced

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from clarke.capture import OpRecord, Trace
    from clarke.proof.cells import Cell
    from clarke.steering import Program

# Of the arguments that say how a result is kept, which changes no number of it.
_KEPT = ("layout", "device", "pin_memory", "non_blocking")
# What changes a tensor's shape alone, in place.
_RESHAPED = frozenset({"squeeze_", "unsqueeze_", "t_", "transpose_"})
_UNITS = MappingProxyType({torch.float32: -24, torch.float16: -11, torch.bfloat16: -8})
_DOUBLE = -53


def instructions(
    program: Program, deadline: Deadline = UNLIMITED
) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """What a file says of a program for the checker without clarke, and its tensors.

    Where the language has no words for the program, the reason stands in the place of it.
    """
    trace = program.analysis.recorded
    kinks = touched(program).tolist()
    if any(part for _, part, _ in kinks):
        return {"missing": "a kink in a part of an operation"}, {}
    try:
        lowered = _Lowered(
            trace, program.variables, {(op, e): n for n, (op, _, e) in enumerate(kinks)}
        )
        output = lowered.run(deadline)
        tensors, number = lowered.cells.written(output)
    except NoInstructionsError as error:
        return {"missing": str(error)}, {}
    point = [
        trace.externals[s].tensor.detach().to(torch.float64).reshape(-1) for s in program.variables
    ]
    tensors["point"] = torch.cat([*point, torch.zeros(0, dtype=torch.float64)])
    kinds = {e.tensor.dtype for e in trace.externals.values()} | set(trace.slot_dtypes.values())
    unit = max((_UNITS.get(k, _DOUBLE) for k in kinds), default=_DOUBLE)
    return {"output": number, "unit": unit, "entry": None}, tensors


def written_out(program: Program, deadline: Deadline = UNLIMITED) -> tuple[Cells, Cell]:
    """A program's instructions, and the cell of its result.

    Raises:
        NoInstructionsError: The language has no words for it.
    """
    lowered = _Lowered(program.analysis.recorded, program.variables, {})
    output = lowered.run(deadline)
    return lowered.cells, output


def check_instructions(
    program: Program,
    given: Mapping[str, Any],
    tensors: Mapping[str, torch.Tensor],
    deadline: Deadline,
) -> dict[str, torch.Tensor]:
    """Write the instructions of a program again; returns their tensors.

    Raises:
        Defect: A file holds others.
    """
    told, words = instructions(program, deadline)
    entry = given.get("entry")  # which one is a hint: whether it is enough is what is checked
    if words and (entry is None or type(entry) is int):
        told["entry"] = entry
    same = all(
        name in tensors and tensors[name].dtype == t.dtype and torch.equal(tensors[name], t)
        for name, t in words.items()
    )
    if told != given or not same:
        raise Defect("the instructions are not those of the recorded operations")
    return words


class _Lowered:
    """The tensors of a program, each entry the number of a cell, by slot."""

    def __init__(
        self, trace: Trace, variables: tuple[int, ...], rows: Mapping[tuple[int, int], int]
    ) -> None:
        sizes = [trace.externals[s].tensor.numel() for s in variables]
        if sum(e.tensor.numel() for e in trace.externals.values()) > INSTRUCTION_NUMBERS:
            raise NoInstructionsError("a program that is too large for exact arithmetic")
        self.cells = Cells(sum(sizes), rows)
        self._trace = trace
        self._slots: dict[int, torch.Tensor] = {}
        self._kinked = {op for op, _ in rows}
        self._unmade: dict[int, NoInstructionsError] = {}  # by slot, why it has no cells
        self._kinds = {s: e.tensor.dtype for s, e in trace.externals.items()}
        memories: dict[int, torch.Tensor] = {}
        for slot, e in sorted(trace.externals.items()):
            tensor = e.tensor.detach()
            if e.snapshot is None:
                self._slots[slot] = self._constants(tensor)
            else:
                if e.storage not in memories:
                    memories[e.storage] = self._constants(e.snapshot)
                self._slots[slot] = memories[e.storage].as_strided(
                    tensor.shape, tensor.stride(), tensor.storage_offset()
                )
        first = 0
        for slot, size in zip(variables, sizes, strict=True):
            own = self._slots[slot]
            own.copy_(torch.arange(first, first + size).reshape(own.shape))
            first += size

    def _constants(self, values: torch.Tensor) -> torch.Tensor:
        if values.is_complex() or values.layout != torch.strided:
            raise NoInstructionsError("complex numbers, or a sparse tensor")
        flat = [self._constant(v) for v in values.detach().reshape(-1).tolist()]
        return torch.tensor(flat, dtype=torch.int64).reshape(values.shape)

    def _constant(self, value: float) -> Cell:
        try:
            return self.cells.constant(value)
        except NoInstructionsError:  # it may be read by nobody
            return UNKNOWN

    def run(self, deadline: Deadline) -> Cell:
        """Lower all operations; returns the cell of the result."""
        for number, op in enumerate(self._trace.ops):
            deadline.ask(
                "writing instructions for operation {} of {}", number, len(self._trace.ops)
            )
            if op.reads_stopped or op.hidden_write or op.resaved:
                raise NoInstructionsError(f"what {op.name} hides from autograd")
            try:
                self._lower_or_tell(number, op)
            except NoInstructionsError as error:  # it counts where somebody reads what was made
                if op.func._schema.is_mutable or number in self._kinked:
                    raise
                self._unmade |= {s: error for s in op.outputs if s is not None}
        found = self._resolved(Ref(self._trace.output))
        if found.numel() != 1:
            raise NoInstructionsError("a result that is not one number")
        return int(found)

    def _lower_or_tell(self, number: int, op: OpRecord) -> None:
        try:
            self._lower(number, op)
        except (KeyError, IndexError, TypeError, ValueError, RuntimeError) as error:
            raise NoInstructionsError(f"the operator {op.name} with its arguments") from error

    def _lower(self, number: int, op: OpRecord) -> None:
        args = [self._resolved(a) for a in op.args]
        named = {k: self._resolved(v) for k, v in op.kwargs.items() if k not in _KEPT}
        base = op.func._schema.name.removeprefix("aten::")
        in_place = base.endswith("_") and base not in _RESHAPED
        found = self._meaning(number, op, base.rstrip("_"))(args, named)
        if in_place:
            found = args[0].copy_(found)
        several = found if isinstance(found, (list, tuple)) else (found,)
        if not (op.differentiated or in_place) and any(self._moves(t) for t in several):
            raise NoInstructionsError(f"{op.name}, recorded as constant, which varies")
        rest = [slot for slot in op.outputs[len(several) :] if slot is not None]
        self._unmade |= dict.fromkeys(rest, NoInstructionsError(f"what {op.name} returns besides"))
        for slot, tensor in zip(op.outputs, several, strict=False):
            if slot is not None:
                self._slots[slot] = tensor
                self._kinds[slot] = self._trace.slot_dtypes.get(slot, torch.float64)

    def _meaning(self, number: int, op: OpRecord, base: str) -> Callable[[Any, Any], Any]:
        """What an operator does with tensors of cells."""
        masks = self._trace.slot_dtypes.get(op.outputs[0]) is torch.bool  # type: ignore[arg-type]
        alone = meaning_of(base, op.func._schema.overload_name, masks=masks)
        mutable = op.func._schema.is_mutable and base != "index_put"
        if base in MOVED and (not mutable or f"{base}_" in _RESHAPED):
            return lambda args, named: self._move(op, base, args, named)
        if alone is not None:
            return lambda args, named: self._each(number, alone, args, named)
        if base in REDUCED and op.func._schema.overload_name in (
            "",
            "dim",
            "dim_IntList",
            "default",
        ):
            return lambda args, named: reduced(REDUCED[base], self.cells, number, *args, **named)
        whole = WHOLE.get(base) or ORDERED.get(base)
        if whole is not None:
            return lambda args, named: whole(self.cells, number, *args, **named)
        if self._is_constant(op):
            return lambda args, named: self._made(op)  # noqa: ARG005 - their numbers are asked for
        raise NoInstructionsError(f"the operator {op.name}")

    def _is_constant(self, op: OpRecord) -> bool:
        """Whether nothing that an operation reads depends on a variable, or on chance."""
        read = [self._resolved(Ref(s)) for s in input_slots(op)]
        cells = {c for t in read for c in t.reshape(-1).tolist()}
        return (
            default_registry().repeatable(op.func)
            and not op.func._schema.is_mutable
            and all(self.cells.value(c) is not None for c in cells)
        )

    def _made(self, op: OpRecord) -> Any:
        """What torch makes of constants."""
        found = op.func(*map(self._values, op.args), **dict(op.kwargs))
        several = found if isinstance(found, (list, tuple)) else (found,)
        return [self._constants(t) for t in several]

    def _resolved(self, value: Any) -> Any:
        if isinstance(value, Ref):
            if value.slot in self._unmade:
                raise self._unmade[value.slot]
            return self._slots[value.slot]
        return [self._resolved(v) for v in value] if isinstance(value, (list, tuple)) else value

    def _moves(self, tensor: torch.Tensor) -> bool:
        cells = set(tensor.reshape(-1).tolist()) - {UNKNOWN}
        return any(self.cells.moves(c) for c in cells)

    def _move(self, op: OpRecord, base: str, args: list[Any], named: dict[str, Any]) -> Any:
        """Let torch move the entries."""
        if base == "_to_copy":
            return self._copied(op, args[0], named.get("dtype"))
        if base == "index_put" and any(args[3:]):
            raise NoInstructionsError("entries that are added at places")
        if base in INDEXED:
            at = INDEXED[base]
            if base in CHOSEN and self._is_chosen(args[at]):
                return self._choose(op, args, CHOSEN[base](*args))
            args[at] = self._values(op.args[at])
        found = op.func(*args, **{k: v for k, v in named.items() if k != "dtype"})
        sizes = [t.numel() for t in found] if isinstance(found, (list, tuple)) else [found.numel()]
        if sum(sizes) > INSTRUCTION_NUMBERS:
            raise NoInstructionsError("a program that is too large for exact arithmetic")
        return found

    def _is_chosen(self, places: torch.Tensor | list[torch.Tensor | None]) -> bool:
        """Whether places depend on variables, as those of an `argmax` do."""
        tensors = [t for t in (places if isinstance(places, list) else [places]) if t is not None]
        cells = {c for t in tensors for c in t.reshape(-1).tolist()}
        return len(tensors) == 1 and any(self.cells.value(c) is None for c in cells)

    def _choose(self, op: OpRecord, args: list[Any], chosen: tuple[int, Any]) -> torch.Tensor:
        """Entries at places that vary: what stands at each place, picked where it is the place."""
        count, places = chosen
        at = INDEXED[op.func._schema.name.removeprefix("aten::")]
        found: torch.Tensor | None = None
        for place in range(count):
            alike = [
                None if t is None else torch.full_like(t, place)
                for t in (args[at] if isinstance(args[at], list) else [args[at]])
            ]
            args_here = [*args]
            args_here[at] = alike if isinstance(args[at], list) else alike[0]
            there: torch.Tensor = op.func(*args_here)
            if found is None:
                found = there
                continue
            rows = zip(
                places.expand(there.shape).reshape(-1).tolist(),
                found.reshape(-1).tolist(),
                there.reshape(-1).tolist(),
                strict=True,
            )
            cells = [self.cells.at_place(p, place, other, own) for p, other, own in rows]
            found = torch.tensor(cells, dtype=torch.int64).reshape(there.shape)
        if found is None:
            raise NoInstructionsError("a place in a tensor without entries")
        return found

    def _copied(self, op: OpRecord, tensor: torch.Tensor, kind: torch.dtype | None) -> torch.Tensor:
        """A copy in another type: whole numbers are cut off, others keep their cells."""
        source = self._kinds[op.args[0].slot]
        if kind is None or kind.is_floating_point or source is torch.bool:
            return tensor.clone()
        return self._constants(self._values(op.args[0]).to(kind))

    def _values(self, ref: Any) -> Any:
        """The numbers of a tensor that depends on no variable; of each in a list."""
        if isinstance(ref, (list, tuple)):
            return [None if r is None else self._values(r) for r in ref]
        if not isinstance(ref, Ref):
            return ref
        cells = self._slots[ref.slot]
        found = [self.cells.value(c) for c in cells.reshape(-1).tolist()]
        if None in found:
            raise NoInstructionsError("a place that varies")
        kind = self._kinds[ref.slot]
        numbers = [float(v or 0) if kind.is_floating_point else int(v or 0) for v in found]
        return torch.tensor(numbers, dtype=kind).reshape(cells.shape)

    def _each(
        self, number: int, meaning: Callable[..., Cell], args: list[Any], named: dict[str, Any]
    ) -> torch.Tensor:
        """One place after the other, broadcast."""
        given = [a if a is None else self._tensor(a) for a in args]
        numbers = {k: v for k, v in named.items() if k not in ("dtype", "memory_format")}
        more = {k: self.cells.constant(v) for k, v in numbers.items() if v is not None}
        shape = broadcast_shape(*given)
        if prod(shape) > INSTRUCTION_NUMBERS:
            raise NoInstructionsError("a program that is too large for exact arithmetic")
        columns = [
            [None] * prod(shape) if t is None else t.expand(shape).reshape(-1).tolist()
            for t in given
        ]
        found = [
            meaning(self.cells, (number, n), *row, **more)
            for n, row in enumerate(zip(*columns, strict=True))
        ]
        return torch.tensor(found, dtype=torch.int64).reshape(shape)

    def _tensor(self, value: Any) -> torch.Tensor:
        if isinstance(value, torch.Tensor):
            return value
        return torch.tensor(self.cells.constant(value), dtype=torch.int64)
