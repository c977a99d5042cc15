"""Eigenvectors and singular vectors: fixed up to a factor, which an algorithm chooses.

Their signs may jump where the function that uses them does not see it, and where values meet the
vectors themselves jump.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from clarke.capture import input_slots

if TYPE_CHECKING:
    from collections.abc import Mapping

    from clarke.capture import OpRecord
    from clarke.steering import Analysis

# Positions of the vectors among the results. Of linalg_eig even the order of the values is the
# algorithm's.
_VECTORS: Final[Mapping[str, tuple[int, ...]]] = MappingProxyType(
    {"_linalg_svd": (0, 2), "_linalg_eigh": (1,), "linalg_eig": (0, 1)}
)


def used_vectors(analysis: Analysis) -> OpRecord | None:
    """The first operation whose vectors reach other operations, if there is one."""
    read = {slot for op in analysis.recorded.ops for slot in input_slots(op)}
    read.add(analysis.recorded.output)
    for op in analysis.recorded.ops:
        places = _VECTORS.get(op.short_name, ())
        if op.differentiated and any(op.outputs[i] in read for i in places):
            return op
    return None
