"""Theorem 8 with Algorithm 1 of Park, Chun and Lee (ICLR 2024, section 4), written as it stands.

This shares no code with clarke's own decision but the solver of linear systems: layer by layer it
differentiates pre-activations with respect to the layer's own parameters alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional as F  # noqa: N812 - torch's own custom

from clarke.feasibility import Outcome, find_witness

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from clarke.experiments.random_networks import Activation, Layer, Network

    Array = NDArray[np.float64]

_BESIDE = 1e-3


def theorem_8_holds(network: Network) -> bool:
    """Whether every layer's set P_l is nonempty, which implies a Bouligand gradient.

    For networks whose layers have their own parameters, differentiated with respect to all of
    them.
    """
    z = network.inputs.detach()
    for layer in network.layers:
        y = layer.before(z)
        if layer.activation is not None:
            rows = np.array(list(_rows(layer, layer.activation, y)))
            if len(rows) and find_witness(rows).outcome is not Outcome.WITNESS:
                return False
        z = layer.after(y.detach())
    return True


def _rows(layer: Layer, activation: Activation, y: torch.Tensor) -> Iterator[Array]:
    """The rows of one layer: pointwise kinks signed by AD's side, and ties of the maxpool."""
    flat = y.reshape(-1)
    values = y.detach().reshape(-1)
    slopes = _slopes(activation, values)

    def gradient(i: int) -> Array:
        parts = torch.autograd.grad(
            flat[i], layer.parameters, retain_graph=True, materialize_grads=True
        )
        return torch.cat([p.reshape(-1) for p in parts]).numpy()

    above = _slopes(activation, values + _BESIDE)
    below = _slopes(activation, values - _BESIDE)
    for i in torch.isin(values, torch.tensor(activation.kinks).double()).nonzero().flatten():
        at = int(i)
        if slopes[at] == above[at]:
            yield gradient(at)
        elif slopes[at] == below[at]:
            yield -gradient(at)
        else:
            raise AssertionError(f"{activation} mixes its pieces at {float(values[at])}.")
    if layer.pooled:
        yield from (
            slopes[best].item() * gradient(best) - slopes[i].item() * gradient(i)
            for best, i in _ties(activation.apply(y.detach()))
            if not np.array_equal(
                slopes[best].item() * gradient(best), slopes[i].item() * gradient(i)
            )
        )


def _slopes(activation: Activation, values: torch.Tensor) -> torch.Tensor:
    """AD's derivative of the activation, elementwise."""
    leaf = values.detach().clone().requires_grad_()
    (found,) = torch.autograd.grad(activation.apply(leaf).sum(), leaf)
    return found


def _ties(z: torch.Tensor) -> Iterator[tuple[int, int]]:
    """(index that AD takes, another index of the same largest value) for 2x2 windows."""
    out, chosen = F.max_pool2d(z, 2, return_indices=True)
    batch, channels, height, width = z.shape
    index = torch.arange(z.numel()).reshape(z.shape)
    for b in range(batch):
        for c in range(channels):
            for i in range(height // 2):
                for j in range(width // 2):
                    window = (b, c, slice(2 * i, 2 * i + 2), slice(2 * j, 2 * j + 2))
                    best = int(index[b, c].reshape(-1)[chosen[b, c, i, j]])
                    equal = index[window][z[window] == out[b, c, i, j]]
                    yield from ((best, int(k)) for k in equal if int(k) != best)
