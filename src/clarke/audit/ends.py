"""What a backward call starts and ends at: tensors, also where the user named an edge of the graph."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import torch

from clarke.errors import CaptureError
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
_INNER: Final = "Input {} of the backward call was itself computed from other tensors, {}. {}"
_LEAF: Final = "Differentiate with respect to a leaf, for example x.detach().requires_grad_()."


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
    return call


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
    """Inputs that were computed from others, by slot: a function of these starts there.

    Raises:
        CaptureError: It is not known what is computed from such an input alone.
    """
    found: dict[int, torch.Tensor] = {}
    for position, x in enumerate(call.inputs):
        if x.is_leaf or x.grad_fn is None:
            continue
        slot = recorder.slot_of(x)
        why = ""
        if call.accumulates:
            why = "to whose .grad nothing is added that an optimizer takes"
        elif slot is None or slot.storage.writers or x.is_complex():
            why = "and was written to in place, or not while clarke was watching"
        if slot is None or why:
            raise CaptureError(_INNER.format(position, why, _LEAF))
        found[slot.number] = x
    return found


def refuse_behind(
    call: BackwardCall, inner: Mapping[int, torch.Tensor], behind: Mapping[int, torch.Tensor]
) -> None:
    """Refuse a call that ends at a tensor and at one that it was computed from.

    Args:
        call: The call.
        inner: Its inputs that were computed from others.
        behind: The leaves, and other inputs, that these were computed from.

    Raises:
        CaptureError: It does so: no function has what it returns for its gradient.
    """
    ids = {id(x) for x in behind.values()}
    for position, x in enumerate(call.inputs):
        if id(x) in ids:
            raise CaptureError(
                f"Input {position} of the backward call is one that another of its {len(inner)} "
                "inner inputs was computed from: what is returned is the gradient of no single "
                "function. Differentiate with respect to each in a call of its own."
            )
