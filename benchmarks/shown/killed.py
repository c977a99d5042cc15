"""A training that something ends from outside."""

import os
import signal

import torch

net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1))
for step in range(30):
    net(torch.randint(-1, 2, (8, 4)).float()).square().mean().backward()
    if step == 20:
        os.kill(os.getpid(), signal.SIGKILL)
