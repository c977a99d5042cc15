"""What operators that put entries in order are, in instructions: networks of comparisons."""

from __future__ import annotations

from math import prod
from types import MappingProxyType
from typing import TYPE_CHECKING

import torch

from clarke.proof.cells import NoInstructionsError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import Any

    from clarke.proof.cells import Cell, Cells, Where

    Tensor = torch.Tensor


def _pairs(n: int) -> Iterator[tuple[int, int]]:
    """Places to compare, one pair after the other, so that n numbers are in order (Batcher)."""
    p = 1
    while p < n:
        k = p
        while k:
            for j in range(k % p, n - k, 2 * k):
                for i in range(j, min(j + k, n - k)):
                    if i // (2 * p) == (i + k) // (2 * p):
                        yield i, i + k
            k //= 2
        p *= 2


def _in_order(c: Cells, cells: Sequence[Cell], places: Mapping[int, Where]) -> list[Cell]:
    """Cells by size, the largest first.

    A comparison inside stands at a kink of its row, whichever. At the end neighbours are compared
    once more, which changes nothing, so that every kink has a comparison at its own place.

    Args:
        c: Where instructions are written.
        cells: What is put in order.
        places: Where a kink would be told, of the results that the operator has.
    """
    found = list(cells)
    told = [w for w in places.values() if c.is_told(w)]
    some = next(iter(told or places.values()))
    for i, j in _pairs(len(found)):
        upper = c.largest((found[i], found[j]), some)
        found[i], found[j] = upper, c.add((found[i], 1), (found[j], 1), (upper, -1))
    for i in range(len(found) - 1) if told else ():
        pair, own = (found[i], found[i + 1]), [places.get(i, some), places.get(i + 1, some)]
        if {*own} & {*told}:
            found[i], found[i + 1] = c.largest(pair, own[0]), c.smallest(pair, own[1])
    return found


def _along(
    c: Cells, op: int, t: Tensor, dim: int, taken: range | None, *, falling: bool
) -> list[Tensor]:
    """Entries along a dimension by size, or those at some places of this order."""
    if not t.dim():
        return [t.clone()]
    sign = 1 if falling else -1
    taken = range(t.shape[dim]) if taken is None else taken
    shape = [*t.shape]
    shape[dim] = len(taken)
    numbers = torch.arange(prod(shape)).reshape(shape).movedim(dim, -1)
    rows = t.movedim(dim, -1).reshape(-1, t.shape[dim]).tolist()
    found = []
    for row, own in zip(rows, numbers.reshape(-1, len(taken)).tolist(), strict=True):
        places = {at: (op, n) for at, n in zip(taken, own, strict=True)}
        order = _in_order(c, [c.add((x, sign)) for x in row], places)
        found += [c.add((order[at], sign)) for at in taken]
    return [torch.tensor(found, dtype=torch.int64).reshape(numbers.shape).movedim(-1, dim)]


def _sort(
    c: Cells,
    op: int,
    t: Tensor,
    dim: int = -1,
    descending: Any = False,  # noqa: FBT002 - as torch passes it
    stable: Any = None,
) -> list[Tensor]:
    del stable  # which of equal entries come first is told by their kinks
    return _along(c, op, t, dim, None, falling=bool(descending))


def _topk(
    c: Cells,
    op: int,
    t: Tensor,
    k: int,
    dim: int = -1,
    largest: Any = True,  # noqa: FBT002 - as torch passes it
    ordered: Any = True,  # noqa: FBT002 - as torch passes it
) -> list[Tensor]:
    if not ordered:
        raise NoInstructionsError("largest entries in no order")
    return _along(c, op, t, dim, range(k), falling=bool(largest))


def _kth(
    c: Cells,
    op: int,
    t: Tensor,
    k: int,
    dim: int = -1,
    keepdim: Any = False,  # noqa: FBT002 - as torch passes it
) -> list[Tensor]:
    (found,) = _along(c, op, t, dim, range(k - 1, k), falling=False)
    return [found if keepdim or not t.dim() else found.squeeze(dim)]


def _median(
    c: Cells,
    op: int,
    t: Tensor,
    dim: int | None = None,
    keepdim: Any = False,  # noqa: FBT002 - as torch passes it
) -> list[Tensor]:
    """The lower of the two in the middle."""
    wide, along = (t.reshape(-1), 0) if dim is None else (t, dim)
    count = wide.shape[along] if wide.dim() else 1
    return _kth(c, op, wide, (count + 1) // 2, along, keepdim)


def _so_far(pick: Callable[[Cells, list[Cell], Where], Cell]) -> Callable[..., list[Tensor]]:
    """The largest or smallest entry up to each place."""

    def meaning(c: Cells, op: int, t: Tensor, dim: int) -> list[Tensor]:
        if not t.dim():
            return [t.clone()]
        numbers = torch.arange(t.numel()).reshape(t.shape).movedim(dim, -1)
        rows = t.movedim(dim, -1).reshape(-1, t.shape[dim]).tolist()
        before = [row[: n + 1] for row in rows for n in range(len(row))]
        places = zip(before, numbers.reshape(-1).tolist(), strict=True)
        found = [pick(c, cells, (op, n)) for cells, n in places]
        return [torch.tensor(found, dtype=torch.int64).reshape(numbers.shape).movedim(-1, dim)]

    return meaning


ORDERED: Mapping[str, Callable[..., list[Tensor]]] = MappingProxyType(
    {
        "sort": _sort,
        "topk": _topk,
        "kthvalue": _kth,
        "median": _median,
        "nanmedian": _median,
        "cummax": _so_far(lambda c, cells, w: c.largest(cells, w)),
        "cummin": _so_far(lambda c, cells, w: c.smallest(cells, w)),
    }
)
