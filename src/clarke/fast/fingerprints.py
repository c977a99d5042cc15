"""Codes of receptive fields along a trace, computed where they are needed and as far as needed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from clarke.capture import Ref
from clarke.fast.layers import (
    BATCH_NORM,
    POOL,
    RELU,
    argument_values,
    as_array,
    is_plain_convolution,
    windows_of_conv,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from clarke.fast.codes import Coder
    from clarke.fast.graph import Graph


class Fingerprints:
    """Codes for some of the images of a batch.

    Args:
        graph: The trace.
        coder: Multipliers.
        images: (B,) the images of the batch that are looked at.
    """

    def __init__(self, graph: Graph, coder: Coder, images: NDArray[np.intp]) -> None:
        self._graph = graph
        self._coder = coder
        self._images = images
        self._known: dict[int, Any] = {}

    def outputs(self, position: int) -> Any:
        """(B, H, W) codes of an operation's outputs (codes.py); None if it has none."""
        if position not in self._known:
            self._known[position] = self._compute(position)
        return self._known[position]

    def _compute(self, position: int) -> Any:
        op = self._graph.trace.ops[position]
        if is_plain_convolution(self._graph, position):
            return self._convolution(position)
        if op.short_name in BATCH_NORM:
            return self._argument(position, 0)
        if op.short_name in RELU:
            return self._relu(position)
        if op.name == POOL:
            return self._pool(position)
        if op.name == "aten::add.Tensor":
            return self._sum(position)
        return None

    def _argument(self, position: int, argument: int) -> Any:
        value = self._graph.trace.ops[position].args[argument]
        if not isinstance(value, Ref):
            return None
        maker = self._graph.makers[position].get(value.slot)
        if maker is not None:
            made = self._graph.trace.ops[maker].outputs
            return self.outputs(maker) if made and made[0] == value.slot else None
        values = argument_values(self._graph, position, argument)
        array = None if values is None else as_array(values)
        if array is None:
            return None
        return self._coder.pixels(self._some(array))

    def _some(self, array: NDArray[Any]) -> NDArray[Any]:
        return array if len(self._images) == len(array) else array[self._images]

    def _convolution(self, position: int) -> Any:
        codes = self._argument(position, 0)
        if codes is None:
            return None
        windows = windows_of_conv(self._graph, position, codes.shape[1:])
        return self._coder.fields(codes, windows)

    def _relu(self, position: int) -> Any:
        codes = self._argument(position, 0)
        values = as_array(self._graph.trace.ops[position].kept[0])
        if codes is None or values is None:
            return None
        return self._coder.active(codes, self._some(values) > 0)

    def _pool(self, position: int) -> Any:
        op = self._graph.trace.ops[position]
        peaks = as_array(op.kept_outputs[0])
        maker = self._graph.maker(position, 0)
        rectified = maker is not None and self._graph.trace.ops[maker].short_name in RELU
        # Behind a ReLU the sign of the maximum says whether the chosen element is active.
        before = maker if rectified and maker is not None else position
        codes = self._argument(before, 0)
        if codes is None or peaks is None:
            return None
        indices = self._some(op.kept_outputs[1].numpy().reshape(peaks.shape))
        active = self._some(peaks) > 0 if rectified else None
        return self._coder.chosen(codes, indices, active)

    def _sum(self, position: int) -> Any:
        op = self._graph.trace.ops[position]
        if len(op.args) != 2 or op.kwargs:
            return None
        first, second = self._argument(position, 0), self._argument(position, 1)
        if first is None or second is None or first.shape != second.shape:
            return None
        return self._coder.pair(first, second)
