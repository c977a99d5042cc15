"""What is run: the paper's settings, and the figures it reports for them."""

from __future__ import annotations

from dataclasses import MISSING, dataclass, fields
from enum import Enum
from typing import TYPE_CHECKING, Any

import torch

from clarke.errors import InputError
from clarke.experiments.data import Source
from clarke.experiments.models import Activation, fnn, resnet18, vgg11, vgg11_bn

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn


class Network(Enum):
    """The networks of the paper's section 5; the values are the command's arguments."""

    FNN = "fnn"
    VGG11 = "vgg11"
    VGG11_BN = "vgg11-bn"
    RESNET18 = "resnet18"

    @property
    def source(self) -> Source:
        """The data set it is trained on."""
        return Source.MNIST if self is Network.FNN else Source.CIFAR10


@dataclass(frozen=True)
class Training:
    """Settings of one training run; the defaults are the paper's.

    Attributes:
        network: Which one.
        activation: For the fully connected network only.
        epochs: Passes over the training images.
        steps: Stop after so many steps; None for all. The learning rate follows `epochs`.
        batch: Images in a step; the last step of an epoch takes what is left.
        rate: Initial learning rate, lowered to zero along a cosine, epoch by epoch.
        decay: Weight decay.
        seed: Of initial weights, order of images and augmentation.
        every: Audit every so many steps, counted from the start of an epoch.
        device: Where to train.
        momentum: Of SGD; the paper names none.
        sample: Audit a step with this probability only, drawn by a generator of its own.
    """

    network: Network
    activation: Activation | None = None
    epochs: int = 20
    steps: int | None = None
    batch: int = 128
    rate: float = 0.05
    decay: float = 1e-4
    seed: int = 0
    every: int = 1
    device: str = "cpu"
    momentum: float = 0.0
    sample: float | None = None

    def require(self) -> None:
        """Check what the command line does not.

        Raises:
            InputError: A setting is out of range, or there is no such device.
        """
        if self.sample is not None and not 0 < self.sample <= 1:
            raise InputError(f"--sample is {self.sample:g}; it must be above 0, up to 1.")
        try:
            torch.zeros(1, device=self.device).cpu()
        except (RuntimeError, AssertionError, NotImplementedError) as error:
            raise InputError(
                f"There is no device {self.device!r} to train on "
                f"({str(error).splitlines()[0]}). Leave out --device to train on the CPU."
            ) from error

    def model(self) -> nn.Module:
        """A fresh network."""
        if self.network is Network.FNN:
            return fnn(self.activation or Activation.RELU6)
        if self.network is Network.VGG11:
            return vgg11()
        return vgg11_bn() if self.network is Network.VGG11_BN else resnet18()

    @property
    def label(self) -> str:
        """Name of the training, without its seed."""
        own = f"-{self.activation.value}" if self.activation is not None else ""
        return f"{self.network.value}{own}"


def same_settings(stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Whether settings as plain data are the same; those not stored are the defaults.

    So runs go on that were started before a setting existed.
    """
    defaults = {f.name: f.default for f in fields(Training) if f.default is not MISSING}
    return {**defaults, **stored} == {**defaults, **wanted}


@dataclass(frozen=True)
class PaperLayer:
    """One column of the paper's Table 2.

    Attributes:
        outputs: Outputs of the maxpool in a batch.
        tied: Share of outputs with a tie, in percent.
        steps: Steps (of 7 820) with a tie between elements of different gradients.
        size: Mean size of S minus T in those steps; None where there were none.
    """

    outputs: int
    tied: float
    steps: float
    size: float | None


def paper_layers(network: Network) -> tuple[PaperLayer, ...]:
    """Table 2 of Park, Chun and Lee (ICLR 2024), one entry for each maxpool: means of five runs."""
    outputs = (1_048_576, 524_288, 262_144, 131_072, 32_768)
    if network is Network.VGG11:
        tied = (3.2, 0.04, 2.1e-6, 1.7e-6, 0.0)
        sizes: tuple[float | None, ...]
        steps = (1435.8, 166.3, 44.0, 18.0, 0.0)
        sizes = (1.18, 1.04, 1.00, 1.00, None)
    elif network is Network.VGG11_BN:
        tied = (4.1, 0.07, 4.5e-6, 4.2e-6, 3.5e-6)
        steps = (3668.5, 453.0, 91.0, 42.0, 9.0)
        sizes = (1.46, 1.09, 1.01, 1.02, 1.00)
    elif network is Network.RESNET18:
        return (PaperLayer(2_095_140, 4.2, 3904.8, 1.78),)
    else:
        return ()
    return tuple(PaperLayer(*entry) for entry in zip(outputs, tied, steps, sizes, strict=True))


def paper_touches(activation: Activation) -> float:
    """Steps of a training of scenario 1 in which a kink was touched (Table 1): means of five."""
    return {
        Activation.RELU6: 0.0,
        Activation.HARDTANH: 9.8,
        Activation.HARDSIGMOID: 13.8,
    }[activation]
