"""Operators that move entries and compute nothing: torch runs them on the numbers of cells.

A tensor of a lowered program is a tensor of whole numbers, each of which names a cell. So views
share memory as they do in the program, and writes in place are seen where the program sees them.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import Tensor

# Position of the argument that holds whole numbers, which are values and not entries to be moved.
INDEXED = MappingProxyType(
    {
        "index": 1,
        "index_select": 2,
        "gather": 2,
        "embedding": 1,
        "take": 1,
        "index_put": 1,
    }
)


def _by_index(t: Tensor, places: Sequence[Tensor | None]) -> tuple[int, Tensor]:
    at = next(n for n, p in enumerate(places) if p is not None)
    own = places[at]
    return t.shape[at], own.reshape(*own.shape, *[1] * (t.dim() - at - 1))  # type: ignore[union-attr]


# Of those whose places may vary: how many places there are, and which each entry of the result has.
CHOSEN: Mapping[str, Callable[..., tuple[int, Tensor]]] = MappingProxyType(
    {
        "gather": lambda t, dim, places, *_: (t.shape[dim], places),
        "index_select": lambda t, dim, places: (
            t.shape[dim],
            places.reshape(-1, *[1] * (t.dim() - dim % t.dim() - 1)),
        ),
        "index": _by_index,
        "embedding": lambda t, places, *_: (t.shape[0], places[..., None]),
        "take": lambda t, places: (t.numel(), places),
    }
)
MOVED = frozenset(
    {
        *INDEXED,
        "_reshape_alias",
        "_to_copy",
        "_unsafe_view",
        "alias",
        "cat",
        "clone",
        "contiguous",
        "diagonal",
        "expand",
        "flip",
        "lift_fresh",
        "permute",
        "repeat",
        "reshape",
        "roll",
        "select",
        "slice",
        "split",
        "split_with_sizes",
        "squeeze",
        "stack",
        "t",
        "transpose",
        "unbind",
        "unfold",
        "unsafe_split",
        "unsqueeze",
        "view",
    }
)
