"""Raises in the middle of a training loop."""

import torch

model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.ReLU())


def step(i):
    model(torch.ones(1, 3)).sum().backward()
    if i == 2:
        raise KeyError("the third step") from ValueError("a cause")


for i in range(5):
    step(i)
