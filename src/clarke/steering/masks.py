"""Follows comparisons at ties into the operations that use them.

A comparison such as ``x >= 0`` has no derivative; what matters is the operation that multiplies by
it or selects with it. There, the two values that a flipped comparison would give must agree (or
the program jumps), and the gradient of their difference says whether the flip matters.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from clarke.capture import OpRecord, Ref
from clarke.kinks import Call, Touch

if TYPE_CHECKING:
    from collections.abc import Sequence

# Operations that move or convert a mask without mixing elements.
_MOVES = frozenset(
    [
        "view",
        "reshape",
        "_unsafe_view",
        "unsqueeze",
        "squeeze",
        "expand",
        "permute",
        "transpose",
        "t",
        "select",
        "slice",
        "clone",
        "alias",
        "detach",
        "flatten",
        "contiguous",
    ]
)
_CONVERTS = frozenset(["_to_copy", "to", "logical_not", "bitwise_not", "type_as"])
_SCALES = frozenset(["mul", "div", "add", "sub", "rsub", "neg"])


@dataclass(frozen=True, eq=False)
class Flip:
    """A mask with both values where a comparison was at a tie, or a sign with -1 and 1.

    Attributes:
        first: Its value with the tied elements true (1 for a sign).
        other: Its value with them false (-1).
        label: 0, or 1 + the element's position in the comparison's touch.
        site: Index of the comparison's record.
        signed: It stems from a sign, which autograd differentiates (to zero).
    """

    first: torch.Tensor
    other: torch.Tensor
    label: torch.Tensor
    site: int
    signed: bool


@dataclass(frozen=True, eq=False)
class MaskUse:
    """One operation through which flipped comparisons reach differentiable values.

    Attributes:
        op: The operation.
        site: Index of the comparison's record.
        kink: (D,) the comparison's touched kink for each affected element.
        difference: (D,) differentiable: value with the comparison true minus with it false; None
            where the operation is not one that clarke can follow a mask through.
        other: (D,) differentiable: value with the comparison false, None likewise.
        elements: (D,) flat positions of the affected elements in the operation's output.
        scale: Largest absolute value on either side, anywhere in the output.
    """

    op: OpRecord
    site: int
    kink: torch.Tensor
    difference: torch.Tensor | None
    other: torch.Tensor | None
    elements: torch.Tensor | None
    scale: float = 0.0


class MaskTracker:
    """Carries `Flip`s through a replay, by slot."""

    def __init__(self) -> None:
        self.flips: dict[int, Flip] = {}
        self.uses: list[MaskUse] = []

    def observe(
        self,
        op: OpRecord,
        call: Call,
        outputs: Sequence[Any],
        touch: Touch | None,
    ) -> None:
        """Look at one executed operation."""
        out = outputs[0] if outputs else None
        if touch is not None and touch.count and isinstance(out, torch.Tensor) and _starts(op, out):
            self._start(op, out, touch)
            return
        if not self.flips:
            return
        refs = [a for a in (*op.args, *op.kwargs.values()) if isinstance(a, Ref)]
        nested = [r for a in op.args if isinstance(a, (list, tuple)) for r in a]
        flipped = [r for r in refs if r.slot in self.flips]
        flipped += [r for r in nested if isinstance(r, Ref) and r.slot in self.flips]
        if not flipped:
            return
        if len(flipped) > 1 or flipped[0] not in op.args:
            for r in flipped:
                self._unknown(op, self.flips[r.slot])
            return
        self._follow(op, call, out, op.args.index(flipped[0]), self.flips[flipped[0].slot])

    def _start(self, op: OpRecord, out: torch.Tensor, touch: Touch) -> None:
        label = torch.zeros(out.numel(), dtype=torch.int64)
        label[touch.elements] = torch.arange(1, touch.count + 1)
        label = label.reshape(out.shape)
        signed = out.is_floating_point()
        low = -1 if signed else False
        first = torch.where(label > 0, torch.ones_like(out), out.detach())
        other = torch.where(label > 0, torch.full_like(out, low), out.detach())
        slot = op.outputs[0]
        if slot is not None:
            self.flips[slot] = Flip(first, other, label, op.index, signed)

    def _unknown(self, op: OpRecord, flip: Flip) -> None:
        kink = flip.label[flip.label > 0].unique() - 1
        self.uses.append(MaskUse(op, flip.site, kink, None, None, None))

    def _follow(self, op: OpRecord, call: Call, out: Any, position: int, flip: Flip) -> None:
        name = op.short_name
        slot = op.outputs[0] if op.outputs else None
        if not isinstance(out, torch.Tensor) or slot is None or name.endswith("_"):
            self._unknown(op, flip)
            return
        others = [a for i, a in enumerate(call.args) if i != position]
        plain = not any(isinstance(a, torch.Tensor) for a in others)
        # A mask has no derivative, so a differentiated result has it from the other factor.
        constant = plain if flip.signed else not op.differentiated

        def both(cast: torch.dtype | None = None) -> tuple[torch.Tensor, torch.Tensor]:
            sides = []
            for side in (flip.first, flip.other):
                args = list(call.args)
                args[position] = side
                value = side if cast is not None else op.func(*args, **call.kwargs)
                sides.append(value if cast is None else value.to(cast))
            return sides[0], sides[1]

        if name in _MOVES and position == 0:
            moved = op.func(flip.label, *call.args[1:], **call.kwargs)
            self.flips[slot] = Flip(*both(), moved, flip.site, flip.signed)
        elif name in _CONVERTS and position == 0:
            cast = None if "not" in name else out.dtype
            self.flips[slot] = Flip(*both(cast), flip.label, flip.site, flip.signed)
        elif name in _SCALES and constant:
            label = flip.label.expand(out.shape)
            self.flips[slot] = Flip(*both(), label, flip.site, flip.signed)
        elif (
            (name == "where" and position == 0)
            or (name == "mul" and not constant)
            or (name == "masked_fill" and position == 1)
        ):
            self._use(op, both(), flip)
        else:
            self._unknown(op, flip)

    def _use(self, op: OpRecord, sides: tuple[torch.Tensor, torch.Tensor], flip: Flip) -> None:
        label = flip.label.expand(sides[0].shape).reshape(-1)
        at = label.nonzero().squeeze(1)
        other = sides[1].reshape(-1)[at]
        difference = sides[0].reshape(-1)[at] - other
        scale = max((float(s.detach().abs().max()) for s in sides if s.numel()), default=0.0)
        self.uses.append(MaskUse(op, flip.site, label[at] - 1, difference, other, at, scale))


def _starts(op: OpRecord, value: torch.Tensor) -> bool:
    """Whether an operation with touched kinks makes a mask or a sign."""
    return value.dtype == torch.bool or op.short_name in ("sign", "sgn")
