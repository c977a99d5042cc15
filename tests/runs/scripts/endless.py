"""Trains until it is stopped; says so after each step."""

import torch

torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1))
while True:
    model(torch.randn(4, 8)).abs().sum().backward()
    print("step", flush=True)
