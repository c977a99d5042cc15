"""Gamma correction inside of a mask: a power of zero where the picture is black."""

import torch

picture = torch.nn.Parameter(torch.tensor([[0.0, 0.2], [0.5, 1.0]]))
target = torch.tensor([[0.0, 0.5], [0.7, 1.0]])
optimizer = torch.optim.SGD([picture], lr=0.1)


def to_display(linear):
    dark = linear <= 0.0031308
    return torch.where(dark, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


for step in range(1):
    optimizer.zero_grad()
    loss = (to_display(picture) - target).square().mean()
    loss.backward()
    optimizer.step()
