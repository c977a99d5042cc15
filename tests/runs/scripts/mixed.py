"""Accumulation, autocast, torch.autograd.grad and several models in one script."""

import torch
from torch import nn

torch.manual_seed(0)
first = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
second = nn.Sequential(nn.Linear(4, 8), nn.ReLU6(), nn.Linear(8, 1))
for _ in range(2):
    for _ in range(3):  # three microbatches add up to one gradient
        (first(torch.randn(5, 4)).pow(2).mean() / 3).backward()
    for p in first.parameters():
        p.grad = None
with torch.autocast("cpu", dtype=torch.bfloat16):
    loss = second(torch.randn(5, 4)).float().pow(2).mean()
loss.backward()
x = torch.randn(5, 4, requires_grad=True)
(slope,) = torch.autograd.grad(second(x).sum(), x)
with torch.no_grad():
    first(torch.randn(5, 4))
print(tuple(slope.shape))
