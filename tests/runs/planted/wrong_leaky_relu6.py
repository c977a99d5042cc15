"""An activation that leaks above 6, for quantised networks; one input is exactly 6."""

import torch
from torch import nn
from torch.nn import functional as F


class LeakyReLU6(nn.Module):
    def __init__(self, leak=0.1):
        super().__init__()
        self.leak = leak

    def forward(self, x):
        kept = F.relu6(x)
        above = F.relu(x - 6)
        return kept + self.leak * above


model = nn.Sequential(nn.Linear(2, 1), LeakyReLU6())
with torch.no_grad():
    model[0].weight.copy_(torch.tensor([[2.0, 1.0]]))
    model[0].bias.fill_(1.0)
optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
inputs = torch.tensor([[2.0, 1.0], [0.5, -0.25]])
targets = torch.tensor([[5.0], [2.0]])
for epoch in range(2):
    optimizer.zero_grad()
    loss = F.mse_loss(model(inputs), targets)
    loss.backward()
    optimizer.step()
