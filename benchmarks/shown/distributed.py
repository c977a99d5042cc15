"""Two processes share a layer that starts at zero: each gradient is right, their mean is not."""

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel


class Score(nn.Module):
    """One layer of zeros and a relu."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 1, bias=False)
        nn.init.zeros_(self.layer.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """A score that is not negative, for each example."""
        return torch.relu(self.layer(x))


dist.init_process_group("gloo")
side = 1.0 if dist.get_rank() == 0 else -1.0  # positive examples here, negative ones there
model = DistributedDataParallel(Score())
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
x = side * torch.tensor([[1.0, 0.5], [1.0, 0.5]])
for _ in range(12):
    optimizer.zero_grad()
    loss = -side * model(x).mean()
    loss.backward()
    optimizer.step()
dist.destroy_process_group()
