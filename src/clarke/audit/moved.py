"""Leaves that are changed between the forward pass and the backward pass, as they were read.

A codebook that chose the nearest entries moves before the loss is differentiated; a bias is set
while a graph still waits. Where autograd has saved nothing of such a leaf's memory, its gradient is
the one at the values that were read, whatever has become of them.

Others are changed by the backward pass itself: an optimizer in a hook takes each gradient as soon
as it is there, so that no more than one of them is ever held.
"""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING

from clarke.capture import Origin, saved_memory

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

    from clarke.capture import External, Trace


def as_read(trace: Trace, output: torch.Tensor) -> tuple[Trace, Mapping[int, torch.Tensor]]:
    """The trace with such leaves at the values that were read, and the leaves, by slot.

    Args:
        trace: What ran.
        output: Its result, whose graph is still there.
    """
    changed = [e for e in trace.externals.values() if _is_changed(e)]
    if not changed or any(op.resaved for op in trace.ops):
        return trace, {}
    saved = saved_memory(output.grad_fn)
    if saved is None:
        return trace, {}
    memories = [e.storage for e in trace.externals.values()]
    externals, leaves = dict(trace.externals), {}
    for e in changed:
        apart = memories.count(e.storage) == 1
        if e.before is not None and apart and e.tensor.untyped_storage().data_ptr() not in saved:
            stand_in = e.before.detach().requires_grad_()
            leaves[e.slot] = e.tensor
            externals[e.slot] = replace(
                e, tensor=stand_in, version=stand_in._version, rewritten=False, before=None
            )
    return replace(trace, externals=MappingProxyType(externals)), leaves


def standing(trace: Trace) -> Trace:
    """The trace with its leaves at copies of what they hold, before hooks change these."""
    memories = [e.storage for e in trace.externals.values()]
    externals = dict(trace.externals)
    for e in trace.leaves():
        unread = e.rewritten or e.gathered is not None or e.tensor._version != e.version
        if unread or memories.count(e.storage) > 1:
            continue
        copy = e.tensor.detach().clone().requires_grad_()
        externals[e.slot] = replace(e, tensor=copy, version=copy._version)
    return replace(trace, externals=MappingProxyType(externals))


def _is_changed(external: External) -> bool:
    if external.origin is not Origin.LEAF or external.before is None:
        return False
    return external.rewritten or external.tensor._version != external.version
