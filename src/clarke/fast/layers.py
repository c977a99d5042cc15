"""What stands before a kink: the operations between it and the parameters of its own layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from clarke.capture import Origin, Ref
from clarke.devices import array_of
from clarke.fast.geometry import Windows, conv_windows, pool_windows

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from clarke.capture import OpRecord
    from clarke.fast.graph import Graph

RELU = frozenset({"relu", "relu_"})
POOL = "aten::max_pool2d_with_indices.default"
CONVOLUTION = "aten::convolution.default"
BATCH_NORM = frozenset(
    {"native_batch_norm", "_native_batch_norm_legit", "_batch_norm_with_update", "cudnn_batch_norm"}
)


@dataclass(frozen=True)
class PoolLayer:
    """A maxpool with the convolution before it, perhaps with normalisation and ReLU between.

    Positions in the trace; slots of variables, None where there is none. The weight is None where
    no direction of it settles anything: it is constant, or others read it, too.
    """

    pool: int
    relu: int | None
    norm: int | None
    conv: int
    weight: int | None
    gamma: torch.Tensor | None
    biases: frozenset[int]


def pool_layer(graph: Graph, pool: int) -> PoolLayer | None:
    """The layer of a maxpool, if it has the form conv, [batch norm], [relu], maxpool."""
    ops = graph.trace.ops
    at = graph.maker(pool, 0)
    relu = norm = None
    if at is not None and ops[at].short_name in RELU:
        relu, at = at, graph.maker(at, 0)
    gamma = None
    biases: set[int] = set()
    if at is not None and ops[at].short_name in BATCH_NORM:
        norm = at
        scale = ops[at].args[1]
        if isinstance(scale, Ref):
            external = graph.trace.externals.get(scale.slot)
            if external is None:
                return None
            gamma = external.tensor.detach()
        shift = graph.leaf(at, 2)
        if shift is not None:
            biases.add(shift)
        at = graph.maker(at, 0)
    if at is None or not is_plain_convolution(graph, at):
        return None
    weight = graph.leaf(at, 1)
    if weight is not None and graph.uses.get(weight) != at:
        weight = None
    shift = graph.leaf(at, 2)
    if shift is not None:
        biases.add(shift)
    return PoolLayer(pool, relu, norm, at, weight, gamma, frozenset(biases))


def is_plain_convolution(graph: Graph, position: int) -> bool:
    """A convolution in two dimensions, not transposed."""
    op = graph.trace.ops[position]
    if op.name != CONVOLUTION or op.args[6]:
        return False
    shape = weight_shape(graph, position)
    return shape is not None and len(shape) == 4


def weight_shape(graph: Graph, position: int) -> tuple[int, ...] | None:
    """Shape of the weight of a convolution, if the weight is an external tensor."""
    ref = graph.trace.ops[position].args[1]
    external = graph.trace.externals.get(ref.slot) if isinstance(ref, Ref) else None
    return None if external is None else tuple(external.tensor.shape)


def windows_of_pool(graph: Graph, position: int) -> Windows:
    """Geometry of a maxpool, from its recorded input and output."""
    op = graph.trace.ops[position]
    space, out = op.kept[0].shape[-2:], op.kept_outputs[1].shape[-2:]
    return pool_windows(op, (space[0], space[1]), (out[0], out[1]))


def windows_of_conv(graph: Graph, position: int, space: tuple[int, int]) -> Windows:
    """Geometry of a plain convolution on an input of the given size."""
    shape = weight_shape(graph, position) or (1, 1, 1, 1)
    return conv_windows(graph.trace.ops[position], (shape[2], shape[3]), space)


def argument_values(graph: Graph, position: int, argument: int) -> torch.Tensor | None:
    """Recorded values of an argument, where the record holds or implies them; else None."""
    value = graph.trace.ops[position].args[argument]
    if not isinstance(value, Ref):
        return None
    maker = graph.makers[position].get(value.slot)
    if maker is None:
        external = graph.trace.externals[value.slot]
        if external.origin is not Origin.CONSTANT or external.stopped:
            return None
        if external.snapshot is not None:  # a recorded operation has written to it since
            return None
        return external.tensor.detach()
    op = graph.trace.ops[maker]
    if op.name == POOL and op.outputs[0] == value.slot:
        return op.kept_outputs.get(0)
    if op.short_name in RELU:
        return relu_values(op)
    return None


def relu_values(op: OpRecord) -> torch.Tensor:
    """What a ReLU returned."""
    return op.kept[0].clamp(min=0) if op.signs is None else op.signs.output


def as_array(tensor: torch.Tensor) -> NDArray[Any] | None:
    """A contiguous (N, C, H, W) array of float32 or float64 on the CPU, or None."""
    if tensor.device.type != "cpu" or tensor.dtype not in (torch.float32, torch.float64):
        return None
    if tensor.dim() == 3:
        tensor = tensor.unsqueeze(0)
    if tensor.dim() != 4:
        return None
    found: NDArray[Any] = np.ascontiguousarray(array_of(tensor.contiguous()))
    return found
