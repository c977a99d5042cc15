"""Operators that move entries and compute nothing: torch runs them on the numbers of cells.

A tensor of a lowered program is a tensor of whole numbers, each of which names a cell. So views
share memory as they do in the program, and writes in place are seen where the program sees them.
"""

from __future__ import annotations

from types import MappingProxyType

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
