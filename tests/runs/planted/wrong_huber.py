"""A Huber loss as a capped square and a linear tail; one residual is exactly 1."""

import torch


def huber(prediction, target, delta=1.0):
    error = (prediction - target).abs()
    capped = torch.minimum(error**2, torch.full_like(error, delta**2))
    linear = torch.relu(error - delta)
    return (0.5 * capped + delta * linear).mean()


slope = torch.nn.Parameter(torch.tensor(1.0))
offset = torch.nn.Parameter(torch.tensor(0.0))
xs = torch.tensor([0.0, 1.0, 2.0])
ys = torch.tensor([-1.0, 1.25, 1.5])
optimizer = torch.optim.SGD([slope, offset], lr=0.0)
for step in range(2):
    optimizer.zero_grad()
    loss = huber(slope * xs + offset, ys)
    loss.backward()
    optimizer.step()
