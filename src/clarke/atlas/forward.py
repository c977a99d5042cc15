"""Forward mode at a point: its answer, and what that is worth."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from clarke.atlas.model import Standing, close
from clarke.errors import ClarkeError
from clarke.subdifferential import subdifferential
from clarke.torch_private import forward_mode, make_dual, unpack_dual

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from clarke.atlas.model import Vector

_LIMIT = 1e-5  # limits along rays are this exact
# What does not depend on the answer.
_OF_THE_POINT = (Standing.NOT_LIPSCHITZ, Standing.INFINITE_VALUE)


def forward_gradient(
    f: Callable[..., torch.Tensor], inputs: Sequence[torch.Tensor]
) -> Vector | None:
    """The derivatives along all unit vectors; None where an operation has no forward mode."""
    found: list[float] = []
    point = [p.detach() for p in inputs]
    try:
        for i, p in enumerate(point):
            for j in range(p.numel()):
                unit = torch.zeros(p.numel(), dtype=p.dtype)
                unit[j] = 1.0
                with forward_mode():
                    duals = list(point)
                    duals[i] = make_dual(p.clone(), unit.reshape(p.shape))
                    tangent = unpack_dual(f(*duals))[1]
                found.append(0.0 if tangent is None else float(tangent))
    except (NotImplementedError, RuntimeError):
        return None
    return tuple(found)


def forward_standing(
    f: Callable[..., torch.Tensor],
    inputs: Sequence[torch.Tensor],
    forward: Vector,
    reverse: Vector,
    standing: Standing,
    limits: Sequence[Vector],
) -> Standing:
    """What forward mode's answer is worth, where reverse mode's is judged: `standing`.

    Forward mode leaves no graph that `clarke.check` could judge. Its answer is looked up among the
    limits that were measured, then in the set.
    """
    if close(forward, reverse) or standing in _OF_THE_POINT:
        return standing
    if standing in (Standing.UNDECIDED, Standing.FORMULA):
        return Standing.UNDECIDED
    if not all(math.isfinite(x) for x in forward):
        return Standing.NONFINITE
    if standing is Standing.GRADIENT:  # the only valid one, and this is another
        return Standing.WRONG
    if any(close(forward, v, _LIMIT) for v in limits):
        return Standing.LIMITING
    return _in_set(f, inputs, forward)


def _in_set(
    f: Callable[..., torch.Tensor], inputs: Sequence[torch.Tensor], vector: Vector
) -> Standing:
    flat = torch.tensor(vector, dtype=torch.float64)
    sizes = [p.numel() for p in inputs]
    parts = [v.reshape(p.shape).to(p.dtype) for v, p in zip(flat.split(sizes), inputs, strict=True)]
    try:
        found = subdifferential(f, inputs, wrt=inputs, seconds=None)
        inside = found.contains(parts).inside
        limiting = bool(inside) and any(close(vector, tuple(e)) for e in found.found().tolist())
    except ClarkeError:
        return Standing.UNDECIDED
    if inside is None:
        return Standing.UNDECIDED
    if not inside:
        return Standing.WRONG
    return Standing.LIMITING if limiting else Standing.CLARKE
