"""A small GAN with the hinge loss: two models, two optimizers, the discriminator stepped twice."""

import torch
import torch.nn.functional as F
from torch import nn

torch.manual_seed(0)
generator = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 2))
discriminator = nn.Sequential(nn.Linear(2, 16), nn.LeakyReLU(0.2), nn.Linear(16, 1))
nn.init.zeros_(discriminator[2].weight)
nn.init.ones_(discriminator[2].bias)  # every real sample starts on the hinge, 1 - D(x) = 0
g_optimizer = torch.optim.Adam(generator.parameters(), lr=1e-3)
d_optimizer = torch.optim.Adam(discriminator.parameters(), lr=1e-3)

for _ in range(4):
    for _ in range(2):
        real = torch.randn(16, 2) + 1
        fake = generator(torch.randn(16, 4)).detach()
        d_loss = F.relu(1 - discriminator(real)).mean() + F.relu(1 + discriminator(fake)).mean()
        d_optimizer.zero_grad()
        d_loss.backward()
        d_optimizer.step()
    g_loss = -discriminator(generator(torch.randn(16, 4))).mean()
    g_optimizer.zero_grad()
    g_loss.backward()
    g_optimizer.step()
print(f"{d_loss.item():.6f} {g_loss.item():.6f}")
