"""The augmentation of scenario 2, for a whole batch at once.

Random horizontal flip, rotation up to 10 degrees, shear up to 10 degrees, scale 0.8 to 1.2, colour
jitter 0.2, then normalisation with mean and deviation 0.5: the settings of the released script. As
there, geometry takes the nearest pixel, pixels from outside are black, and values are rounded to 8
bits before normalisation, which is where equal neighbouring pixels come from.
"""

from __future__ import annotations

import math

import torch

_ANGLE = math.radians(10)
_SCALE = (0.8, 1.2)
_JITTER = 0.2
_GREY = (0.299, 0.587, 0.114)


def normalise(pixels: torch.Tensor) -> torch.Tensor:
    """(B, C, H, W) uint8 -> float32 with mean and deviation 0.5."""
    return (pixels.to(torch.float32) / 255 - 0.5) / 0.5


def augment(pixels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """(B, C, H, W) uint8 -> (B, C, H, W) float32, normalised.

    Args:
        pixels: Colour or grey images.
        generator: All randomness comes from here.
    """
    images = pixels.to(torch.float32)
    moved = torch.nn.functional.grid_sample(
        images,
        _grid(images, generator),
        mode="nearest",
        padding_mode="zeros",
        align_corners=False,
    )
    return (jitter(moved / 255, generator) - 0.5) / 0.5


def _grid(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """(B, H, W, 2) where each output pixel is read, in [-1, 1]."""
    n = images.shape[0]

    def uniform(low: float, high: float) -> torch.Tensor:
        return low + (high - low) * torch.rand(n, generator=generator)

    angle = uniform(-_ANGLE, _ANGLE)
    shear = uniform(-_ANGLE, _ANGLE)
    scale = uniform(*_SCALE)
    flip = torch.where(torch.rand(n, generator=generator) < 0.5, -1.0, 1.0)
    # Output to input: undo rotation and shear, then scale, then flip the columns.
    cos, sin, tan = angle.cos() / scale, angle.sin() / scale, shear.tan()
    rows = torch.stack(
        [
            torch.stack([flip * (cos + tan * sin), flip * (sin - tan * cos), torch.zeros(n)], 1),
            torch.stack([-sin, cos, torch.zeros(n)], 1),
        ],
        1,
    )
    size = list(images.shape)
    return torch.nn.functional.affine_grid(rows, size, align_corners=False)


def jitter(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Brightness, contrast and saturation by factors 0.8 to 1.2; values stay multiples of 1/255."""
    n, channels = images.shape[:2]

    def factor() -> torch.Tensor:
        drawn = torch.rand(n, generator=generator) * (2 * _JITTER) + (1 - _JITTER)
        return drawn.reshape(n, 1, 1, 1)

    found = (images * factor()).clamp(0, 1)
    if channels == 3:
        weights = torch.tensor(_GREY).reshape(1, 3, 1, 1)
        contrast, saturation = factor(), factor()
        mean = (found * weights).sum(1, keepdim=True).mean((2, 3), keepdim=True)
        found = (contrast * found + (1 - contrast) * mean).clamp(0, 1)
        grey = (found * weights).sum(1, keepdim=True)
        found = (saturation * found + (1 - saturation) * grey).clamp(0, 1)
    return (found * 255).round() / 255
