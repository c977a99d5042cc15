"""An autoencoder whose code is rounded to few levels (finite scalar quantization)."""

import argparse

import torch
from torch import nn
from toys.shapes import shapes


def round_straight(z):
    return z + (z.round() - z).detach()


class FSQ(nn.Module):
    def __init__(self, levels):
        super().__init__()
        self.register_buffer("levels", torch.tensor(levels, dtype=torch.float32))

    def forward(self, z):
        half = (self.levels - 1) * 0.999 / 2
        offset = torch.where(self.levels % 2 == 0, 0.5, 0.0)
        shift = (offset / half).tan()
        bounded = (z.movedim(1, -1) + shift).tanh() * half - offset
        return (round_straight(bounded) / (self.levels // 2)).movedim(-1, 1)


class Autoencoder(nn.Module):
    def __init__(self, levels=(8, 5, 5, 5)):
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(1, 16, 4, 2, 1), nn.GELU(), nn.Conv2d(16, len(levels), 4, 2, 1)
        )
        self.quantize = FSQ(levels)
        self.decoder = nn.Sequential(
            nn.ConvTranspose2d(len(levels), 16, 4, 2, 1),
            nn.GELU(),
            nn.ConvTranspose2d(16, 1, 4, 2, 1),
        )

    def forward(self, x):
        return self.decoder(self.quantize(self.encoder(x)))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=15)
    parser.add_argument("--save")
    args = parser.parse_args()
    torch.manual_seed(0)
    data = shapes(128)
    model = Autoencoder()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for step in range(args.steps):
        batch = data[torch.randint(0, len(data), (16,))]
        loss = nn.functional.l1_loss(model(batch), batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        print(f"step {step} loss {loss.item():.8f}")
    if args.save:
        torch.save(model.state_dict(), args.save)


if __name__ == "__main__":
    main()
