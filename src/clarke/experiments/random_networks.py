"""Small random networks at points on their kinks, for comparing sufficient conditions with truth.

Weights, biases and inputs are small dyadic numbers, drawn so that pre-activations stand exactly on
kinks and maxima tie: what happens at zero initialisation, with padded or repeated inputs, and
with quantised weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, TypeVar

import torch
from torch.nn import functional as F  # noqa: N812 - torch's own custom

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


_T = TypeVar("_T")
_ATTEMPTS = 200


class NetworkClass(Enum):
    """The paper's classes of networks, and one that it leaves out."""

    DISTINCT = "fully connected, distinct biases"
    BARE = "fully connected, no biases"
    SHARED = "convolution, shared biases"
    POOLED = "convolution, shared biases, maxpool"
    POOLED_BARE = "convolution, no biases, maxpool"
    TIED = "one layer used twice (outside the paper's class)"

    @property
    def biased(self) -> bool:
        """Whether every layer has biases."""
        return self not in (NetworkClass.BARE, NetworkClass.POOLED_BARE)

    @property
    def convolutional(self) -> bool:
        """Whether the first layer is a convolution."""
        return self in (NetworkClass.SHARED, NetworkClass.POOLED, NetworkClass.POOLED_BARE)

    @property
    def pooled(self) -> bool:
        """Whether the first layer ends with a maxpool."""
        return self in (NetworkClass.POOLED, NetworkClass.POOLED_BARE)


class Activation(Enum):
    """Piecewise affine activations."""

    RELU = "relu"
    LEAKY_RELU = "leaky_relu"
    HARDTANH = "hardtanh"
    RELU6 = "relu6"
    HARDSIGMOID = "hardsigmoid"

    @property
    def kinks(self) -> tuple[float, ...]:
        """Where its pieces meet."""
        return {
            Activation.RELU: (0.0,),
            Activation.LEAKY_RELU: (0.0,),
            Activation.HARDTANH: (-1.0, 1.0),
            Activation.RELU6: (0.0, 6.0),
            Activation.HARDSIGMOID: (-3.0, 3.0),
        }[self]

    def apply(self, y: torch.Tensor) -> torch.Tensor:
        """The activation by torch's own function."""
        functions: dict[Activation, Callable[[torch.Tensor], torch.Tensor]] = {
            Activation.RELU: F.relu,
            Activation.LEAKY_RELU: F.leaky_relu,
            Activation.HARDTANH: F.hardtanh,
            Activation.RELU6: F.relu6,
            Activation.HARDSIGMOID: F.hardsigmoid,
        }
        return functions[self](y)


class Variables(Enum):
    """What is differentiated."""

    PARAMETERS = "all parameters"
    FIRST_LAYER = "the first layer's parameters"
    INPUTS = "the inputs"

    @property
    def affine(self) -> bool:
        """Whether the loss is piecewise affine in them."""
        return self is not Variables.PARAMETERS


@dataclass(frozen=True, eq=False)
class Layer:
    """A pre-activation ``τ(z, w)``, an activation, perhaps a maxpool.

    Attributes:
        weight: (out, in) or (out, in, 3, 3), a leaf.
        bias: (out,), a leaf, or None.
        activation: None for the readout.
        pooled: A 2x2 maxpool follows.
    """

    weight: torch.Tensor
    bias: torch.Tensor | None
    activation: Activation | None
    pooled: bool = False

    @property
    def parameters(self) -> tuple[torch.Tensor, ...]:
        """The layer's own parameters w_l."""
        return (self.weight,) if self.bias is None else (self.weight, self.bias)

    def before(self, z: torch.Tensor) -> torch.Tensor:
        """The pre-activation y_l."""
        if self.weight.dim() == 4:
            return F.conv2d(z, self.weight, self.bias)
        return F.linear(z.flatten(1), self.weight, self.bias)

    def after(self, y: torch.Tensor) -> torch.Tensor:
        """The layer's output z_l."""
        z = y if self.activation is None else self.activation.apply(y)
        return F.max_pool2d(z, 2) if self.pooled else z


@dataclass(frozen=True, eq=False)
class Network:
    """A network at one point.

    Attributes:
        kind: Its class.
        layers: In order; the last is the readout. A layer may stand twice.
        inputs: (B, ...) a leaf.
        weights: (B, outputs) of the linear loss.
    """

    kind: NetworkClass
    layers: tuple[Layer, ...]
    inputs: torch.Tensor
    weights: torch.Tensor

    def loss(self) -> torch.Tensor:
        """The loss, a scalar."""
        z = self.inputs
        for layer in self.layers:
            z = layer.after(layer.before(z))
        return (z * self.weights).sum()

    def touches(self) -> bool:
        """Whether some pre-activation stands on a kink or some maxpool ties."""
        z = self.inputs.detach()
        for layer in self.layers:
            y = layer.before(z).detach()
            if layer.activation is not None:
                if bool(torch.isin(y, torch.tensor(layer.activation.kinks).double()).any()):
                    return True
                if layer.pooled:
                    values = F.unfold(layer.activation.apply(y).flatten(0, 1)[:, None], 2, stride=2)
                    if bool(((values == values.amax(1, keepdim=True)).sum(1) > 1).any()):
                        return True
            z = layer.after(y)
        return False

    def variables(self, which: Variables) -> list[torch.Tensor]:
        """The leaves of a kind, each once."""
        if which is Variables.INPUTS:
            return [self.inputs]
        layers = self.layers[:1] if which is Variables.FIRST_LAYER else self.layers
        return list({id(p): p for layer in layers for p in layer.parameters}.values())


class _Draw:
    """Random dyadic tensors from one generator."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def pick(self, values: Sequence[float], *shape: int) -> torch.Tensor:
        """Entries drawn from `values`, (shape), float64."""
        at = torch.randint(0, len(values), shape, generator=self.generator)
        return torch.tensor(values, dtype=torch.float64)[at]

    def one_of(self, values: Sequence[_T]) -> _T:
        """One of the values."""
        return values[int(torch.randint(0, len(values), (), generator=self.generator))]

    def chance(self, probability: float) -> bool:
        """True with the given probability."""
        return bool(torch.rand((), generator=self.generator) < probability)

    def layer(
        self, shape: tuple[int, ...], activation: Activation, *, biased: bool, pooled: bool = False
    ) -> Layer:
        """A layer; its weights may repeat rows, its biases are zero or lead onto kinks."""
        weight = self.pick((-1.0, -0.5, 0.0, 0.5, 1.0, 1.0), *shape)
        if self.chance(0.4):  # repeated and opposite neurons
            weight[1:] = weight[:1] * self.pick((-1.0, 1.0), shape[0] - 1, *[1] * (len(shape) - 1))
        bias = None
        if biased:
            bias = torch.zeros(shape[0], dtype=torch.float64)
            if self.chance(0.5):
                bias = self.pick((0.0, *activation.kinks, 0.5), shape[0])
            bias.requires_grad_()
        return Layer(weight.requires_grad_(), bias, activation, pooled)


def draw_network(kind: NetworkClass, seed: int) -> Network:
    """A random network of a class at a point on kinks, the same for the same seed."""
    draw = _Draw(seed)
    for _ in range(_ATTEMPTS):
        network = _draw_any(kind, draw)
        if network.touches():
            break
    return network


def _draw_any(kind: NetworkClass, draw: _Draw) -> Network:
    activation = draw.one_of(list(Activation))
    batch = draw.one_of([1, 2, 3])
    shape = (batch, 1, 4, 4) if kind.convolutional else (batch, 2)
    inputs = draw.pick((-1.0, 0.0, 0.0, 1.0, 1.0), *shape)
    if batch > 1 and draw.chance(0.4):  # the same sample again, or its negative
        inputs[1:] = inputs[:1] * draw.pick((-1.0, 1.0), batch - 1, *[1] * (len(shape) - 1))
    if kind.convolutional:
        first = draw.layer((2, 1, 3, 3), activation, biased=kind.biased, pooled=kind.pooled)
        second = draw.layer((2, 2 if kind.pooled else 8), activation, biased=kind.biased)
    else:
        first = draw.layer((2, 2), activation, biased=kind.biased)
        second = draw.layer((2, 2), activation, biased=kind.biased)
    if kind is NetworkClass.TIED:
        second = first
    readout = Layer(draw.pick((-1.0, 1.0, 0.5), 1, 2).requires_grad_(), None, None)
    weights = draw.pick((-1.0, 1.0), batch, 1)
    return Network(kind, (first, second, readout), inputs.requires_grad_(), weights)
