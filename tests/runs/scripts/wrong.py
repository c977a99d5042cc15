"""A loss whose two kinks cancel in mathematics but not in automatic differentiation."""

import sys

import torch

w = torch.zeros(2, dtype=torch.float64, requires_grad=True)
for _ in range(3):
    loss = (torch.relu(w) - torch.relu(-w)).sum() + (w * w).sum()
    loss.backward()
    w.grad.zero_()
print("after the loop")
sys.exit(int(sys.argv[1]) if len(sys.argv) > 1 else 0)
