"""Fractional maxpools: windows of equal size, at places that random samples decide."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from clarke.kinks.choices import IndexedRule, make_touch
from clarke.kinks.model import Hazard, Touch

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from clarke.capture import OpRecord


def _starts(samples: torch.Tensor, space: int, kernel: int, out: int) -> torch.Tensor:
    """(images, out) first places of the windows along one axis.

    Args:
        samples: (images,) in [0, 1), in the operation's own dtype, whose rounding counts.
        space: Size of the input.
        kernel: Size of a window.
        out: How many windows there are.
    """
    last = torch.full((samples.numel(), 1), space - kernel, dtype=torch.int64)
    if out == 1:
        return last
    step = torch.tensor(space - kernel, dtype=samples.dtype) / (out - 1)
    shift = (samples * step).to(torch.int64)
    count = torch.arange(out - 1, dtype=samples.dtype)
    first = ((count[None, :] + samples[:, None]) * step).to(torch.int64) - shift[:, None]
    return torch.cat([first, last], 1)


def window_places(x: torch.Tensor, args: Sequence[Any], samples: torch.Tensor) -> torch.Tensor:
    """(images, cells, width) places inside an image that each window covers.

    Args:
        x: (..., *space), the input.
        args: Its kernel and output sizes, as lists or single numbers.
        samples: (N, C, rank) of the call.
    """
    rank = samples.shape[-1]
    space = x.shape[-rank:]
    kernel, out = ([a] * rank if isinstance(a, int) else [*a] for a in args)
    kernel, out = (a * rank if len(a) == 1 else a for a in (kernel, out))
    images = x.numel() // max(int(torch.Size(space).numel()), 1)
    drawn = samples.reshape(-1, rank)[:images]
    flat = torch.zeros(images, 1, 1, dtype=torch.int64)
    for axis in range(rank):
        # In two dimensions the first sample is that of the width, in three that of the depth.
        column = drawn[:, rank - 1 - axis if rank == 2 else axis]
        first = _starts(column, space[axis], kernel[axis], out[axis])
        place = first[:, :, None] + torch.arange(kernel[axis])  # (images, out, kernel)
        wide = flat[:, :, None, :, None] * space[axis] + place[:, None, :, None, :]
        flat = wide.reshape(images, flat.shape[1] * out[axis], flat.shape[2] * kernel[axis])
    return flat


def pool_at(
    x: torch.Tensor, places: torch.Tensor, shape: torch.Size
) -> tuple[torch.Tensor, torch.Tensor]:
    """The maxpool with given windows: values and indices, both of `shape`."""
    images, cells, width = places.shape
    table = x.reshape(images, -1).gather(1, places.reshape(images, -1))
    values, column = table.reshape(images, cells, width).max(2)
    indices = places.gather(2, column[:, :, None])
    return values.reshape(shape), indices.reshape(shape)


@dataclass(frozen=True)
class FractionalPoolRule(IndexedRule):
    """fractional_max_pool{2,3}d: AD follows the index that the forward pass returns."""

    def find(self, op: OpRecord) -> Touch:
        x, indices = op.kept[0], op.kept_outputs[1]
        with torch.no_grad():
            places = window_places(x, op.args[1:3], op.kept[3])
            images, cells, _ = places.shape
            values = x.reshape(images, -1)
            at = indices.reshape(images, cells)
            best = values.gather(1, at)
            table = values.gather(1, places.reshape(images, -1)).reshape(places.shape)
            equal = table == best[:, :, None]
            # Where these are not the windows of the kernel that ran, nothing is claimed.
            inside = (places == at[:, :, None]).any(2) & (table.amax(2) == best)
            strange = ~(inside | best.isnan())
            equal[strange] = False
            equal[..., 0] |= strange
            places = torch.where(strange[:, :, None], at[:, :, None], places)
            touched = (equal.sum(2) > 1) | strange
            plane = values.shape[1]
            start = torch.arange(images)[:, None] * plane
            base = (at + start).reshape(-1)
            elements = touched.reshape(-1).nonzero().squeeze(1)
            everywhere = (places + start[:, :, None]).reshape(images * cells, -1)
            owner, column = equal.reshape(everywhere.shape)[elements].nonzero(as_tuple=True)
            members = everywhere[elements[owner], column]
            weights = (members == base[elements][owner]).to(torch.float64)
            unknown = strange.reshape(-1)[elements].nonzero().squeeze(1)
        touch = make_touch(op, base, elements, members, owner, weights)
        return replace(touch, hazards={Hazard.SEVERAL: unknown}) if unknown.numel() else touch
