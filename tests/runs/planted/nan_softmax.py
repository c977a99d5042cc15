"""Attention over a sequence of which the last query may look at nothing."""

import torch

torch.manual_seed(0)
query, key = torch.randn(3, 4), torch.nn.Parameter(torch.randn(3, 4))
allowed = torch.tensor([[1, 0, 0], [1, 1, 0], [0, 0, 0]], dtype=torch.bool)
optimizer = torch.optim.SGD([key], lr=0.1)


def attention(q, k, mask):
    scores = q @ k.T / 2.0
    scores = scores + torch.zeros(mask.shape).masked_fill(~mask, float("-inf"))
    weights = torch.softmax(scores, dim=-1)
    return torch.where(mask, weights, torch.zeros_like(weights))


for step in range(1):
    optimizer.zero_grad()
    loss = attention(query, key, allowed).square().sum()
    loss.backward()
    optimizer.step()
