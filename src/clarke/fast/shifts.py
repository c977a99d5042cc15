"""Pointwise kinks settled by shifting a bias: Theorems 4 and 6, on whatever the trace shows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from clarke.capture import Ref
from clarke.fast.layers import BATCH_NORM, CONVOLUTION, weight_shape

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
    # Behind a sum the channels of an addend may lie along another dimension of the whole.
    addends = _biases(graph, position, 0, {})
    fitting = [(b.slot, b.use) for b in addends if not b.added or b.dimensions == values.dim()]
    best = max(fitting, key=lambda found: found[1], default=None)
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


@dataclass(frozen=True)
class _Bias:
    """A variable added to a value through one path only.

    Attributes:
        slot: The variable.
        use: Position of the operation that adds it.
        dimensions: Of that operation's result, whose second dimension is the bias's; 0 if unknown.
        added: The result has been added to something else since.
    """

    slot: int
    use: int
    dimensions: int
    added: bool = False


def _biases(
    graph: Graph, position: int, argument: int, known: dict[int, tuple[_Bias, ...]]
) -> tuple[_Bias, ...]:
    """The variables added to an argument, each through one path only.

    Args:
        graph: The trace.
        position: The operation.
        argument: Position of its argument.
        known: What has been found for operations, filled in; without it a chain of sums of a
            value with itself would take time without end.
    """
    value = graph.trace.ops[position].args[argument]
    if not isinstance(value, Ref):
        return ()
    maker = graph.makers[position].get(value.slot)
    if maker is None or graph.trace.ops[maker].outputs[0] != value.slot:
        return ()
    if maker not in known:
        known[maker] = _biases_of(graph, maker, known)
    return known[maker]


def _biases_of(graph: Graph, maker: int, known: dict[int, tuple[_Bias, ...]]) -> tuple[_Bias, ...]:
    op = graph.trace.ops[maker]
    place = -1
    if op.name == CONVOLUTION or op.short_name in BATCH_NORM:
        place = 2
    elif op.short_name == "addmm" and len(op.args) == 3 and not op.kwargs:
        row = op.args[0]  # seen as a column, a bias is one for each row of the result
        plain = isinstance(row, Ref) and graph.makers[maker].get(row.slot) is None
        place = 0 if plain else -1
    elif op.name == "aten::add.Tensor" and len(op.args) == 2 and not op.kwargs:
        found: list[_Bias] = []
        for own, other in ((0, 1), (1, 0)):
            across = op.args[other]
            if not isinstance(across, Ref):
                continue
            made = graph.makers[maker].get(across.slot)
            found += [
                replace(b, added=True)
                for b in _biases(graph, maker, own, known)
                if across.slot != b.slot and not graph.depends(made, b.slot)
            ]
        return tuple(found)
    if place < 0:
        return ()
    bias = graph.leaf(maker, place)
    if bias is None or graph.uses.get(bias) != maker:
        return ()
    return (_Bias(bias, maker, _dimensions(graph, maker)),)


def _dimensions(graph: Graph, position: int | None) -> int:
    """How many dimensions the result of an operation has; 0 if that is not known."""
    if position is None:
        return 0
    op = graph.trace.ops[position]
    if op.name == CONVOLUTION:
        shape = weight_shape(graph, position)
        return 0 if shape is None else len(shape)
    if op.short_name in BATCH_NORM:
        return _dimensions(graph, graph.maker(position, 0))
    return 2 if op.short_name == "addmm" else 0
