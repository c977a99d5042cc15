"""Maximum pooling: the elements of a window that tie for its maximum."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from clarke.kinks.choices import MANY_MEMBERS, IndexedRule, make_touch, some_of_many
from clarke.kinks.model import Call, Touch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from clarke.capture import OpRecord


@dataclass(frozen=True)
class PoolRule(IndexedRule):
    """max_pool{2,3}d_with_indices: AD follows the index that the forward pass returns.

    Attributes:
        rank: Number of pooled dimensions.
    """

    rank: int
    windows: Callable[[Call, int], tuple[tuple[int, ...], ...]]

    def find(self, op: OpRecord) -> Touch:
        x = op.kept[0]
        call = Call(op.func, (x, *op.args[1:]), op.kwargs)
        indices = op.kept_outputs[1]
        with torch.no_grad():
            space = x.shape[-self.rank :]
            plane = int(torch.Size(space).numel())
            images = x.reshape(-1, plane)
            at = indices.reshape(images.shape[0], -1)
            base = (at + torch.arange(images.shape[0])[:, None] * plane).reshape(-1)
            best = images.gather(1, at)
            elements, members, owner, complete = self._ties(call, images, space, indices, best)
        if not complete:
            return some_of_many(op, base, elements, members, owner)
        weights = (members == base[elements][owner]).to(torch.float64)
        return make_touch(op, base, elements, members, owner, weights)

    def _ties(
        self,
        call: Call,
        images: torch.Tensor,
        space: tuple[int, ...],
        indices: torch.Tensor,
        best: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, bool]:
        kernel, stride, padding, dilation = self.windows(call, self.rank)
        out_space = tuple(indices.shape[-self.rank :])
        lead = images.shape[0]
        # Whole-tensor passes: one comparison per kernel offset, whatever the number of ties.
        needed = [
            (o - 1) * s + d * (k - 1) + 1
            for o, s, d, k in zip(out_space, stride, dilation, kernel, strict=True)
        ]
        pads: list[int] = []
        for n, p, size in reversed(list(zip(needed, padding, space, strict=True))):
            pads += [p, max(n - p - size, 0)]
        wide = images.reshape(lead, *space)
        if any(pads):
            wide = torch.nn.functional.pad(wide, pads, value=-torch.inf)
        peak = best.reshape(lead, *out_space)
        offsets = _offsets(kernel)
        small = len(offsets) <= torch.iinfo(torch.int8).max
        count = torch.zeros(peak.shape, dtype=torch.int8 if small else torch.int32)
        for offset in offsets:
            count += _window(wide, offset, stride, dilation, out_space) == peak
        elements = (count.reshape(-1) > 1).nonzero().squeeze(1)
        complete = int(count.reshape(-1)[elements].sum()) <= MANY_MEMBERS
        # Only the tied windows are opened, as many at once as there is room for.
        table = torch.tensor(offsets)  # (W, rank)
        pairs = None
        if not complete:
            pairs = _first_two(
                _window(wide, o, stride, dilation, out_space) == peak for o in offsets
            )
        members, owner = [elements[:0]], [elements[:0]]
        first = 0
        for part in elements.split(max(MANY_MEMBERS // len(offsets), 1)):
            looked = table[None] if pairs is None else table[pairs[part]]
            flat, hit = self._opened(call, (wide, space, out_space), part, looked, best)
            of, at = hit.nonzero(as_tuple=True)
            members.append(flat[of, at])
            owner.append(of + first)
            first += part.numel()
        return elements, torch.cat(members), torch.cat(owner), complete

    def _opened(
        self,
        call: Call,
        planes: tuple[torch.Tensor, tuple[int, ...], tuple[int, ...]],
        elements: torch.Tensor,
        offsets: torch.Tensor,
        best: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(E, W) the input elements in the windows of some outputs, and which equal the peak.

        Args:
            call: The pooling.
            planes: The padded values; how many elements there are each way, and how many windows.
            elements: The outputs.
            offsets: (1 or E, W, rank) where to look in their windows.
            best: The peaks of all windows.
        """
        _, stride, padding, dilation = self.windows(call, self.rank)
        wide, space, out_space = planes
        image = elements // best.shape[1]
        inside = elements % best.shape[1]
        corner = []
        rest = inside
        for size in reversed(out_space):
            corner.append(rest % size)
            rest = rest // size
        corner.reverse()
        flat_wide = torch.zeros(elements.numel(), offsets.shape[1], dtype=torch.int64)
        flat = torch.zeros_like(flat_wide)
        for axis in range(self.rank):
            place = corner[axis][:, None] * stride[axis] + offsets[..., axis] * dilation[axis]
            flat_wide = flat_wide * wide.shape[1 + axis] + place
            flat = flat * space[axis] + (place - padding[axis])
        values = wide.reshape(wide.shape[0], -1)[image[:, None], flat_wide]
        flat += image[:, None] * int(torch.Size(space).numel())
        return flat, values == best.reshape(-1)[elements][:, None]


def _first_two(hits: Iterator[torch.Tensor]) -> torch.Tensor:
    """(E, 2) the numbers of the first two of some masks in which an element is set."""
    found, seen = torch.zeros(0, 2, dtype=torch.int64), torch.zeros(0, dtype=torch.int64)
    for number, mask in enumerate(hits):
        hit = mask.reshape(-1)
        if number == 0:
            found, seen = found.new_zeros(hit.numel(), 2), seen.new_zeros(hit.numel())
        for column in (0, 1):
            found[:, column][hit & (seen == column)] = number
        seen += hit
    return found


def _offsets(kernel: tuple[int, ...]) -> list[tuple[int, ...]]:
    offsets: list[tuple[int, ...]] = [()]
    for size in kernel:
        offsets = [(*o, i) for o in offsets for i in range(size)]
    return offsets


def _window(
    wide: torch.Tensor,
    offset: tuple[int, ...],
    stride: tuple[int, ...],
    dilation: tuple[int, ...],
    out_space: tuple[int, ...],
) -> torch.Tensor:
    cut: list[slice] = [slice(None)]
    for o, s, d, n in zip(offset, stride, dilation, out_space, strict=True):
        start = o * d
        cut.append(slice(start, start + (n - 1) * s + 1, s))
    return wide[tuple(cut)]


@dataclass(frozen=True)
class AdaptivePoolRule(PoolRule):
    """adaptive_max_pool{2,3}d: windows of varying size."""

    def _ties(
        self,
        call: Call,
        images: torch.Tensor,
        space: tuple[int, ...],
        indices: torch.Tensor,
        best: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, bool]:
        out_space = tuple(indices.shape[-self.rank :])
        # Cell o of an axis covers floor(o * n / m) .. ceil((o + 1) * n / m).
        ranges = [
            [(o * n // m, -((-(o + 1) * n) // m)) for o in range(m)]
            for n, m in zip(space, out_space, strict=True)
        ]
        widest = [max(b - a for a, b in axis) for axis in ranges]
        cells = torch.cartesian_prod(*(torch.arange(m) for m in out_space)).reshape(-1, self.rank)
        offsets = torch.tensor(_offsets(tuple(widest)))
        flat = torch.zeros(cells.shape[0], offsets.shape[0], dtype=torch.int64)
        valid = torch.ones(cells.shape[0], offsets.shape[0], dtype=torch.bool)
        for axis in range(self.rank):
            start = torch.tensor([a for a, _ in ranges[axis]])[cells[:, axis]]
            stop = torch.tensor([b for _, b in ranges[axis]])[cells[:, axis]]
            place = start[:, None] + offsets[None, :, axis]
            valid &= place < stop[:, None]
            flat = flat * space[axis] + place.clamp(max=space[axis] - 1)
        equal = (images[:, flat] == best[:, :, None]) & valid
        tied = equal.sum(2) > 1
        elements = tied.reshape(-1).nonzero().squeeze(1)
        owner, at = equal.reshape(-1, offsets.shape[0])[elements].nonzero(as_tuple=True)
        image = elements // best.shape[1]
        plane = int(torch.Size(space).numel())
        members = flat[(elements % best.shape[1])[owner], at] + image[owner] * plane
        return elements, members, owner, True
