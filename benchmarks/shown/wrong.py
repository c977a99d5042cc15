"""Two unknowns, of which one goes through relu(y) - relu(-y): that is y, with slope 1."""

import torch

x, y = torch.zeros(1, requires_grad=True), torch.zeros(1, requires_grad=True)
optimizer = torch.optim.SGD([x, y], lr=0.1)
for _ in range(10):
    loss = (x.abs() + torch.relu(y) - torch.relu(-y)).sum()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
