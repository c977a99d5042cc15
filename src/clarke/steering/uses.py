"""Where flipped comparisons reach differentiable values."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from clarke.capture import OpRecord


@dataclass(frozen=True, eq=False)
class MaskUse:
    """One operation through which flipped comparisons reach differentiable values.

    Attributes:
        op: The operation.
        kink: (D,) the touched kink for each affected element and outcome of the others.
        difference: (D,) differentiable: value with the comparison true minus with it false; None
            where the operation is not one that clarke can follow a mask through.
        elements: (D,) flat positions of the affected elements in the operation's output.
        scale: Largest absolute value for any outcome, anywhere in the output.
        table: (2^d, E) differentiable: the values of the affected elements for every outcome.
        labels: (d, E) 1 + the kink behind each bit of the outcome, or 0.
        affected: (E,) their flat positions.
        present: For entries that a mask picks and a sum adds up, (D,) whether they are picked now.
    """

    op: OpRecord
    kink: torch.Tensor
    difference: torch.Tensor | None = None
    elements: torch.Tensor | None = None
    scale: float = 0.0
    table: torch.Tensor | None = None
    labels: torch.Tensor | None = None
    affected: torch.Tensor | None = None
    present: torch.Tensor | None = None


@dataclass(frozen=True, eq=False)
class Picked:
    """The result of ``x[mask]``, whose number of rows depends on comparisons at ties.

    Attributes:
        mask: Slot of the mask.
        rows: (K, ...) differentiable: the rows that a tie decides, picked or not.
        kinks: (K,) the touched kink that decides each.
        present: (K,) whether it is picked now.
    """

    mask: int
    rows: torch.Tensor
    kinks: torch.Tensor
    present: torch.Tensor


def blended(use: MaskUse, out: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
    """The output of an operation with mixed outcomes.

    Args:
        use: The operation.
        out: Its output.
        shares: (count,) the weight of each touched kink's comparison being true (its sign 1).
    """
    if use.present is not None and use.difference is not None and use.elements is not None:
        change = (shares[use.kink] - use.present.to(shares.dtype)).to(out.dtype)
        return (
            out.reshape(-1).index_add(0, use.elements, change * use.difference).reshape(out.shape)
        )
    if use.table is None or use.labels is None or use.affected is None:
        return out
    table = use.table
    for j in range(use.labels.shape[0]):
        share = torch.where(use.labels[j] > 0, shares[(use.labels[j] - 1).clamp(min=0)], 0.0)
        share = share.to(out.dtype)
        low, high = table[0::2], table[1::2]
        # As a difference from one side: where both agree, the mean has no rounding.
        table = torch.where(share > 0, low + share * (high - low), low)
    return out.reshape(-1).index_put((use.affected,), table[0]).reshape(out.shape)
