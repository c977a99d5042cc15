"""The paper's networks, as plain modules: nothing in them knows of clarke.

Scenario 1 is fully connected (MNIST), scenario 2 convolutional with all channel counts of VGG
halved (CIFAR-10). Section 5 and appendix B of Park, Chun and Lee (ICLR 2024).
"""

from __future__ import annotations

from collections import OrderedDict
from enum import Enum
from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Callable


class Activation(Enum):
    """The three activations of scenario 1, each with two kinks."""

    RELU6 = "relu6"
    HARDTANH = "hardtanh"
    HARDSIGMOID = "hardsigmoid"

    def module(self) -> nn.Module:
        """A fresh module of this kind."""
        makers: dict[Activation, Callable[[], nn.Module]] = {
            Activation.RELU6: nn.ReLU6,
            Activation.HARDTANH: nn.Hardtanh,
            Activation.HARDSIGMOID: nn.Hardsigmoid,
        }
        return makers[self]()


# None stands for a 2x2 maxpool.
_VGG11 = (64, None, 128, None, 256, 256, None, 512, 512, None, 512, 512, None)


def fnn(
    activation: Activation,
    *,
    inputs: int = 784,
    hidden: tuple[int, int] = (256, 64),
    classes: int = 10,
) -> nn.Sequential:
    """784-256-64-10 with the activation after each of the two hidden layers.

    Takes (B, ...) with `inputs` values per sample, returns (B, classes) logits.
    """
    first, second = hidden
    return nn.Sequential(
        OrderedDict(
            [
                ("flatten", nn.Flatten()),
                ("fc1", nn.Linear(inputs, first)),
                ("act1", activation.module()),
                ("fc2", nn.Linear(first, second)),
                ("act2", activation.module()),
                ("fc3", nn.Linear(second, classes)),
            ]
        )
    )


def vgg11(
    *, batch_norm: bool = False, shrink: int = 2, channels: int = 3, classes: int = 10
) -> nn.Sequential:
    """VGG11 with channel counts divided by `shrink` and a single linear classifier.

    Takes (B, channels, H, W) with H and W at least 32 or, for less, as many of the five maxpools
    as the image leaves room for; returns (B, classes) logits.
    """
    layers: list[tuple[str, nn.Module]] = []
    width, block, part = channels, 1, 0
    for entry in _VGG11:
        if entry is None:
            layers.append((f"pool{block}", nn.MaxPool2d(2, 2)))
            block, part = block + 1, 0
            continue
        name = f"{block}{'abc'[part]}"
        part += 1
        out = max(entry // shrink, 1)
        layers.append((f"conv{name}", nn.Conv2d(width, out, 3, padding=1)))
        if batch_norm:
            layers.append((f"bn{name}", nn.BatchNorm2d(out)))
        layers.append((f"relu{name}", nn.ReLU()))
        width = out
    return nn.Sequential(
        OrderedDict(
            [
                ("features", nn.Sequential(OrderedDict(layers))),
                ("flatten", nn.Flatten()),
                ("classifier", nn.Linear(width, classes)),
            ]
        )
    )


def vgg11_bn(*, shrink: int = 2, channels: int = 3, classes: int = 10) -> nn.Sequential:
    """`vgg11` with batch normalisation before every ReLU."""
    return vgg11(batch_norm=True, shrink=shrink, channels=channels, classes=classes)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with batch normalisation and a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.relu2 = nn.ReLU()
        self.shortcut = (
            nn.Identity()
            if stride == 1 and inputs == outputs
            else nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), nn.BatchNorm2d(outputs)
            )
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, inputs, H, W) -> (B, outputs, H/stride, W/stride)."""
        y = self.relu1(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        out: torch.Tensor = self.relu2(y + self.shortcut(x))
        return out


class ResNet18(nn.Module):
    """ResNet18 with a 3x3 stem of stride 1, followed by a 3x3 maxpool of stride 2, padding 1."""

    def __init__(self, *, width: int = 64, channels: int = 3, classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        sizes = (width, 2 * width, 4 * width, 8 * width)
        blocks: list[nn.Module] = []
        before = width
        for i, size in enumerate(sizes):
            blocks += [BasicBlock(before, size, 1 if i == 0 else 2), BasicBlock(size, size, 1)]
            before = size
        self.blocks = nn.Sequential(*blocks)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(before, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, channels, H, W) -> (B, classes) logits."""
        y = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        y = torch.flatten(self.avgpool(self.blocks(y)), 1)
        out: torch.Tensor = self.fc(y)
        return out


def resnet18(*, width: int = 64, channels: int = 3, classes: int = 10) -> ResNet18:
    """The paper's ResNet18 for 32x32 images."""
    return ResNet18(width=width, channels=channels, classes=classes)
