"""Logistic regression whose loss was written by hand; one sample is all zeros."""

import torch

torch.manual_seed(0)
inputs = torch.randn(16, 3)
inputs[3] = 0.0
labels = (inputs.sum(dim=1) > 0).float()
labels[3] = 1.0
weight = torch.nn.Parameter(torch.randn(3))
bias = torch.nn.Parameter(torch.zeros(1))
optimizer = torch.optim.SGD([weight, bias], lr=0.1)


def logits():
    return inputs @ weight + bias


def bce_with_logits(x, t):
    positive = torch.clamp(x, min=0)
    return (positive - x * t + torch.log1p(torch.exp(-torch.abs(x)))).mean()


for epoch in range(2):
    optimizer.zero_grad()
    loss = bce_with_logits(logits(), labels)
    loss.backward()
    optimizer.step()
