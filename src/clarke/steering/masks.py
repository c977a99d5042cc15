"""Follows comparisons at ties into the operations that use them.

A comparison such as ``x >= 0`` has no derivative; what matters is the operation that multiplies by
it or selects with it. There, the two values that a flipped comparison would give must agree (or
the program jumps), and the gradient of their difference says whether the flip matters.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import torch

from clarke.capture import OpRecord, Ref
from clarke.kinks import Call, Touch
from clarke.kinks.facts import MOVES, words
from clarke.steering.adapt import adapted
from clarke.steering.flips import Flip, outcomes, packed, reduced, starting
from clarke.steering.uses import MaskUse, Picked

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_MOVED: Final = MOVES | {"detach"}
# Elementwise operations: an element of the result depends on one element of each argument.
_ELEMENTWISE: Final = words(
    "logical_and logical_or logical_xor logical_not bitwise_and bitwise_or bitwise_xor "
    "bitwise_not mul div add sub rsub neg where masked_fill _to_copy to type_as abs pow sqrt "
    "reciprocal exp log maximum minimum clamp clamp_min clamp_max eq ne lerp addcmul copy index_put"
)
# Of these, affine in each argument (in the first, of a quotient).
_AFFINE: Final = words("mul div add sub rsub neg where masked_fill _to_copy")
# Smooth operations that treat every row that a mask has picked alike.
_PER_ROW: Final = words("add sub rsub mul div neg pow exp sigmoid tanh sin cos")
_FEW = 6  # ties that may decide what a mean is taken of
_REDUCTIONS: Final = words("any all sum mean count_nonzero")  # of constants


class MaskTracker:
    """Carries `Flip`s through a replay, by slot.

    Args:
        shared: Slots whose memory other slots show as well.
        result: Slot of the program's result.
        dtype: Floating point type of the replay.
    """

    def __init__(self, shared: frozenset[int], result: int, dtype: torch.dtype) -> None:
        self.flips: dict[int, Flip] = {}
        self.uses: list[MaskUse] = []
        self.picked: dict[int, Picked] = {}
        self._shared = shared
        self._result = result
        self._dtype = dtype

    def before(self, op: OpRecord, call: Call) -> Call:
        """The call with its arguments as they are, should the operation overwrite one."""
        if not self.flips or not op.short_name.endswith("_") or not self._read(op):
            return call
        return Call(call.func, (call.args[0].clone(), *call.args[1:]), call.kwargs)

    def observe(
        self,
        op: OpRecord,
        call: Call,
        outputs: Sequence[Any],
        touch: Touch | None,
        first: int,
        *,
        steered: bool,
    ) -> None:
        """Look at one executed operation.

        Args:
            op: The operation.
            call: The same with the replay's tensors, as they were before.
            outputs: What it returned.
            touch: Its touched kinks.
            first: Number of the first of them.
            steered: It ran with pieces for each element.
        """
        out = outputs[0] if outputs else None
        slot = op.outputs[0] if op.outputs else None
        if touch is not None and touch.count and isinstance(out, torch.Tensor) and _starts(op, out):
            if slot is not None:
                signed = out.is_floating_point()
                self.flips[slot] = starting(out, touch.elements, first, signed=signed)
            self._finish(op)
            return
        if not self.flips:
            return
        read = self._read(op)
        picked = [s for s in _slots(op) if s in self.picked]
        if picked:
            if read or steered or not self._map(op, call, out):
                kinks = torch.cat([self.picked[s].kinks for s in picked])
                self.uses.append(MaskUse(op, kinks.unique()))
            return
        if op.short_name in ("index", "masked_select") and self._pick(op, call):
            return
        if not read:
            if slot in self.flips and op.short_name.endswith("_"):
                del self.flips[slot]  # overwritten
                if slot in self._shared:
                    self._unknown(op, ())
            return
        if not isinstance(out, torch.Tensor) or slot is None or not self._follow(op, call, out):
            self._unknown(op, tuple(read))
        self._finish(op)

    def _finish(self, op: OpRecord) -> None:
        """The result itself is the last use of what it depends on."""
        flip = self.flips.get(self._result)
        if flip is not None and self._result in op.outputs:
            self._use(op, flip.values, flip.labels)

    def _read(self, op: OpRecord) -> list[int]:
        return [s for s in _slots(op) if s in self.flips]

    def _pick(self, op: OpRecord, call: Call) -> bool:
        """Note the result of indexing by a mask of which some elements are at ties."""
        index, given = op.args[1], call.args[1]
        if isinstance(index, (list, tuple)):
            if len(index) != 1:
                return False
            index, given = index[0], given[0]
        source, slot = op.args[0], op.outputs[0]
        if not isinstance(index, Ref) or not isinstance(source, Ref) or slot is None:
            return False
        flip = self.flips.get(index.slot)
        if flip is None or source.slot in self.flips or flip.depth != 1:
            return False
        at = flip.labels[0] > 0
        x = call.args[0]
        if given.dtype != torch.bool or x.shape[: at.dim()] != at.shape:
            return False
        self.picked[slot] = Picked(index.slot, x[at], flip.labels[0][at] - 1, given[at])
        return True

    def _map(self, op: OpRecord, call: Call, out: Any) -> bool:
        """Follow picked rows through one operation."""
        name, slot = op.short_name, op.outputs[0] if op.outputs else None
        if not isinstance(out, torch.Tensor) or slot is None or any(_inside(op)):
            return False
        own = [self.picked[s] for s in _slots(op) if s in self.picked]
        first = own[0]
        if name in ("sum", "mean"):
            return self._total(op, call, out, first)
        others = [a for a in call.args if isinstance(a, torch.Tensor)]
        alike = all(p.mask == first.mask and p.rows.dim() == first.rows.dim() for p in own)
        single = sum(1 for a in others if a.numel() != 1 or a.dim() > 0)
        if name not in _PER_ROW or not alike or single != len(own) or op.kwargs:
            return False
        args = [
            self.picked[a.slot].rows if isinstance(a, Ref) and a.slot in self.picked else v
            for a, v in zip(op.args, call.args, strict=True)
        ]
        self.picked[slot] = Picked(first.mask, op.func(*args), first.kinks, first.present)
        return True

    def _total(self, op: OpRecord, call: Call, out: torch.Tensor, own: Picked) -> bool:
        """A sum or mean over all picked entries."""
        if out.dim() != 0 or op.kwargs:
            return False
        count = own.kinks.numel()
        each = own.rows.reshape(count, -1).sum(1)
        zeros = torch.zeros(count, dtype=torch.int64)
        if op.short_name == "sum":
            size = float(each.detach().abs().max()) if count else 0.0
            scale = max(size, float(out.detach().abs()))
            if count:
                present = own.present
                self.uses.append(MaskUse(op, own.kinks, each, zeros, scale, present=present))
            return True
        if count > _FEW or own.kinks.unique().numel() < count:
            return False
        share = own.present.to(each.dtype)
        width = own.rows[0].numel() if count else 1
        total = call.args[0].sum() - (share * each).sum()
        number = call.args[0].numel() - width * int(own.present.sum())
        table = []
        for outcome in range(1 << count):
            bits = (outcome >> torch.arange(count)) & 1
            if number + width * int(bits.sum()) == 0:
                return False
            table.append((total + (bits * each).sum()) / (number + width * int(bits.sum())))
        self._use(op, torch.stack(table), own.kinks[:, None] + 1)
        return True

    def _unknown(self, op: OpRecord, slots: tuple[int, ...]) -> None:
        kinks = [self.flips[s].kinks() for s in slots]
        every = torch.cat(kinks) if kinks else torch.zeros(0, dtype=torch.int64)
        self.uses.append(MaskUse(op, every.unique()))

    def _follow(self, op: OpRecord, call: Call, out: torch.Tensor) -> bool:
        name = op.short_name
        written = name.endswith("_")
        name = name.rstrip("_")
        slot = op.outputs[0]
        flips = [self.flips[s] for s in self._read(op)]
        signed = any(f.signed for f in flips)
        others = [
            a
            for a in (*op.args, *op.kwargs.values(), *_inside(op))
            if isinstance(a, Ref) and a.slot not in self.flips
        ]
        # A mask has no derivative, so a differentiated result has it from another factor.
        constant = not others if signed else not op.differentiated
        # Other tensors may show the memory that a mask is written to.
        apart = slot in self.flips and slot not in self._shared
        if slot is None or (written and constant and not apart):
            return False
        if name in _MOVED and not written:
            single = len(flips) == 1 and not others and isinstance(op.args[0], Ref)
            if single:
                self.flips[slot] = flips[0].moved(
                    lambda v: op.func(v, *call.args[1:], **call.kwargs)
                )
            return single
        if name in _REDUCTIONS and constant and not written:
            if signed and name not in ("sum", "mean"):
                return False
            return len(flips) == 1 and self._reduce(op, call, flips[0], slot)
        if signed and not self._affine(op, flips):
            return False
        if name not in _ELEMENTWISE or (name == "index_put" and not _puts_one_value(call)):
            return False
        found = outcomes(flips, self._runner(op, call))
        if found is None or found[0].shape[1:] != out.shape:
            return False
        values, labels = found
        if not constant and values.dtype is torch.bool:  # of a number and a mask, a comparison
            return False
        if not constant:
            self._use(op, values, labels)
            return True
        return self._keep(slot, packed(values.detach(), labels, signed=signed))

    def _keep(self, slot: int, table: Flip | None) -> bool:
        """Note on what a constant depends, if on anything."""
        if table is None:
            return False
        if bool((table.labels > 0).any()):
            self.flips[slot] = table
        else:
            self.flips.pop(slot, None)
        return True

    def _runner(
        self, op: OpRecord, call: Call
    ) -> Callable[[tuple[torch.Tensor, ...]], torch.Tensor]:
        """Runs the operation with other values in the places of what depends on comparisons."""

        def run(values: tuple[torch.Tensor, ...]) -> torch.Tensor:
            rest = iter(values)

            def put(reference: Any, value: Any) -> Any:
                if isinstance(reference, Ref):
                    return next(rest) if reference.slot in self.flips else value
                if isinstance(reference, (list, tuple)) and reference:
                    return [put(r, v) for r, v in zip(reference, value, strict=True)]
                return value

            # `_read` lists arguments first, then what stands inside of lists.
            args: list[Any] = list(call.args)
            for i, a in enumerate(op.args):
                if isinstance(a, Ref):
                    args[i] = put(a, args[i])
            kwargs = {k: put(op.kwargs.get(k), v) for k, v in call.kwargs.items()}
            for i, a in enumerate(op.args):
                if isinstance(a, (list, tuple)):
                    args[i] = put(a, args[i])
            if op.short_name.endswith("_"):
                args[0] = args[0].clone()
            func, adapted_args, adapted_kwargs = adapted(
                op, Call(op.func, tuple(args), kwargs), self._dtype
            )
            out: torch.Tensor = func(*adapted_args, **adapted_kwargs)
            return out

        return run

    def _affine(self, op: OpRecord, flips: Sequence[Flip]) -> bool:
        """Whether the result is affine in a sign, whose value 0 at 0 is then the mean of both."""
        if len(flips) != 1 or op.short_name.rstrip("_") not in _AFFINE:
            return False
        first = isinstance(op.args[0], Ref) and op.args[0].slot in self.flips
        return first or not op.short_name.startswith("div")

    def _reduce(self, op: OpRecord, call: Call, flip: Flip, slot: int) -> bool:
        name = op.short_name
        dims = call.arg(1, "dim", ())
        dims = () if dims is None else (dims,) if isinstance(dims, int) else tuple(dims)
        keepdim = bool(call.arg(2, "keepdim", False))
        dtype = call.kwargs.get("dtype")

        def combine(rows: torch.Tensor) -> torch.Tensor:
            if name in ("any", "all"):
                return rows.bool().any(1) if name == "any" else rows.bool().all(1)
            if name == "count_nonzero":
                return (rows != 0).sum(1)
            return rows.sum(1, dtype=dtype) if name == "sum" else rows.mean(1, dtype=dtype)

        return self._keep(slot, reduced(flip, dims, combine, keepdim=keepdim))

    def _use(self, op: OpRecord, values: torch.Tensor, labels: torch.Tensor) -> None:
        values = values.reshape(values.shape[0], -1)
        labels = labels.reshape(labels.shape[0], -1)
        at = (labels > 0).any(0).nonzero().squeeze(1)
        scale = float(values.detach().abs().max()) if values.numel() else 0.0
        table, labels = values[:, at], labels[:, at]
        kinks, gaps, places = [], [], []
        for j in range(labels.shape[0]):
            for outcome in range(table.shape[0]):
                if outcome >> j & 1:
                    continue
                mine = labels[j] > 0
                for k in range(labels.shape[0]):
                    if outcome >> k & 1:
                        mine = mine & (labels[k] > 0)
                if bool(mine.any()):
                    kinks.append(labels[j][mine] - 1)
                    gaps.append((table[outcome | 1 << j] - table[outcome])[mine])
                    places.append(at[mine])
        if kinks:
            self.uses.append(
                MaskUse(
                    op,
                    torch.cat(kinks),
                    torch.cat(gaps),
                    torch.cat(places),
                    scale,
                    table,
                    labels,
                    at,
                )
            )


def _puts_one_value(call: Call) -> bool:
    """Whether an index_put writes one number wherever a mask of the same shape holds."""
    target, indices, value = call.args[0], call.args[1], call.args[2]
    return (
        len(indices) == 1
        and isinstance(indices[0], torch.Tensor)
        and indices[0].dtype == torch.bool
        and indices[0].shape == target.shape
        and value.numel() == 1
        and not (len(call.args) > 3 and call.args[3])
    )


def _slots(op: OpRecord) -> list[int]:
    """Slots that an operation reads: among its arguments, then inside of lists."""
    found = [*op.args, *op.kwargs.values(), *_inside(op)]
    return [a.slot for a in found if isinstance(a, Ref)]


def _inside(op: OpRecord) -> list[Any]:
    return [r for a in op.args if isinstance(a, (list, tuple)) for r in a]


def _starts(op: OpRecord, value: torch.Tensor) -> bool:
    """Whether an operation with touched kinks makes a mask or a sign."""
    return value.dtype == torch.bool or op.short_name in ("sign", "sgn")
