"""Windows of convolutions and pools in two dimensions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from clarke.capture import Node, OpRecord

Pair = tuple[int, int]


@dataclass(frozen=True)
class Windows:
    """Which inputs an output element reads: ``o * stride - padding + dilation * k`` on each axis.

    Attributes:
        kernel, stride, padding, dilation: (vertical, horizontal) each.
        space: Size of the input.
        out: Size of the output.
    """

    kernel: Pair
    stride: Pair
    padding: Pair
    dilation: Pair
    space: Pair
    out: Pair

    @property
    def geometry(self) -> tuple[Pair, Pair, Pair, Pair]:
        """Kernel, stride, padding and dilation."""
        return self.kernel, self.stride, self.padding, self.dilation

    def offsets(self) -> Iterator[Pair]:
        """All (vertical, horizontal) kernel positions, in scan order."""
        for i in range(self.kernel[0]):
            for j in range(self.kernel[1]):
                yield i, j

    def cut(self, axis: int, k: int) -> tuple[slice, slice]:
        """For kernel position `k`: the outputs that have it inside, and the inputs they read."""
        s = self.stride[axis]
        start = self.dilation[axis] * k - self.padding[axis]
        first = max(0, -(start // s)) if start < 0 else 0
        last = min(self.out[axis], (self.space[axis] - 1 - start) // s + 1)
        if last <= first:
            return slice(0, 0), slice(0, 0)
        low = start + first * s
        return slice(first, last), slice(low, low + (last - first - 1) * s + 1, s)

    def places(self, rows: NDArray[Any], columns: NDArray[Any]) -> tuple[Any, Any, Any]:
        """(K, kernel size) input rows and columns of outputs, and whether they are inside."""
        offsets = np.array(list(self.offsets()))
        y = rows[:, None] * self.stride[0] - self.padding[0] + offsets[:, 0] * self.dilation[0]
        x = columns[:, None] * self.stride[1] - self.padding[1] + offsets[:, 1] * self.dilation[1]
        inside = (y >= 0) & (y < self.space[0]) & (x >= 0) & (x < self.space[1])
        return y, x, inside


def _pair(value: Any, default: Pair) -> Pair:
    if value is None or (isinstance(value, (list, tuple)) and not value):
        return default
    if isinstance(value, int):
        return (value, value)
    return (int(value[0]), int(value[-1]))


def pool_windows(op: OpRecord | Node, space: Pair, out: Pair) -> Windows:
    """Windows of a max_pool2d_with_indices."""

    def arg(position: int, name: str) -> Any:
        return op.args[position] if len(op.args) > position else op.kwargs.get(name)

    kernel = _pair(arg(1, "kernel_size"), (1, 1))
    return Windows(
        kernel,
        _pair(arg(2, "stride"), kernel),
        _pair(arg(3, "padding"), (0, 0)),
        _pair(arg(4, "dilation"), (1, 1)),
        space,
        out,
    )


def conv_windows(op: OpRecord, kernel: Pair, space: Pair) -> Windows:
    """Windows of a two-dimensional aten.convolution that is not transposed."""
    stride, padding, dilation = (_pair(op.args[i], (1, 1)) for i in (3, 4, 5))
    out = tuple(
        (n + 2 * p - d * (k - 1) - 1) // s + 1
        for n, p, d, k, s in zip(space, padding, dilation, kernel, stride, strict=True)
    )
    return Windows(kernel, stride, padding, dilation, space, (out[0], out[1]))
