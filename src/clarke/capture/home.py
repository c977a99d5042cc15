"""Programs whose values lie on an accelerator, brought to the processor to be judged there.

What was recorded stays as the device computed it: which kinks are touched is read from its values.
Replays in float64 then run where every tensor is, and nothing of clarke's waits for the device.
"""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

import torch

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from clarke.capture.trace import External, OpRecord, Trace

K = TypeVar("K")


def is_away(tensor: torch.Tensor) -> bool:
    """Whether a tensor's values lie elsewhere than with the processor."""
    return not (tensor.is_cpu or tensor.is_meta)


def any_away(tensors: Iterable[torch.Tensor]) -> bool:
    """Whether some tensor's values do."""
    return any(map(is_away, tensors))


def brought(tensor: torch.Tensor) -> torch.Tensor:
    """The same values on the processor, a leaf if it requires a gradient."""
    if not is_away(tensor):
        return tensor
    copy = tensor.detach().to("cpu", copy=True)
    return copy.requires_grad_(tensor.requires_grad)


def brought_home(trace: Trace) -> Trace:
    """The trace with all its values on the processor; itself if they are there."""
    if not any_away(e.tensor for e in trace.externals.values()):
        return trace
    externals = {slot: _external(e) for slot, e in trace.externals.items()}
    applied = tuple(
        replace(a, args=tuple(brought(x) if isinstance(x, torch.Tensor) else x for x in a.args))
        for a in trace.applied
    )
    return replace(
        trace,
        ops=tuple(map(_op, trace.ops)),
        externals=MappingProxyType(externals),
        applied=applied,
    )


def _external(external: External) -> External:
    tensor, snapshot = external.tensor, external.snapshot
    changed = not tensor.is_inference() and tensor._version != external.version
    if snapshot is None:
        home = brought(tensor)
    else:  # it says where in the memory behind it the tensor lies
        snapshot = brought(snapshot)
        home = snapshot.as_strided(tensor.shape, tensor.stride(), tensor.storage_offset()).detach()
        home.requires_grad_(tensor.requires_grad)
    version = home._version - (1 if changed else 0)
    return replace(external, tensor=home, snapshot=snapshot, version=version)


def _op(op: OpRecord) -> OpRecord:
    return op.holding(
        args=_argument(op.args),
        kwargs=MappingProxyType({name: _argument(value) for name, value in op.kwargs.items()}),
        kept=op.kept if op.signs is not None else _values(op.kept),
        kept_outputs=_values(op.kept_outputs),
        kept_lists=_values(op.kept_lists),
        kept_named=_values(op.kept_named),
        drawn=_values(op.drawn),
    )


def _values(kept: Mapping[K, torch.Tensor]) -> Mapping[K, torch.Tensor]:
    return MappingProxyType({key: brought(value) for key, value in kept.items()})


def _argument(value: Any) -> Any:
    if isinstance(value, torch.device):
        return torch.device("cpu")
    if isinstance(value, (list, tuple)):
        return type(value)([_argument(v) for v in value])
    return value
