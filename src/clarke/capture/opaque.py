"""Tensors whose operations are not followed: they show no values, or have code of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import torch

from clarke.capture.trace import overload_of
from clarke.errors import CaptureError
from clarke.torch_others import is_opaque

if TYPE_CHECKING:
    from collections.abc import Iterable

    from clarke.capture.live import Node, Slot

_SPREAD: Final = "that are spread over processes (DTensor"


def described(tensor: torch.Tensor) -> str:
    """What kind of tensor it is that shows no values; "" of others."""
    if not is_opaque(tensor):
        return ""
    if type(tensor).__module__.startswith("torch.distributed."):  # also on its way between them
        return _SPREAD
    if type(tensor) in (torch.Tensor, torch.nn.Parameter):
        return "that hold several tensors (nested" if tensor.is_nested else "without values (meta"
    return f"of a class that computes by code of its own ({type(tensor).__name__}"


def refuse_opaque(slots: Iterable[Slot], first: Node | None) -> None:
    """Name what was first computed of tensors that are not followed, if a result comes of any.

    Args:
        slots: What a result comes of.
        first: The first such operation.

    Raises:
        CaptureError: It does.
    """
    found = [s for s in slots if s.opaque or (s.held is not None and _is_local(s.held))]
    if not found:
        return
    kinds = {s.opaque or _SPREAD for s in found}
    kind = _SPREAD if _SPREAD in kinds else min(kinds)
    met = f"a value read at {found[0].location}"
    if first is not None:
        met = f"{overload_of(first.func)} at {first.location}"
    raise CaptureError(
        f"Part of this program runs on tensors {kind}; first {met}), of whose operations clarke "
        "follows none."
    )


def _is_local(tensor: torch.Tensor) -> bool:
    """Whether a tensor is what a process holds of a `DTensor`, by its own account."""
    return type(tensor.grad_fn).__name__ == "_ToTorchTensorBackward"
