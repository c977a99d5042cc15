"""Zero perturbations added where a kink's value leaves its operation.

The derivative of anything with respect to them is the adjoint at the kink, without hooks.
"""

from __future__ import annotations

import torch


class Nudges:
    """Leaves of value zero, one for each touched kink, by number of the operation's record."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self.leaves: list[torch.Tensor] = []
        self.kinks: list[torch.Tensor] = []
        # Ranges (first kink, how many) that are watched as one, at the first.
        self.spread: list[tuple[int, int]] = []

    def add(self, out: torch.Tensor, elements: torch.Tensor, kinks: torch.Tensor) -> torch.Tensor:
        """`out` with a fresh zero leaf added at flat positions `elements`.

        `kinks` numbers the touched kink of each element.
        """
        if elements.numel() == 0 or not (out.is_floating_point() or out.is_complex()):
            return out
        dtype = out.dtype if out.is_complex() else self.dtype
        leaf = torch.zeros(elements.numel(), dtype=dtype, requires_grad=True)
        self.leaves.append(leaf)
        self.kinks.append(kinks)
        return out.reshape(-1).index_add(0, elements, leaf).reshape(out.shape)

    def adjoints(self, target: torch.Tensor, count: int) -> torch.Tensor:
        """(count,) largest absolute adjoint of `target` at every kink; NaN counts as infinite."""
        found = torch.zeros(count, dtype=torch.float64)
        if not self.leaves or not target.requires_grad:
            return found
        grads = torch.autograd.grad(target, self.leaves, retain_graph=True, allow_unused=True)
        for grad, kinks in zip(grads, self.kinks, strict=True):
            if grad is not None:
                size = torch.nan_to_num(grad.detach().abs(), nan=torch.inf).to(torch.float64)
                found.scatter_reduce_(0, kinks, size, "amax")
        for first, number in self.spread:
            found[first : first + number] = found[first]
        return found

    def signed_adjoints(self, target: torch.Tensor, count: int) -> torch.Tensor:
        """(count,) the adjoint of `target` at every kink, summed over the elements it feeds."""
        found = torch.zeros(count, dtype=torch.float64)
        grads = torch.autograd.grad(target, self.leaves, retain_graph=True, allow_unused=True)
        for grad, kinks in zip(grads, self.kinks, strict=True):
            if grad is not None:
                found.index_add_(0, kinks, grad.detach().to(torch.float64))
        return found
