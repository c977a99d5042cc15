"""The ordinary step: its verdict is there before the call, and fresh leaves hold its gradient."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from clarke.capture import all_finite
from clarke.rerun import plain

if TYPE_CHECKING:
    from collections.abc import Sequence

    from clarke.decide import Decision


def arrived(leaves: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...] | None:
    """What a call has left in ``.grad`` of leaves that were fresh before it.

    Sums and aliases are all that runs: of the user's modes, only those that would see them matter,
    and nothing has to be put back.

    Returns:
        The gradient; None where a leaf has none or not all of it is finite, for a closer look.
    """
    with torch._C.DisableTorchFunction(), torch._C._DisableTorchDispatch():  # noqa: SLF001 - have no public names
        held = [leaf.grad for leaf in leaves]
        found = tuple([plain(g) for g in held if g is not None])
        return found if len(found) == len(held) and all_finite(found) else None


def of_gradient(decision: Decision, gradient: tuple[torch.Tensor, ...]) -> Decision:
    """A decision that was made before the gradient was there, on that gradient."""
    if decision.certificate is None:
        return decision
    return replace(decision, certificate=replace(decision.certificate, gradient=gradient))
