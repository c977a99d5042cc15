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
    windows_of_pool,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from clarke.fast.codes import Coder
    from clarke.fast.graph import Graph

_TOKEN_LIMIT = 1 << 12


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
        """(B, H, W) codes of an operation's outputs: of content and of AD's choices. Or None."""
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
        constant = self._graph.maker(position, 0) is None
        outside = self._coder.zero_pixel() if constant else self._coder.outside()
        return self._coder.fields(codes, windows, outside)

    def _relu(self, position: int) -> Any:
        codes = self._argument(position, 0)
        if codes is None:
            return None
        ops = self._graph.trace.ops
        if all(ops[r].name == POOL for r in self._graph.readers[position]):
            return codes  # the pool's choice and sign say the same
        values = as_array(ops[position].kept[0])
        if values is None:
            return None
        active = (self._some(values) > 0).astype(np.float64)
        return self._join(codes, self._coder.choices(active))

    def _pool(self, position: int) -> Any:
        codes = self._argument(position, 0)
        op = self._graph.trace.ops[position]
        peaks = as_array(op.kept_outputs[0])
        if codes is None or peaks is None:
            return None
        windows = windows_of_pool(self._graph, position)
        if (windows.kernel[0] * windows.dilation[0] + 1) * windows.space[1] > _TOKEN_LIMIT:
            return None
        fields = self._coder.fields(codes, windows, self._coder.outside())
        indices = self._some(op.kept_outputs[1].numpy().reshape(peaks.shape))
        rows = np.arange(windows.out[0]) * windows.stride[0] - windows.padding[0]
        columns = np.arange(windows.out[1]) * windows.stride[1] - windows.padding[1]
        corner = rows[:, None] * windows.space[1] + columns - 1
        tokens = np.subtract(indices, corner, dtype=np.float64, casting="unsafe")
        maker = self._graph.maker(position, 0)
        if maker is not None and self._graph.trace.ops[maker].short_name in RELU:
            # A maximum of zero has gradient zero, whichever element was chosen.
            tokens *= self._some(peaks) > 0
        return self._join(fields, self._coder.choices(tokens))

    def _join(self, first: Any, second: Any) -> Any:
        return self._coder.pair(first, second)
