"""A thousand steps; in three of them two kinks cancel."""

import torch
from torch import nn

torch.manual_seed(0)
net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
for p in net.parameters():
    p.data = (p.data * 8).round() / 8
shift = torch.zeros(1, requires_grad=True)
for step in range(1000):
    x = torch.randint(-2, 3, (16, 4)).float()
    loss = nn.functional.smooth_l1_loss(net(x), torch.zeros(16, 1))
    if step in (310, 311, 780):
        loss = loss + (torch.relu(shift) - torch.relu(-shift)).sum()
    net.zero_grad()
    shift.grad = None
    loss.backward()
