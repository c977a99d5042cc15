"""The middle one of three sensors, as the sum without the largest and the smallest."""

import torch


class MiddleOfThree(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.gains = torch.nn.Parameter(torch.ones(3))

    def forward(self, readings):
        values = self.gains * readings
        return values.sum(-1) - values.max(-1).values - values.min(-1).values


fusion = MiddleOfThree()
optimizer = torch.optim.SGD(fusion.parameters(), lr=0.0)
readings = torch.tensor([[1.0, 1.0, 1.0], [0.5, 2.0, 1.5]])
truth = torch.tensor([2.0, 1.25])
for epoch in range(2):
    optimizer.zero_grad()
    loss = ((fusion(readings) - truth) ** 2).mean()
    loss.backward()
    optimizer.step()
