"""Algorithms 1 and 2 as the paper states them: the slow reference.

For every maxpool, every output with a tie, and every tied element: backward passes that give S_j
and T_j, then one linear program for the layer over the layer's own parameters. No fingerprints, no
shared passes, no structure: only autograd and scipy. Used by the benchmark and the tests, on
scaled-down networks.

The gradients are those of a float64 copy of the network whose pieces are held where the recorded
float32 run had them, since ties are exact only there. A second copy, in the precision of the run,
shows what comes of gradients compared in float32 with an absolute tolerance of 1e-8, as in the
released script.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.optimize
import torch
from torch import nn

Rows = Any
Window = tuple[int, int, int, int]  # image, channel, row, column in the output of a maxpool

_ABSOLUTE = 1e-8  # the released script's tolerance


@dataclass(frozen=True)
class LayerResult:
    """What the algorithms find in one layer.

    Attributes:
        outputs: Number of maxpool outputs.
        touched: Pointwise kinks touched.
        tied: S_j of the outputs with |S_j| >= 2 (Algorithm 2: of positive value), as flat places
            in the channel's plane.
        rivals: S_j minus T_j, where it is not empty.
        rows: Linear conditions.
        feasible: Whether the set P_l of directions of the layer's own parameters is not empty.
        rough: `rivals` as float32 gradients with an absolute tolerance find them.
        rough_feasible: `feasible` with the rows of `rough`, likewise in float32.
    """

    outputs: int
    touched: int
    tied: dict[Window, frozenset[int]]
    rivals: dict[Window, frozenset[int]]
    rows: int
    feasible: bool
    rough: dict[Window, frozenset[int]]
    rough_feasible: bool

    @property
    def ties(self) -> int:
        """Number of outputs with a tie."""
        return len(self.tied)

    @property
    def relevant(self) -> int:
        """Number of outputs with S_j minus T_j not empty."""
        return len(self.rivals)

    @property
    def absolute(self) -> int:
        """The same by the absolute tolerance."""
        return len(self.rough)


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
    """Runs a network once in its own precision and twice held to the same pieces.

    Args:
        net: Modules in which every ReLU and MaxPool2d is used once. Not changed.
        inputs: (B, C, H, W).
        rough: Also do what an absolute tolerance in the network's own precision does.
    """

    def __init__(self, net: nn.Module, inputs: torch.Tensor, *, rough: bool = True) -> None:
        self._net = net
        self._sites: dict[str, _Site] = {}
        self._record(inputs)
        self._exact = _Held(net, self._sites, inputs, torch.float64)
        self._rough = _Held(net, self._sites, inputs, inputs.dtype) if rough else None

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

    def touches(self) -> dict[str, int]:
        """How many inputs of every ReLU are exactly zero, by its name."""
        return {
            name: int((site.before == 0).sum())
            for name, site in self._sites.items()
            if site.kind == "relu"
        }

    def layers(self) -> dict[str, LayerResult]:
        """Every maxpool with the pointwise kinks in front of it, by the pool's name."""
        found = {}
        previous: list[str] = []
        for name, site in self._sites.items():
            if site.kind == "pool":
                found[name] = self._layer(name, previous)
            previous.append(name)
        return found

    def _layer(self, name: str, previous: list[str]) -> LayerResult:
        site = self._sites[name]
        # The layer's own ReLU stands right before its maxpool.
        last = self._sites[previous[-1]] if previous else None
        own = last is not None and last.kind == "relu" and torch.equal(last.after, site.before)
        relu = last.name if last is not None and own else None
        earlier = previous[: -1 if relu is not None else None]
        below = earlier[-1] if earlier else None
        touched = 0 if relu is None else int((self._sites[relu].before == 0).sum())
        tied = self._tied(name, positive=relu is not None)
        rivals, rows = self._exact.rivals(name, below, tied, relative=1e-10)
        rough, rough_rows = {}, []
        if self._rough is not None:
            rough, rough_rows = self._rough.rivals(name, below, tied, absolute=_ABSOLUTE)
        return LayerResult(
            outputs=site.after.numel(),
            touched=touched,
            tied=tied,
            rivals=rivals,
            rows=len(rows),
            feasible=feasible(np.array(rows)) if rows else True,
            rough=rough,
            rough_feasible=feasible(np.array(rough_rows)) if rough_rows else True,
        )

    def _tied(self, name: str, *, positive: bool) -> dict[Window, frozenset[int]]:
        """S_j of every output that is attained more than once."""
        site = self._sites[name]
        pool = dict(self._net.named_modules())[name]
        space = (site.before.shape[2], site.before.shape[3])
        planes = site.before.flatten(2)
        found: dict[Window, frozenset[int]] = {}
        for y in range(site.after.shape[2]):
            for x in range(site.after.shape[3]):
                members = pool_members(pool, space, y, x)
                best = site.after[:, :, y, x]
                equal = planes[:, :, members] == best[:, :, None]
                wanted = equal.sum(2) > 1
                if positive:  # Algorithm 2
                    wanted &= best > 0
                for n, c in wanted.nonzero().tolist():
                    at = equal[n, c].nonzero().squeeze(1).tolist()
                    found[n, c, y, x] = frozenset(members[i] for i in at)
        return found


class _Held:
    """A copy of a network in some precision, with the pieces that a recorded run had selected."""

    def __init__(
        self, net: nn.Module, sites: dict[str, _Site], inputs: torch.Tensor, dtype: torch.dtype
    ) -> None:
        self._sites = sites
        self._values: dict[str, torch.Tensor] = {}
        self._net = copy.deepcopy(net).to(dtype)
        self._parameters = tuple(self._net.parameters())

        def held(site: _Site) -> Any:
            def forward(x: torch.Tensor) -> torch.Tensor:
                self._values[site.name] = x
                if site.kind == "relu":
                    return torch.where(site.before > 0, x, torch.zeros_like(x))
                indices = _indices(site)
                flat = x.flatten(2).gather(2, indices.flatten(2))
                return flat.reshape(indices.shape)

            return forward

        for name, module in self._net.named_modules():
            if name in sites:
                module.forward = held(sites[name])  # type: ignore[method-assign]
        self._net(inputs.to(dtype))

    def rivals(
        self,
        name: str,
        below: str | None,
        tied: dict[Window, frozenset[int]],
        *,
        relative: float = 0.0,
        absolute: float = 0.0,
    ) -> tuple[dict[Window, frozenset[int]], list[Rows]]:
        """S_j minus T_j, and the conditions that it imposes on the layer's own parameters.

        Args:
            name: The maxpool.
            below: The ReLU or maxpool from which the layer takes its input.
            tied: S_j.
            relative: Gradients are equal if they differ by at most this part of the larger one,
            absolute: or by at most this.
        """
        value = self._values[name]
        parameters = [p for p in self._parameters if _reaches(value, p)]
        # The layer's own parameters: those that its input does not depend on.
        own = [below is None or not _reaches(self._values[below], p) for p in parameters]
        columns = np.repeat(own, [p.numel() for p in parameters])
        known: dict[tuple[int, int, int], Rows] = {}

        def gradient(n: int, c: int, place: int) -> Rows:
            """Of one element with respect to all parameters that it depends on."""
            if (n, c, place) not in known:
                grads = torch.autograd.grad(
                    value[n, c].reshape(-1)[place],
                    parameters,
                    retain_graph=True,
                    allow_unused=True,
                )
                known[n, c, place] = torch.cat(
                    [
                        (torch.zeros_like(p) if g is None else g).reshape(-1)
                        for g, p in zip(grads, parameters, strict=True)
                    ]
                ).numpy()
            return known[n, c, place]

        indices = _indices(self._sites[name])
        rows: list[Rows] = []
        found: dict[Window, set[int]] = defaultdict(set)
        for (n, c, y, x), members in tied.items():
            chosen = int(indices[n, c, y, x])
            top = gradient(n, c, chosen)
            for m in sorted(members - {chosen}):
                other = gradient(n, c, m)
                size = max(np.abs(top).max(), np.abs(other).max())
                if np.abs(top - other).max() > max(relative * size, absolute):
                    found[n, c, y, x].add(m)
                    rows.append((top - other)[columns])
        return {w: frozenset(m) for w, m in found.items()}, rows


def feasible(rows: Rows) -> bool:
    """Whether some direction is positive on all rows: the largest margin in the unit box."""
    sizes = np.abs(rows).max(axis=1, keepdims=True, initial=0.0)
    if not sizes.all():  # a condition 0 > 0
        return False
    unit = np.unique(np.asarray(rows / sizes, dtype=np.float64), axis=0)
    m, n = unit.shape
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
