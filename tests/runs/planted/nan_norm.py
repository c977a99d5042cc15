"""Points are pulled to a centre by their distance; one point is there already."""

import torch


def distances(points, centre):
    difference = points - centre
    squared = (difference * difference).sum(dim=1)
    return torch.sqrt(squared)


torch.manual_seed(0)
points = torch.randn(5, 2)
points[2] = 0.0
points = torch.nn.Parameter(points)
optimizer = torch.optim.SGD([points], lr=0.1)
for step in range(1):
    optimizer.zero_grad()
    loss = distances(points, torch.zeros(2)).mean()
    loss.backward()
    optimizer.step()
