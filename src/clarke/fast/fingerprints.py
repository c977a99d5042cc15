"""Codes of receptive fields along a trace, computed where they are needed and as far as needed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from clarke.capture import Ref
from clarke.devices import array_of
from clarke.fast.layers import (
    BATCH_NORM,
    POOL,
    RELU,
    argument_values,
    as_array,
    is_plain_convolution,
    relu_values,
    weight_shape,
    windows_of_conv,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from clarke.fast.codes import Coder
    from clarke.fast.graph import Graph


Channels = tuple[int, int] | None
# Functions of one element alone, without parameters and kinks.
_SMOOTH = frozenset({"gelu", "mish", "sigmoid", "silu", "tanh"})
_DIMENSIONS = 4  # images, channels, rows, columns


def groups_of(graph: Graph, conv: int) -> int:
    """Number of groups of a convolution."""
    return int(graph.trace.ops[conv].args[8])


def read_by(graph: Graph, conv: int, channels: Channels) -> Channels:
    """The input channels that some output channels of a convolution read."""
    groups, shape = groups_of(graph, conv), weight_shape(graph, conv)
    if channels is None or groups == 1 or shape is None:
        return None
    size = shape[0] // groups
    first, last = channels[0] // size, (channels[1] - 1) // size
    return (first * shape[1], (last + 1) * shape[1])


class Fingerprints:
    """Codes for some of the images of a batch.

    Args:
        graph: The trace.
        coder: Multipliers.
        images: (B,) the images of the batch that are looked at.
        batch: How many there are in all.
        whole: Of the same trace and coder, for all images: what is known there is taken from it.
    """

    def __init__(
        self,
        graph: Graph,
        coder: Coder,
        images: NDArray[np.intp],
        batch: int,
        whole: Fingerprints | None = None,
    ) -> None:
        self._batch = batch
        self._whole = whole
        self._graph = graph
        self._coder = coder
        self._images = images
        self._known: dict[tuple[int, Channels], Any] = {}

    def outputs(self, position: int, channels: Channels = None) -> Any:
        """(B, H, W) codes of some channels of an operation's outputs; None if it has none.

        `channels` is (first, last + 1), or None for all.
        """
        key = (position, channels)
        if key not in self._known:
            whole = None if self._whole is None else self._whole.known(position, channels)
            found = self._compute(position, channels) if whole is None else whole[self._images]
            self._known[key] = found
        return self._known[key]

    def known(self, position: int, channels: Channels = None) -> Any:
        """The same if they have been computed already, else None."""
        return self._known.get((position, channels))

    def _compute(self, position: int, channels: Channels) -> Any:
        op = self._graph.trace.ops[position]
        if is_plain_convolution(self._graph, position):
            return self._convolution(position, channels)
        if op.short_name in BATCH_NORM:
            codes = self._argument(position, 0, channels)
            return None if codes is None else self._coder.moved(codes)
        if op.short_name in RELU:
            return self._relu(position, channels)
        if op.name == POOL:
            return self._pool(position, channels)
        if op.name == "aten::add.Tensor":
            return self._sum(position, channels)
        if op.short_name == "cat":
            return self._cat(position, channels)
        function = op.short_name.removesuffix("_")  # of values in place, too
        if function in _SMOOTH:
            codes = self._argument(position, 0, channels)
            return None if codes is None else self._coder.mapped(codes, function)
        return None

    def _argument(self, position: int, argument: int, channels: Channels) -> Any:
        value = self._graph.trace.ops[position].args[argument]
        if not isinstance(value, Ref):
            return None
        if self._graph.makers[position].get(value.slot) is not None:
            return self._made(position, value, channels)
        values = argument_values(self._graph, position, argument)
        array = None if values is None else as_array(values)
        if array is None:
            return None
        some = self._some(array, channels)
        return None if some is None else self._coder.pixels(some)

    def _made(self, position: int, value: Ref, channels: Channels) -> Any:
        """Codes of a first result of an operation, which another one reads."""
        maker = self._graph.makers[position].get(value.slot)
        if maker is None:
            return None
        made = self._graph.trace.ops[maker].outputs
        return self.outputs(maker, channels) if made and made[0] == value.slot else None

    def _cat(self, position: int, channels: Channels) -> Any:
        """Of tensors one behind the other along the channels, all of which are asked for."""
        op = self._graph.trace.ops[position]
        along = op.args[1] if len(op.args) > 1 else op.kwargs.get("dim", 0)
        parts = op.args[0]
        if channels is not None or along != 1 or not isinstance(parts, list | tuple):
            return None
        total = None
        for part in parts:
            codes = self._made(position, part, None) if isinstance(part, Ref) else None
            if codes is None:
                return None
            total = codes if total is None else self._coder.pair(total, codes)
        return total

    def _some(self, array: NDArray[Any], channels: Channels) -> NDArray[Any] | None:
        """The images that are looked at, of the channels; None where they are not all there."""
        if array.ndim != _DIMENSIONS or len(array) != self._batch:
            return None  # an addend that is broadcast over the batch, or has no channels
        if channels is not None:
            if channels[1] > array.shape[1]:
                return None  # one that is broadcast over the channels
            array = array[:, slice(*channels)]
        return array if len(self._images) == len(array) else array[self._images]

    def _convolution(self, position: int, channels: Channels) -> Any:
        codes = self._argument(position, 0, read_by(self._graph, position, channels))
        if codes is None:
            return None
        windows = windows_of_conv(self._graph, position, codes.shape[1:])
        found = self._coder.fields(codes, windows)
        without_bias = self._graph.trace.ops[position].args[2] is None
        return found if without_bias else self._coder.moved(found)

    def _relu(self, position: int, channels: Channels) -> Any:
        codes = self._argument(position, 0, channels)
        values = as_array(relu_values(self._graph.trace.ops[position]))
        if codes is None or values is None:
            return None
        some = self._some(values, channels)
        return None if some is None else self._coder.active(codes, some > 0)

    def _pool(self, position: int, channels: Channels) -> Any:
        op = self._graph.trace.ops[position]
        peaks = as_array(op.kept_outputs[0])
        maker = self._graph.maker(position, 0)
        rectified = maker is not None and self._graph.trace.ops[maker].short_name in RELU
        # Behind a ReLU the sign of the maximum says whether the chosen element is active.
        before = maker if rectified and maker is not None else position
        codes = self._argument(before, 0, channels)
        if codes is None or peaks is None:
            return None
        indices = self._some(array_of(op.kept_outputs[1]).reshape(peaks.shape), channels)
        some = self._some(peaks, channels)
        if indices is None or some is None:
            return None
        return self._coder.chosen(codes, indices, some > 0 if rectified else None)

    def _sum(self, position: int, channels: Channels) -> Any:
        op = self._graph.trace.ops[position]
        if len(op.args) != 2 or op.kwargs:
            return None
        first, second = (self._argument(position, i, channels) for i in (0, 1))
        if first is None or second is None or first.shape != second.shape:
            return None
        return self._coder.pair(first, second)
