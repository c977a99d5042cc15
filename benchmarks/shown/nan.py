"""sin(z) / z with a branch for 0, which does not keep NaN out of the gradient."""

import torch

w = torch.nn.Parameter(torch.tensor([0.5, 0.0, -0.3]))
optimizer = torch.optim.SGD([w], lr=0.1)
for _ in range(8):
    z = w * torch.tensor([1.0, 2.0, 3.0])
    sinc = torch.where(z != 0, torch.sin(z) / z, torch.ones_like(z))
    loss = (1 - sinc).sum()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
