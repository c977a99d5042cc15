"""What a backward call starts and ends at: leaves, what they were made into, edges of a graph."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import torch

from clarke.capture import is_behind
from clarke.errors import CaptureError
from clarke.torch_others import is_opaque
from clarke.torch_private import is_of_transform, is_transformed
from clarke.torch_sharded import is_spread

if TYPE_CHECKING:
    from collections.abc import Mapping

    from clarke.audit.engine import BackwardCall
    from clarke.capture import Recorder

_TRANSFORMED: Final = (
    "This gradient was computed by torch.func or with is_grads_batched=True, where clarke cannot "
    "see single gradients. Judge the function itself by clarke.check (a matrix by "
    "clarke.check_jacobian), or compute the gradients one by one, by torch.autograd.grad."
)
_GONE: Final = (
    "The backward call started or ended at a GradientEdge whose tensor is gone, so that its value "
    "is not known. Keep the tensor, or pass it itself."
)
_SPREAD: Final = (
    "This backward call starts or ends at a tensor that is spread over processes (DTensor), of "
    "whose operations clarke follows none."
)
_OPAQUE: Final = (
    "This backward call starts or ends at {}, whose operations show clarke no values. Judge the "
    "same program on plain tensors."
)
_INNER: Final = (
    "Input {} of the backward call was itself computed from other tensors, {}. Differentiate with "
    "respect to a leaf, for example x.detach().requires_grad_()."
)
_BEHIND: Final = (
    "Input {} of the backward call is one that another input was computed from: what is returned "
    "is the gradient of no single function. Differentiate by each in a call of its own."
)


def at_tensors(call: BackwardCall, recorder: Recorder) -> BackwardCall:
    """The same call, with tensors in the place of edges.

    Raises:
        CaptureError: It is a transform's, a tensor is gone, or it is spread over processes.
    """
    values = (*call.roots, *call.inputs, *(w for w in call.weights if w is not None))
    if is_transformed() or any(map(is_of_transform, values)):
        raise CaptureError(_TRANSFORMED)
    edges = [x for x in (*call.roots, *call.inputs) if not isinstance(x, torch.Tensor)]
    if edges:
        call = replace(
            call,
            roots=tuple([_tensor_at(x, recorder) for x in call.roots]),
            inputs=tuple([_tensor_at(x, recorder) for x in call.inputs]),
        )
        values = (*call.roots, *call.inputs)
    if any(map(is_spread, values)):
        raise CaptureError(_SPREAD)
    for x in values:
        if is_opaque(x):
            raise CaptureError(_OPAQUE.format(_kind(x)))
    return call


def _kind(tensor: torch.Tensor) -> str:
    """What a tensor is that shows no values."""
    if tensor.is_meta:
        return "a tensor without values (on the meta device)"
    if type(tensor) in (torch.Tensor, torch.nn.Parameter):
        return "a nested tensor"
    return f"a {type(tensor).__name__}, which computes by code of its own (__torch_dispatch__)"


def _tensor_at(end: Any, recorder: Recorder) -> torch.Tensor:
    if isinstance(end, torch.Tensor):
        return end
    node, number = end[0], end[1]
    leaf = getattr(node, "variable", None)  # of what adds to a leaf's gradient
    found = leaf if isinstance(leaf, torch.Tensor) else recorder.tensor_of(node, number)
    if found is None:
        raise CaptureError(_GONE)
    return found


def inner_ends(call: BackwardCall, recorder: Recorder) -> Mapping[int, torch.Tensor]:
    """Inputs that were computed from others, by slot: the function that is judged starts there.

    Raises:
        CaptureError: It is not known what is computed from such an input alone.
    """
    found: dict[int, torch.Tensor] = {}
    for position, x in enumerate(call.inputs):
        if x.is_leaf or not x.requires_grad:
            continue
        slot = recorder.slot_of(x)
        if call.accumulates:
            raise CaptureError(_INNER.format(position, "and no optimizer takes its .grad"))
        if slot is None or slot.storage.writers:
            raise CaptureError(_INNER.format(position, "in place, or before clarke was watching"))
        found[slot.number] = x
    for x in found.values():
        for position, other in enumerate(call.inputs):
            if is_behind(other, x, recorder):
                raise CaptureError(_BEHIND.format(position))
    return found
