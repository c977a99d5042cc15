"""The entropy of learned weights; zeros are masked, behind the logarithm."""

import torch

weights = torch.nn.Parameter(torch.tensor([0.0, 0.25, 0.75]))
optimizer = torch.optim.SGD([weights], lr=0.01)


def entropy(p):
    terms = torch.where(p > 0, p**2 * torch.log(p), torch.zeros_like(p))
    return -terms.sum()


for step in range(1):
    optimizer.zero_grad()
    loss = -entropy(weights)
    loss.backward()
    optimizer.step()
