"""Follow an operation that jumps on both sides, up to where the sides agree.

``abs(x - round(x))`` is continuous at 1/2, though ``round`` jumps there: with the outcomes 0 and 1
held constant it is ``abs(x)`` or ``abs(x - 1)``, which agree. What lies between the jump and the
place where all sides agree is written once for each outcome, each with kinks of its own, and there
``where`` chooses among them: from here on it is a program with comparisons like any other, and
whether the sides agree beside the point as well is judged as for these.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch

from clarke.capture import OpRecord, Ref, Trace, input_slots
from clarke.constraints.conditions import Bit, Plain, at_values, same_condition
from clarke.constraints.splits import Split, split_of
from clarke.constraints.versions import Fork, agree, noise_of, without
from clarke.constraints.writing import CannotFollowError, Records
from clarke.kinks.facts import MOVES, PARTS
from clarke.kinks.lowering import Part
from clarke.steering import shared_memory

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from clarke.steering import Analysis, Site

_ATEN = torch.ops.aten
_LOOK = 24  # conditions among which equal ones are looked for
_BITS = 6  # conditions that one tensor may depend on before its versions are too many
_MOVED = MOVES | PARTS | {"detach"}


def forked(
    analysis: Analysis,
    values: Mapping[int, torch.Tensor],
    near: Sequence[Mapping[int, torch.Tensor]],
    lost: frozenset[int],
    *,
    elementwise: bool,
) -> Trace | None:
    """The trace with its jumps written as choices among versions; None if nothing changes.

    Args:
        analysis: The trace and its kinks.
        values: Every tensor of the trace at the point, in float64.
        near: The same at random points near it.
        lost: Positions of comparisons that the tracker of masks loses sight of.
        elementwise: One condition for a whole operation, whose elements are followed side by side;
            else one for each tied element.

    Raises:
        CannotFollowError: Operations mix elements before the sides agree, or are too many.
    """
    writer = _Writer(analysis, values, near, elementwise=elementwise)
    for position, op in enumerate(analysis.trace.ops):
        site = analysis.sites.get(position)
        split = None
        if site is not None and site.touch.count and op.differentiated and not writer.reads(op):
            split = writer.split(site, lost=position in lost)
        if split is not None:
            writer.start(op, split)
        else:
            writer.follow(op)
    return writer.finished()


class _Writer(Records):
    """Writes the new trace, operation by operation."""

    def __init__(
        self,
        analysis: Analysis,
        values: Mapping[int, torch.Tensor],
        near: Sequence[Mapping[int, torch.Tensor]],
        *,
        elementwise: bool,
    ) -> None:
        super().__init__(analysis.trace, values)
        self.near = near
        self.elementwise = elementwise
        self.forks: dict[int, Fork] = {}
        self.bits: list[Bit] = []
        self.changed = False
        self.read = {s for op in self.trace.ops for s in input_slots(op)} | {self.trace.output}
        shared = shared_memory(self.trace)
        self._name = lambda slot: shared.get(slot, slot)
        self._in_place = {
            self._name(s)
            for op in self.trace.ops
            if op.short_name.endswith("_")
            for s in input_slots(op)[:1]
        }

    # ------------------------------------------------------------------ jumps

    def reads(self, op: OpRecord) -> list[int]:
        return [s for s in input_slots(op) if s in self.forks]

    def split(self, site: Site, *, lost: bool) -> Split | None:
        op = site.touch.op
        if op.short_name.endswith("_") or op.kwargs.get("out") is not None:
            return None
        result = [None if o is None else self.values.get(o) for o in op.outputs]
        if not result or any(r is None for r in result[:1]):
            return None
        split = split_of(site, [self._part(a) for a in op.args], result, lost=lost)
        if split is None or op.outputs[split.output] not in self.read:
            return None
        if split.elements is None and self.elementwise:
            return None
        return split

    def start(self, op: OpRecord, split: Split) -> None:
        """Replace a result of an operation by constants."""
        self.changed = True
        slot = op.outputs[split.output]
        if len(op.outputs) > 1:
            left = tuple(None if i == split.output else o for i, o in enumerate(op.outputs))
            self.ops.append(replace(op, outputs=left))
        args = [self._part(a) for a in op.args]
        lo = self._lowerer(op)
        numbers = split.switch(lo, args)
        self._take(lo)
        near = tuple(
            split.switch(Plain(), [at_values(a, v) for a in op.args]).value for v in self.near
        )
        if self.elementwise and split.elements is not None:
            bits, outcomes = self._one_condition(op, split, numbers, near)
        elif split.network:
            bits, outcomes = self._exchanges(op, split, args[0])
        else:
            bits, outcomes = self._conditions(op, split, numbers, near)
        parts: dict[tuple[bool, ...], Part] = {}
        for outcome in product((True, False), repeat=len(bits)):
            constant = self._constant(split.value(outcomes(dict(zip(bits, outcome, strict=True)))))
            lo = self._lowerer(op)
            parts[outcome] = constant if split.finish is None else split.finish(lo, args, constant)
            self._take(lo)
        lineage = {}
        if bits and self.elementwise and split.elements is not None:
            shape = next(iter(parts.values())).value.shape
            label = torch.zeros(shape.numel(), dtype=torch.int64)
            label[split.elements] = split.elements + 1
            lineage = {bits[0]: label.reshape(shape)}
        self._bind(op, slot, Fork(bits, parts, lineage))

    def _one_condition(
        self, op: OpRecord, split: Split, numbers: Part, near: Sequence[torch.Tensor]
    ) -> Any:
        """One bit for all elements, and the outcomes of the conditions that it stands for."""
        places = split.elements
        moving = torch.stack([n.reshape(-1)[places] for n in near]).ne(0).any(0)
        if not bool(moving.any()):
            return (), lambda _: [True] * split.count
        bit, same = self._bit(Bit(numbers, split.compare, op, tuple(near)), places)
        still = ~moving
        return (bit,), lambda holds: [s or (holds[bit] == same) for s in still.tolist()]

    def _conditions(
        self, op: OpRecord, split: Split, numbers: Part, near: Sequence[torch.Tensor]
    ) -> Any:
        """A bit for each condition that can change, and the outcomes of all that follow."""
        chosen: list[tuple[int, bool] | None] = []
        lo = self._lowerer(op)
        places = torch.arange(split.count) if split.elements is None else split.elements
        moving = torch.stack([n.reshape(-1)[places] for n in near]).ne(0).any(0)
        if int(moving.sum()) > _LOOK:
            raise CannotFollowError
        for place in places.tolist():
            beside = tuple(n.reshape(-1)[place] for n in near)
            if all(float(b) == 0 for b in beside):
                chosen.append(None)
                continue
            number = lo(_ATEN.take.default, numbers, torch.tensor(place))
            chosen.append(self._bit(Bit(number, split.compare, op, beside), None))
        self._take(lo)
        bits = tuple(sorted({c[0] for c in chosen if c is not None}))
        if len(bits) > _BITS:
            raise CannotFollowError
        return bits, lambda holds: [c is None or holds[c[0]] == c[1] for c in chosen]

    def _exchanges(self, op: OpRecord, split: Split, x: Part) -> Any:
        """A bit for each comparison of a sorting network."""
        if len(split.network) > _BITS:
            raise CannotFollowError
        lo = self._lowerer(op)
        names = dict.fromkeys(p for pair in split.network for p in pair)
        holder = {p: lo(_ATEN.take.default, x, torch.tensor(p)) for p in names}
        self._take(lo)
        bits = []
        for ahead, behind in split.network:
            lo = self._lowerer(op)
            one, two = holder[ahead], holder[behind]
            self.bits.append(Bit(lo(_ATEN.sub.Tensor, one, two), split.compare, op, ()))
            self._take(lo)
            bits.append(len(self.bits) - 1)
            holds = self._condition(bits[-1], None)
            lo = self._lowerer(replace(op, differentiated=True))
            holder[ahead] = lo(_ATEN.where.self, holds, one, two)
            holder[behind] = lo(_ATEN.where.self, holds, two, one)
            self._take(lo)
        return tuple(bits), lambda holds: [holds[b] for b in bits]

    def _bit(self, bit: Bit, places: torch.Tensor | None) -> tuple[int, bool]:
        """The number of a condition, and whether it holds where that one does, or where not."""
        for number, other in enumerate(self.bits):
            same = same_condition(bit, other, places)
            if same is not None:
                return number, same
        self.bits.append(bit)
        return len(self.bits) - 1, True

    # ------------------------------------------------------------------ what follows a jump

    def follow(self, op: OpRecord) -> None:
        """Write an operation once for each version of what it reads."""
        read = self.reads(op)
        if not read:
            self.ops.append(op)
            return
        self._refuse(op)
        bits = tuple(sorted({b for s in read for b in self.forks[s].bits}))
        if len(bits) > _BITS:
            raise CannotFollowError
        lineage = self._lineage(op, read, bits) if self.elementwise else {}
        done: dict[tuple[int, ...], tuple[Part, ...]] = {}
        versions: dict[tuple[bool, ...], tuple[Part, ...]] = {}
        noise = 0.0
        for outcome in product((True, False), repeat=len(bits)):
            holds = dict(zip(bits, outcome, strict=True))
            args = tuple(self._version(a, holds) for a in op.args)
            kwargs = {k: self._version(v, holds) for k, v in op.kwargs.items()}
            key = tuple(self.forks[s].parts[self._own(s, holds)].ref.slot for s in read)
            if key not in done:
                done[key] = self._run(op, args, kwargs)
                noise = max(noise, noise_of(op, args, kwargs, done[key]))
            versions[outcome] = done[key]
        for i, slot in enumerate(op.outputs):
            if slot is not None:
                parts = {o: v[i] for o, v in versions.items()}
                own = {b: v[i] for b, v in lineage.items()}
                self._bind(op, slot, Fork(bits, parts, own), noise)

    def _refuse(self, op: OpRecord) -> None:
        random = torch.Tag.nondeterministic_seeded in getattr(op.func, "tags", ())
        written = any(self._name(s) in self._in_place for s in input_slots(op))
        if random or written or op.hidden_write or not hasattr(op.func, "tags"):
            raise CannotFollowError

    def _own(self, slot: int, holds: Mapping[int, bool]) -> tuple[bool, ...]:
        return tuple(holds[b] for b in self.forks[slot].bits)

    def _version(self, value: Any, holds: Mapping[int, bool]) -> Any:
        if isinstance(value, Ref) and value.slot in self.forks:
            return self.forks[value.slot].parts[self._own(value.slot, holds)]
        if isinstance(value, (list, tuple)) and value:
            return type(value)(self._version(v, holds) for v in value)
        return self._part(value)

    def _run(
        self, op: OpRecord, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> tuple[Part, ...]:
        lo = self._lowerer(op)
        if any(isinstance(v, Part) for v in kwargs.values()):
            raise CannotFollowError
        try:
            out = lo(op.func, *args, **kwargs)
        except (RuntimeError, IndexError, NotImplementedError, TypeError) as error:
            raise CannotFollowError from error
        self._take(lo)
        return out if isinstance(out, tuple) else (out,)

    def _lineage(
        self, op: OpRecord, read: Sequence[int], bits: Sequence[int]
    ) -> dict[int, tuple[torch.Tensor, ...]]:
        """For each bit and result, which element of the bit's numbers decides which element."""
        shapes = [self.values[o].shape if o is not None else None for o in op.outputs]
        found = {}
        for bit in bits:
            own = {s: self.forks[s].lineage[bit] for s in read if bit in self.forks[s].bits}
            if op.short_name in _MOVED and len(read) == 1:
                moved = op.func(own[read[0]], *op.args[1:], **op.kwargs)
                found[bit] = tuple(moved) if isinstance(moved, (tuple, list)) else (moved,)
                continue
            pointwise = torch.Tag.pointwise in op.func.tags and len(shapes) == 1
            if not pointwise or shapes[0] is None:
                raise CannotFollowError
            label = torch.zeros(shapes[0], dtype=torch.int64)
            for lines in own.values():
                wide = lines.expand(shapes[0])
                if bool(((label > 0) & (wide > 0) & (label != wide)).any()):
                    raise CannotFollowError
                label = torch.maximum(label, wide)
            found[bit] = (label,)
        return found

    # ------------------------------------------------------------------ where the sides agree

    def _bind(self, op: OpRecord, slot: int | None, fork: Fork, noise: float = 0.0) -> None:
        """Note a tensor in versions, without conditions that no longer matter."""
        if slot is None:
            return
        fork = self._joined(op, fork, noise)
        if fork.bits:
            self.forks[slot] = fork
            return
        (part,) = fork.parts.values()
        self._alias(op, slot, part)

    def _joined(self, op: OpRecord, fork: Fork, noise: float = 0.0, *, force: bool = False) -> Fork:
        changed = True
        while changed and fork.bits:
            changed = False
            for place, bit in enumerate(fork.bits):
                pairs = {
                    o[:place] + o[place + 1 :]: (part, fork.parts[without(o, place)])
                    for o, part in fork.parts.items()
                    if o[place]
                }
                if not force and not all(agree(a, b, noise) for a, b in pairs.values()):
                    continue
                parts = {
                    o: self._choose(op, (bit, fork.lineage.get(bit)), a, b, noise)
                    for o, (a, b) in pairs.items()
                }
                rest = fork.bits[:place] + fork.bits[place + 1 :]
                left = {b: v for b, v in fork.lineage.items() if b != bit}
                fork, changed = Fork(rest, parts, left), True
                break
        return fork

    def _choose(
        self,
        op: OpRecord,
        by: tuple[int, torch.Tensor | None],
        a: Part,
        b: Part,
        noise: float,
    ) -> Part:
        if a.ref == b.ref or not a.value.is_floating_point():
            return a
        condition = self._condition(*by)
        lo = self._lowerer(replace(op, differentiated=True))
        gap = torch.nan_to_num(a.value - b.value)
        near = gap.abs() <= noise
        if bool(((gap != 0) & near).any()):  # roundings, which are no jump
            b = lo(_ATEN.add.Tensor, b, torch.where(near, gap, 0.0))
        chosen: Part = lo(_ATEN.where.self, condition, a, b)
        self._take(lo)
        return chosen

    def _condition(self, bit: int, lines: torch.Tensor | None) -> Part:
        """The truth value of a condition, in the places of a tensor."""
        own = self.bits[bit]
        key = b"" if lines is None else repr(lines.shape).encode() + lines.numpy().tobytes()
        known = own.holds.get(key)
        if known is not None:
            return known
        lo = self._lowerer(replace(own.op, differentiated=True))
        numbers = own.numbers
        if lines is not None:
            shaped = lo(_ATEN.take.default, numbers, (lines - 1).clamp(min=0))
            one = torch.ones((), dtype=torch.float64)
            numbers = lo(_ATEN.where.self, lines > 0, shaped, one)
        found: Part = lo(own.compare, numbers, 0)
        own.holds[key] = found
        self._take(lo)
        return found

    # ------------------------------------------------------------------ writing

    def finished(self) -> Trace | None:
        """The new trace."""
        if not self.changed:
            return None
        out = self.trace.output
        fork = self.forks.get(out)
        if fork is not None:
            last = next(op for op in reversed(self.trace.ops) if out in op.outputs)
            (part,) = self._joined(last, fork, force=True).parts.values()
            self._alias(last, out, part)
        return replace(
            self.trace,
            ops=tuple(self.ops),
            externals=MappingProxyType(self.externals),
            slot_dtypes=MappingProxyType(self.dtypes),
        )
