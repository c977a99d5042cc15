"""A set in a line: its size, and what is inside."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import torch

from clarke.errors import BudgetError, InputError, UnsupportedError
from clarke.numerics import STEP_SECONDS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from clarke.decide.limitset import LimitSet
    from clarke.decide.membership import Membership

_COUNTED = 1000  # combinations of pieces of which the vertices are counted


class Shown(Protocol):
    """What a set can be asked."""

    @property
    def gradient(self) -> tuple[torch.Tensor, ...]:
        """What autograd returned."""

    @property
    def complete(self) -> bool:
        """Whether all selections are settled."""

    def vertices(self, *, seconds: float | None) -> torch.Tensor:
        """The vertices."""

    def contains(self, vector: Any, *, seconds: float | None) -> Membership:
        """Whether a vector is inside."""


def set_text(found: Shown, known: LimitSet | None) -> str:
    """Vertices, variables, and whether autograd's gradient and zero are inside.

    What would take long is left out.

    Args:
        found: The set.
        known: Its elements, where they are listed already.
    """
    size = sum(g.numel() for g in found.gradient)
    count = "vertices not listed"
    if known is not None:
        count = f"combinations of pieces: {known.count:,}"
        if known.count <= _COUNTED:
            try:
                vertices = len(found.vertices(seconds=float(STEP_SECONDS)))
                count = f"{vertices} {'vertex' if vertices == 1 else 'vertices'}"
            except (BudgetError, UnsupportedError):
                pass  # the count stands
    own = _inside(found, found.gradient)
    zero = _inside(found, [torch.zeros_like(g) for g in found.gradient])
    return (
        f"Subdifferential: {count} in {size} {'variable' if size == 1 else 'variables'}"
        f"{'' if found.complete else ', incomplete'}, autograd's gradient {own}, 0 {zero}"
    )


def _inside(found: Shown, vector: Sequence[torch.Tensor]) -> str:
    try:
        inside = found.contains(tuple(vector), seconds=float(STEP_SECONDS)).inside
    except (BudgetError, InputError, UnsupportedError):  # no time, or NaN
        inside = None
    return {True: "inside", False: "outside", None: "not located"}[inside]
