"""A sinc window with its value at zero put in by torch.where."""

import torch


def sinc(x):
    return torch.where(x == 0, torch.ones_like(x), torch.sin(x) / x)


class Window(torch.nn.Module):
    def __init__(self, size):
        super().__init__()
        self.width = torch.nn.Parameter(torch.ones(size))
        self.register_buffer("grid", torch.linspace(-2, 2, size))

    def forward(self):
        return sinc(self.grid * self.width)


window = Window(5)
optimizer = torch.optim.SGD(window.parameters(), lr=0.01)
for step in range(1):
    optimizer.zero_grad()
    loss = window().square().sum()
    loss.backward()
    optimizer.step()
