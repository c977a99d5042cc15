"""Ties of a maxpool, found while the program runs and its values are in the processor's caches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from clarke.devices import array_of
from clarke.fast.geometry import pool_windows
from clarke.fast.ties import Ties

if TYPE_CHECKING:
    from clarke.capture import Node
    from clarke.compiled import Compiled

_POOL = torch.ops.aten.max_pool2d_with_indices.default
_CONVOLUTION = torch.ops.aten.convolution.default


class EarlyTies:
    """An early look for `clarke.capture.Recorder`.

    Args:
        compiled: The loops; what they are not made for is left to the judge, and so is a maxpool
            whose own convolution reads the program's inputs: there ties are compared with codes in
            the same pass (`clarke.fast.pools.codes_at_hand`).
    """

    def __init__(self, compiled: Compiled) -> None:
        self._compiled = compiled

    def __call__(self, node: Node, args: tuple[Any, ...], out: Any) -> Ties | None:
        """The ties above zero of a maxpool behind a ReLU, or None."""
        if node.func is not _POOL or not _is_hidden(node):
            return None
        values, peaks = args[0], out[0]
        if values.dim() != 4 or values.dtype != torch.float32 or not values.is_contiguous():
            return None
        if not self._compiled.can_take(values.numel()) or not peaks.is_contiguous():
            return None
        windows = pool_windows(node, values.shape[-2:], peaks.shape[-2:])
        arrays = array_of(values), array_of(peaks)
        done = self._compiled.tied(*arrays, windows.geometry)
        return None if done is None else Ties(peaks.numel(), done.count, done.low, done.found)


def _is_hidden(pool: Node) -> bool:
    """Whether a maxpool stands behind a ReLU, and its convolution behind other operations."""
    relu = pool.inputs[0].producer
    if relu is None or relu.zeros is None or pool.inputs[0].storage.writers:
        return False
    at = relu.inputs[0].producer
    while at is not None and at.func is not _CONVOLUTION:
        at = at.inputs[0].producer if at.inputs else None
    return at is not None and bool(at.inputs) and at.inputs[0].producer is not None
