"""Whether tensors hold NaN or infinity."""

from __future__ import annotations

import cmath
import math
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

_STRIDED = torch.strided


def all_finite(tensors: Sequence[torch.Tensor]) -> bool:
    """Whether no entry is NaN or infinite; one pass over each tensor."""
    if len(tensors) == 1 and tensors[0].numel() == 1 and not tensors[0].is_complex():
        return math.isfinite(tensors[0].detach().item())
    # A sum is the quickest pass there is, and finite only if all entries are. Of many small tensors
    # the calls are what costs: joining or stacking them first, or one call for all, costs more.
    total: complex = 0.0
    for t in tensors:
        if not t.is_cpu or t.layout is not _STRIDED:
            break
        total += (t.detach() if t.requires_grad else t).sum().item()
    else:
        if cmath.isfinite(total):
            return True
    away = [t for t in tensors if not t.is_cpu and t.layout is _STRIDED and t.is_floating_point()]
    if len(away) == len(tensors):  # one wait for the device
        sums = torch.stack([t.detach().sum(dtype=torch.float32) for t in away])
        if math.isfinite(float(sums.sum())):
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
