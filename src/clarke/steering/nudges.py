"""Zero perturbations added where a kink's value leaves its operation.

The derivative of anything with respect to them is the adjoint at the kink, without hooks.
"""

from __future__ import annotations

import torch

from clarke.numerics import CUT_SCATTER
from clarke.torch_private import make_dual, unpack_dual


class Nudges:
    """Leaves of value zero, one for each touched kink, by number of the operation's record.

    Args:
        dtype: Floating point type of the replay.
        cut: (count,) bool: only these kinks get leaves, and their results stop depending on
            anything else, so that derivatives are those of the operations up to the next kink.
        tangents: Gives the leaves random tangents, in a replay that carries tangents.
    """

    def __init__(
        self,
        dtype: torch.dtype,
        cut: torch.Tensor | None = None,
        tangents: torch.Generator | None = None,
    ) -> None:
        self.dtype = dtype
        self._cut = cut
        self._tangents = tangents
        # With it, leaves are random small numbers: the program with its cut results moved.
        self.scatter: torch.Generator | None = None
        self.leaves: list[torch.Tensor] = []
        self.kinks: list[torch.Tensor] = []
        self.of_uses: list[bool] = []  # whether each leaf stands where a mask is used
        # Ranges (first kink, how many) that are watched as one, at the first.
        self.spread: list[tuple[int, int]] = []

    def add(
        self, out: torch.Tensor, elements: torch.Tensor, kinks: torch.Tensor, *, use: bool = False
    ) -> torch.Tensor:
        """`out` with a fresh zero leaf added at flat positions `elements`.

        `kinks` numbers the touched kink of each element; `use` says that a mask is used here.
        """
        if self._cut is not None:
            elements, kinks = elements[self._cut[kinks]], kinks[self._cut[kinks]]
        if elements.numel() == 0 or not carries_slopes(out):
            return out
        dtype = out.dtype if out.is_complex() else self.dtype
        leaf = torch.zeros(elements.numel(), dtype=dtype, requires_grad=True)
        self.leaves.append(leaf)
        self.kinks.append(kinks)
        self.of_uses.append(use)
        flat = out.reshape(-1)
        if self._cut is None:
            return flat.index_add(0, elements, leaf).reshape(out.shape)
        if self._tangents is not None:
            random = torch.randn(leaf.shape, dtype=self.dtype, generator=self._tangents)
            leaf = make_dual(leaf.detach(), random.to(dtype))
        value = unpack_dual(flat[elements])[0].detach()
        if self.scatter is not None:
            random = torch.randn(leaf.shape, dtype=self.dtype, generator=self.scatter)
            leaf = (1.0 + value.abs()) * random.to(dtype) * CUT_SCATTER
        return flat.index_put((elements,), value + leaf).reshape(out.shape)

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
                real = grad.real if grad.is_complex() else grad
                found.index_add_(0, kinks, real.detach().to(torch.float64))
        return found


def carries_slopes(value: torch.Tensor) -> bool:
    """Whether a tensor holds real or complex numbers, not integers or truth values."""
    return value.is_floating_point() or value.is_complex()
