"""Algorithms 1 and 2 as the paper states them: the slow reference.

For every maxpool, every output with a tie, and every tied element: two backward passes to the
layer's own parameters (S_j and T_j), then one linear program for the layer. No fingerprints, no
shared passes, no structure: only autograd and scipy. Used by the benchmark and the tests, on
scaled-down networks.

The gradients are those of a float64 copy of the network whose pieces are held where the recorded
float32 run had them, since ties are exact only there.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.optimize
import torch
from torch import nn

Rows = Any


@dataclass(frozen=True)
class LayerResult:
    """What the algorithms find in one layer.

    Attributes:
        outputs: Number of maxpool outputs.
        touched: Pointwise kinks touched.
        ties: Outputs with |S_j| >= 2 (Algorithm 2: of positive value).
        relevant: Outputs with S_j minus T_j non-empty.
        rows: Linear conditions.
        feasible: Whether the set P_l of directions is not empty.
        absolute: The number of relevant outputs if gradients of difference up to 1e-8 counted as
            equal only, in float32, as in the released script.
    """

    outputs: int
    touched: int
    ties: int
    relevant: int
    rows: int
    feasible: bool
    absolute: int


@dataclass
class _Site:
    kind: str
    name: str
    before: torch.Tensor
    after: torch.Tensor
    indices: torch.Tensor | None


def pool_members(pool: Any, space: tuple[int, int], y: int, x: int) -> list[int]:
    """Flat input places of one window, in scan order."""

    def pair(value: Any) -> tuple[int, int]:
        return (value, value) if isinstance(value, int) else tuple(value)

    kernel, stride = pair(pool.kernel_size), pair(pool.stride)
    padding, dilation = pair(pool.padding), pair(pool.dilation)
    found = []
    for i in range(kernel[0]):
        for j in range(kernel[1]):
            row = y * stride[0] - padding[0] + i * dilation[0]
            column = x * stride[1] - padding[1] + j * dilation[1]
            if 0 <= row < space[0] and 0 <= column < space[1]:
                found.append(row * space[1] + column)
    return found


class Naive:
    """Runs a network once in its own precision and once, held to the same pieces, in float64.

    Args:
        net: Modules in which every ReLU and MaxPool2d is used once. Not changed.
        inputs: (B, C, H, W).
    """

    def __init__(self, net: nn.Module, inputs: torch.Tensor) -> None:
        self._net = net
        self._sites: dict[str, _Site] = {}
        self._record(inputs)
        self._double = _copy_in_double(net)
        self._held: dict[str, torch.Tensor] = {}
        self._parameters = dict(self._double.named_parameters())
        self._run_held(inputs.to(torch.float64))

    def _record(self, inputs: torch.Tensor) -> None:
        def note(kind: str, name: str) -> Any:
            def hook(module: nn.Module, args: Any, output: torch.Tensor) -> None:
                before = args[0].detach().clone()
                indices = None
                if isinstance(module, nn.MaxPool2d):
                    _, indices = nn.functional.max_pool2d(
                        before,
                        module.kernel_size,
                        module.stride,
                        module.padding,
                        module.dilation,
                        module.ceil_mode,
                        return_indices=True,
                    )
                self._sites[name] = _Site(kind, name, before, output.detach().clone(), indices)

            return hook

        handles = []
        for name, module in self._net.named_modules():
            if isinstance(module, nn.ReLU):
                handles.append(module.register_forward_hook(note("relu", name)))
            elif isinstance(module, nn.MaxPool2d):
                handles.append(module.register_forward_hook(note("pool", name)))
        buffers = {k: v.clone() for k, v in self._net.named_buffers()}
        with torch.no_grad():
            self._net(inputs)
            for k, v in self._net.named_buffers():
                v.copy_(buffers[k])
        for handle in handles:
            handle.remove()

    def _run_held(self, inputs: torch.Tensor) -> None:
        """The float64 run: ReLUs and pools select what the recorded run selected."""

        def held(site: _Site) -> Any:
            def forward(x: torch.Tensor) -> torch.Tensor:
                self._held[site.name] = x
                if site.kind == "relu":
                    return torch.where(site.before > 0, x, torch.zeros_like(x))
                indices = _indices(site)
                flat = x.flatten(2).gather(2, indices.flatten(2))
                return flat.reshape(indices.shape)

            return forward

        for name, module in self._double.named_modules():
            if name in self._sites:
                module.forward = held(self._sites[name])  # type: ignore[method-assign]
        self._double(inputs)

    def layers(self) -> dict[str, LayerResult]:
        """Every maxpool with the pointwise kinks in front of it, by the pool's name."""
        found = {}
        previous: list[str] = []
        for name, site in self._sites.items():
            if site.kind == "pool":
                found[name] = self._layer(name, previous[-1] if previous else None)
                previous = []
            else:
                previous.append(name)
        return found

    def _own(self, value: torch.Tensor) -> list[torch.Tensor]:
        """All parameters on which a value depends: null ties agree in the gradients of all."""
        return [p for p in self._parameters.values() if _reaches(value, p)]

    def _gradient(self, value: torch.Tensor, parameters: list[torch.Tensor]) -> Rows:
        grads = torch.autograd.grad(value, parameters, retain_graph=True, allow_unused=True)
        return torch.cat(
            [
                (torch.zeros_like(p) if g is None else g).reshape(-1)
                for g, p in zip(grads, parameters, strict=True)
            ]
        ).numpy()

    def _layer(self, name: str, relu: str | None) -> LayerResult:
        site = self._sites[name]
        pool = dict(self._net.named_modules())[name]
        value = self._held[name]
        parameters = self._own(value)
        space = (site.before.shape[2], site.before.shape[3])
        touched = 0 if relu is None else int((self._sites[relu].before == 0).sum())
        ties = relevant = absolute = 0
        rows: list[Rows] = []
        for n, c, y, x in np.ndindex(*site.after.shape):
            best = site.after[n, c, y, x]
            if relu is not None and best <= 0:  # Algorithm 2
                continue
            flat = site.before[n, c].reshape(-1)
            tied = [m for m in pool_members(pool, space, y, x) if flat[m] == best]
            if len(tied) < 2:
                continue
            ties += 1
            chosen = int(_indices(site)[n, c, y, x])
            top = self._gradient(value[n, c].reshape(-1)[chosen], parameters)
            differs = False
            rough = False
            for m in tied:
                if m == chosen:
                    continue
                other = self._gradient(value[n, c].reshape(-1)[m], parameters)
                gap = np.abs(top - other).max()
                rough = rough or bool(
                    (np.abs(top.astype(np.float32) - other.astype(np.float32)) > 1e-8).any()
                )
                # Equal up to the roundings of a float64 backward pass.
                if gap > 1e-10 * max(np.abs(top).max(), np.abs(other).max(), 1e-300):
                    differs = True
                    rows.append(top - other)
            relevant += differs
            absolute += rough
        return LayerResult(
            outputs=site.after.numel(),
            touched=touched,
            ties=ties,
            relevant=relevant,
            rows=len(rows),
            feasible=feasible(np.array(rows)) if rows else True,
            absolute=absolute,
        )


def feasible(rows: Rows) -> bool:
    """Whether some direction is positive on all rows: the largest margin in the unit box."""
    m, n = rows.shape
    unit = rows / np.abs(rows).max(axis=1, keepdims=True)
    cost = np.zeros(n + 1)
    cost[-1] = -1.0
    found = scipy.optimize.linprog(
        cost,
        A_ub=np.concatenate([-unit, np.ones((m, 1))], axis=1),
        b_ub=np.zeros(m),
        bounds=[(-1, 1)] * n + [(None, 1)],
        method="highs",
    )
    return bool(found.status == 0 and found.x[-1] > 1e-9)


def _indices(site: _Site) -> torch.Tensor:
    if site.indices is None:
        raise ValueError(f"{site.name} is not a maxpool")
    return site.indices


def _reaches(value: torch.Tensor, parameter: torch.Tensor) -> bool:
    (found,) = torch.autograd.grad(value.sum(), [parameter], retain_graph=True, allow_unused=True)
    return found is not None


def _copy_in_double(net: nn.Module) -> nn.Module:
    return copy.deepcopy(net).double()
