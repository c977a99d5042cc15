"""Whether tensors hold NaN or infinity."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

_SUMMED = frozenset({torch.float32, torch.float64})


def all_finite(tensors: Sequence[torch.Tensor]) -> bool:
    """Whether no entry is NaN or infinite; one pass over each tensor."""
    if len(tensors) == 1 and tensors[0].numel() == 1 and not tensors[0].is_complex():
        return math.isfinite(tensors[0].detach().item())
    plain = [t for t in tensors if t.layout == torch.strided and t.dtype in _SUMMED]
    if len(plain) == len(tensors) and plain and len({t.dtype for t in plain}) == 1:
        # A sum is the quickest pass there is, and finite only if all entries are.
        sums = [(t.detach() if t.requires_grad else t).sum() for t in plain]
        if False not in [s.is_cpu for s in sums]:
            if math.isfinite(sum([s.item() for s in sums])):
                return True
        elif math.isfinite(float(torch.stack(sums).sum())):  # one wait for the device
            return True
    ends: dict[torch.dtype, list[torch.Tensor]] = {}
    for t in tensors:
        if t.layout != torch.strided or not t.is_floating_point():
            if not bool(torch.isfinite(t.to_dense() if t.layout != torch.strided else t).all()):
                return False
        elif t.numel():
            # A NaN makes both ends NaN.
            ends.setdefault(t.dtype, []).extend(torch.aminmax(t.detach()))
    return all(bool(torch.isfinite(torch.stack(found)).all()) for found in ends.values())
