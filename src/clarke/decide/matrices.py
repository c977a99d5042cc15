"""Jacobians of selections, of a program that is a sum of outputs with variable weights.

The weights are the program's last variable: the gradient in them is the function itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from clarke.constraints import flatten
from clarke.numerics import JACOBIAN_LIKE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from clarke.steering import Program

    Array = NDArray[np.float64]


def outputs_under(
    program: Program, choices: Mapping[int, torch.Tensor]
) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
    """The function's outputs under a selection, as they depend on its variables."""
    run = program.run(choices=choices)
    *leaves, weights = run.leaves
    (y,) = torch.autograd.grad(run.output.sum(), [weights], create_graph=True)
    return y, tuple(leaves)


def derivative_of(
    value: torch.Tensor, leaves: Sequence[torch.Tensor], *, create_graph: bool = False
) -> tuple[torch.Tensor, ...]:
    """The gradient, zeros where the value does not depend on the leaves."""
    if not value.requires_grad:
        return tuple(torch.zeros_like(x) for x in leaves)
    found = torch.autograd.grad(
        value, list(leaves), retain_graph=True, create_graph=create_graph, materialize_grads=True
    )
    return tuple(found)


def matrix_under(program: Program, choices: Mapping[int, torch.Tensor]) -> Array:
    """(m, n) the Jacobian of the function under a selection."""
    y, leaves = outputs_under(program, choices)
    return np.stack([flatten([g.detach() for g in derivative_of(e, leaves)]) for e in y])


def mixes_to(matrices: Sequence[Array], weights: Sequence[float], given: torch.Tensor) -> bool:
    """Whether a mixture of matrices is the given one, up to roundings of its type."""
    mixed = sum(w * m for w, m in zip(weights, matrices, strict=True))
    target = given.double().numpy()
    size = np.maximum(np.abs(np.stack(list(matrices))).max(0), np.abs(target))
    allowed = max(float(JACOBIAN_LIKE), 64 * torch.finfo(given.dtype).eps) * size
    return bool((np.abs(mixed - target) <= allowed).all())
