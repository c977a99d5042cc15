"""Sparse regression: a shrinkage layer made of two ReLUs, started at zero."""

import torch


class Shrink(torch.nn.Module):
    def forward(self, x):
        return torch.relu(x) - torch.relu(-x)


class Model(torch.nn.Module):
    def __init__(self, features):
        super().__init__()
        self.code = torch.nn.Parameter(torch.zeros(features))
        self.shrink = Shrink()

    def forward(self, dictionary):
        return dictionary @ self.shrink(self.code)


torch.manual_seed(1)
dictionary = torch.randn(8, 3)
target = torch.randn(8)
model = Model(3)
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
for step in range(2):
    optimizer.zero_grad()
    loss = ((model(dictionary) - target) ** 2).mean()
    loss.backward()
    optimizer.step()
