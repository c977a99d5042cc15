"""A small convolutional network on images of few grey levels, which touch kinks all the time."""

import torch
from torch import nn

torch.manual_seed(0)
net = nn.Sequential(
    nn.Conv2d(1, 4, 3),
    nn.ReLU(),
    nn.MaxPool2d(2),
    nn.Flatten(),
    nn.Linear(36, 8),
    nn.ReLU(),
    nn.Linear(8, 2),
)
for p in net.parameters():
    p.data = (p.data * 4).round() / 4
optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
for _ in range(60):
    images = torch.randint(0, 3, (16, 1, 8, 8)).float()
    loss = nn.functional.cross_entropy(net(images), torch.randint(0, 2, (16,)))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
