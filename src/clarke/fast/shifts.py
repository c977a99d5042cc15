"""Pointwise kinks settled by shifting a bias: Theorems 4 and 6, on whatever the trace shows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from clarke.capture import Ref
from clarke.fast.layers import BATCH_NORM, CONVOLUTION

if TYPE_CHECKING:
    from clarke.capture import OpRecord
    from clarke.fast.graph import Graph
    from clarke.kinks import KinkRule, Touch

# Operations of one argument x whose switching functions are x minus a constant.
SHIFTED = frozenset(
    {"relu", "relu_", "hardtanh", "hardtanh_", "hardsigmoid", "hardsigmoid_", "hardswish"}
    | {"hardswish_", "leaky_relu", "leaky_relu_", "elu", "elu_", "celu", "celu_"}
)


@dataclass(frozen=True, eq=False)
class Shift:
    """A bias that enters all pre-activations of an operation with coefficient one.

    Attributes:
        slot: The bias.
        use: Position of the operation that adds it.
        signs: (number of channels,) the direction: -1 or +1 where a kink is touched, else 0.
    """

    slot: int
    use: int
    signs: torch.Tensor


def touch_at_zeros(rule: KinkRule, op: OpRecord, elements: torch.Tensor) -> Touch:
    """The touched kinks of a ReLU whose input is known to be zero at the flat places `elements`.

    The rule looks at the touched elements only. The touch has no `base` of its own.
    """
    dtype = (op.kept[0] if op.signs is None else op.signs.output).dtype
    values = torch.zeros(elements.numel(), dtype=dtype)
    found = rule.find(replace(op, kept={0: values}, signs=None))
    return replace(found, op=op, elements=elements[found.elements])


def find_shift(graph: Graph, position: int, touch: Touch) -> Shift | None:
    """The shift of one bias that selects AD's pieces at all touched kinks of an operation.

    None if the last bias before it is not added to each element with coefficient one, is used
    elsewhere too, or would have to move both ways in one channel.
    """
    op = graph.trace.ops[position]
    values = op.kept[0] if op.signs is None else op.signs.output
    if values.dim() < 2 or touch.hazards or bool(touch.mixed().any()):
        return None
    if touch.members.numel() != 2 * touch.count:
        return None
    best = max(_biases(graph, position, 0), key=lambda found: found[1], default=None)
    if best is None:
        return None
    slot, use = best
    bias = graph.trace.externals[slot].tensor
    if bias.dim() != 1 or bias.numel() != values.shape[1]:
        return None
    upper = touch.members.reshape(-1, 2).amax(1)
    sign = torch.where(touch.chosen() == upper, 1, -1)
    inner = values[0, 0].numel()
    channel = torch.div(touch.elements, inner, rounding_mode="floor") % values.shape[1]
    signs = torch.zeros(values.shape[1], dtype=torch.int64)
    signs[channel] = sign
    if not torch.equal(signs[channel], sign):
        return None
    return Shift(slot, use, signs.to(torch.float64))


def _biases(graph: Graph, position: int, argument: int) -> list[tuple[int, int]]:
    """(slot, use) of the variables added to an argument, each through one path only."""
    value = graph.trace.ops[position].args[argument]
    if not isinstance(value, Ref):
        return []
    maker = graph.makers[position].get(value.slot)
    if maker is None or graph.trace.ops[maker].outputs[0] != value.slot:
        return []
    op = graph.trace.ops[maker]
    place = -1
    if op.name == CONVOLUTION or op.short_name in BATCH_NORM:
        place = 2
    elif op.short_name == "addmm" and len(op.args) == 3 and not op.kwargs:
        place = 0
    elif op.name == "aten::add.Tensor" and len(op.args) == 2 and not op.kwargs:
        found: list[tuple[int, int]] = []
        for own, other in ((0, 1), (1, 0)):
            across = op.args[other]
            if not isinstance(across, Ref):
                continue
            made = graph.makers[maker].get(across.slot)
            found += [
                (slot, use)
                for slot, use in _biases(graph, maker, own)
                if across.slot != slot and not graph.depends(made, slot)
            ]
        return found
    if place < 0:
        return []
    bias = graph.leaf(maker, place)
    return [] if bias is None or graph.uses.get(bias) != maker else [(bias, maker)]
