"""Values that depend on comparisons at ties: a table of what they are for every outcome.

An element of ``(x > 0) & (y > 0)`` depends on two comparisons if both are at a tie, and has four
outcomes. Operations on such constants are evaluated once for each outcome.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_MOST = 6  # comparisons on which one element may depend
_LOOK = 10  # the same before equal ones are counted as one
_ROWS = 512  # reduced rows with open outcomes


@dataclass(frozen=True, eq=False)
class Flip:
    """A tensor of which some elements depend on comparisons (or signs) at ties.

    Attributes:
        values: (2^D, *shape) its value for each outcome; bit j of the first index says whether
            the element's comparison j holds (its sign is 1).
        labels: (D, *shape) for every element 1 + the number of touched kink j, or 0 for none.
        signed: It stems from a sign, which autograd differentiates (to zero).
    """

    values: torch.Tensor
    labels: torch.Tensor
    signed: bool

    @property
    def depth(self) -> int:
        """D, how many kinks an element may depend on."""
        return self.labels.shape[0]

    def kinks(self) -> torch.Tensor:
        """All kinks on which an element depends."""
        found: torch.Tensor = self.labels[self.labels > 0].unique() - 1
        return found

    def moved(self, move: Callable[[torch.Tensor], torch.Tensor]) -> Flip:
        """The same after an operation that moves elements."""
        values = torch.stack([move(v) for v in self.values])
        return Flip(values, torch.stack([move(v) for v in self.labels]), self.signed)


def starting(out: torch.Tensor, elements: torch.Tensor, first: int, *, signed: bool) -> Flip:
    """The result of a comparison (or sign) with touched kinks ``first, first + 1, ...``."""
    label = torch.zeros(out.numel(), dtype=torch.int64)
    label[elements] = first + 1 + torch.arange(elements.numel())
    label = label.reshape(out.shape)
    settled = out.detach()
    low = torch.full_like(settled, -1) if signed else torch.zeros_like(settled)
    sides = [torch.where(label > 0, side, settled) for side in (low, torch.ones_like(settled))]
    return Flip(torch.stack(sides), label[None], signed)


def outcomes(
    flips: Sequence[Flip], run: Callable[[tuple[torch.Tensor, ...]], torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor] | None:
    """An elementwise operation for every outcome of what it reads; None where there are too many.

    Returns:
        (2^D, *shape) values and (D, *shape) labels, each kink once per element.
    """
    if sum(f.depth for f in flips) > _LOOK:
        return None
    # The first flip has the lowest bits.
    results = [
        run(tuple(f.values[i] for f, i in zip(flips, reversed(index), strict=True)))
        for index in product(*(range(1 << f.depth) for f in reversed(flips)))
    ]
    values = torch.stack(results)
    shape = values.shape[1:]
    labels = torch.cat(
        [
            f.labels.reshape(
                f.depth, *[1] * (len(shape) + 1 - f.labels.dim()), *f.labels.shape[1:]
            ).expand(f.depth, *shape)
            for f in flips
        ]
    )
    return _once(values, labels)


def _once(values: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Let a kink that an element lists twice have one outcome in both places."""
    labels = labels.clone()
    index = torch.arange(values.shape[0])
    for k in range(labels.shape[0]):
        for j in range(k):
            twice = (labels[j] == labels[k]) & (labels[k] > 0)
            if not bool(twice.any()):
                continue
            apart = (((index >> j) ^ (index >> k)) & 1).bool()
            apart = apart.reshape(-1, *[1] * (values.dim() - 1))
            values = torch.where(apart & twice, values[index ^ (1 << k)], values)
            labels[k] = torch.where(twice, 0, labels[k])
    return values, labels


def packed(values: torch.Tensor, labels: torch.Tensor, *, signed: bool) -> Flip | None:
    """A constant without idle dependences; None where an element depends on too many kinks."""
    labels = labels.clone()
    index = torch.arange(values.shape[0])
    for j in range(labels.shape[0]):
        idle = (values == values[index ^ (1 << j)]).all(0)
        labels[j] = torch.where(idle, 0, labels[j])
    used = labels > 0
    depth = max(int(used.sum(0).max()) if used.numel() else 0, 1)
    if depth > _MOST:
        return None
    order = torch.argsort((~used).to(torch.int8), dim=0, stable=True)[:depth]
    outcome = torch.arange(1 << depth)
    bits = (outcome[:, None] >> torch.arange(depth)) & 1  # (2^depth, depth)
    place = torch.tensordot(bits, 1 << order, dims=1)
    return Flip(values.gather(0, place), labels.gather(0, order), signed)


def reduced(
    flip: Flip,
    dims: Sequence[int],
    combine: Callable[[torch.Tensor], torch.Tensor],
    *,
    keepdim: bool,
) -> Flip | None:
    """A reduction of a constant over dimensions.

    Args:
        flip: The constant.
        dims: The dimensions, all if there are none.
        combine: (m, n) to (m,): reduces the last dimension.
        keepdim: Whether they stay, with size 1.
    """
    shape = flip.labels.shape[1:]
    rank = len(shape)
    gone = sorted({d % rank for d in dims} if dims else range(rank))
    stay = [d for d in range(rank) if d not in gone]
    out = [1 if d in gone else n for d, n in enumerate(shape) if keepdim or d not in gone]
    order = [0, *(d + 1 for d in (*stay, *gone))]
    rows = torch.Size([shape[d] for d in stay]).numel()
    values = flip.values.permute(order).reshape(flip.values.shape[0], rows, -1)
    labels = flip.labels.permute(order).reshape(flip.depth, rows, -1)
    open_rows = (labels > 0).any(2).any(0).nonzero().squeeze(1).tolist()
    if len(open_rows) > _ROWS:
        return None
    tables = []
    for row in open_rows:
        found = _row_table(values[:, row], labels[:, row], combine)
        if found is None:
            return None
        tables.append(found)
    depth = max((len(kinks) for kinks, _ in tables), default=1) or 1
    plain = combine(values[0])
    table = plain.expand(1 << depth, rows).clone()
    label = torch.zeros(depth, rows, dtype=torch.int64)
    for row, (kinks, own) in zip(open_rows, tables, strict=True):
        label[: len(kinks), row] = torch.tensor(kinks, dtype=torch.int64)
        table[:, row] = own.repeat((1 << depth) // own.numel())
    return packed(table.reshape(-1, *out), label.reshape(-1, *out), signed=flip.signed)


def _row_table(
    values: torch.Tensor, labels: torch.Tensor, combine: Callable[[torch.Tensor], torch.Tensor]
) -> tuple[list[int], torch.Tensor] | None:
    """The kinks of one row, (u,), and its reduction for every outcome, (2^u,)."""
    kinks = labels[labels > 0].unique()
    number = kinks.numel()
    if number > _MOST:
        # Settled elements may decide by themselves (any, all).
        ends = combine(torch.stack([values.amin(0), values.amax(0)]))
        monotone = values.dtype == torch.bool and bool(ends[0] == ends[1])
        return ([], ends[:1]) if monotone else None
    outcome = torch.arange(1 << number)
    local = torch.zeros(1 << number, values.shape[1], dtype=torch.int64)
    for j in range(labels.shape[0]):
        at = torch.searchsorted(kinks, labels[j].clamp(min=1)).clamp(max=max(number - 1, 0))
        bit = ((outcome[:, None] >> at[None]) & 1) * (labels[j] > 0)
        local += bit << j
    return kinks.tolist(), combine(values.gather(0, local))
