"""An autoencoder with a codebook, trained straight through; the codebook moves by averages."""

import argparse

import torch
from torch import nn
from toys.shapes import shapes


class Codebook(nn.Module):
    def __init__(self, codes, width, decay=0.9):
        super().__init__()
        self.decay = decay
        self.register_buffer("codes", torch.randn(codes, width))
        self.register_buffer("counts", torch.ones(codes))
        self.register_buffer("sums", self.codes.clone())

    def forward(self, z):
        flat = z.permute(0, 2, 3, 1).reshape(-1, z.shape[1])
        nearest = torch.cdist(flat, self.codes).argmin(1)
        quantized = self.codes[nearest]
        if self.training:
            with torch.no_grad():
                hot = nn.functional.one_hot(nearest, len(self.codes)).to(flat.dtype)
                self.counts.mul_(self.decay).add_(hot.sum(0), alpha=1 - self.decay)
                self.sums.mul_(self.decay).add_(hot.t() @ flat, alpha=1 - self.decay)
                self.codes.copy_(self.sums / (self.counts[:, None] + 1e-5))
        quantized = quantized.reshape(z.shape[0], *z.shape[2:], -1).permute(0, 3, 1, 2)
        commitment = nn.functional.mse_loss(z, quantized.detach())
        return z + (quantized - z).detach(), commitment


class VQVAE(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(1, 16, 4, 2, 1), nn.ReLU(), nn.Conv2d(16, 8, 4, 2, 1)
        )
        self.codebook = Codebook(32, 8)
        self.decoder = nn.Sequential(
            nn.ConvTranspose2d(8, 16, 4, 2, 1), nn.ReLU(), nn.ConvTranspose2d(16, 1, 4, 2, 1)
        )

    def forward(self, x):
        quantized, commitment = self.codebook(self.encoder(x))
        return self.decoder(quantized), commitment


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=15)
    parser.add_argument("--save")
    args = parser.parse_args()
    torch.manual_seed(0)
    data = shapes(128)
    model = VQVAE()
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    for step in range(args.steps):
        batch = data[torch.randint(0, len(data), (16,))]
        decoded, commitment = model(batch)
        loss = nn.functional.mse_loss(decoded, batch) + 0.25 * commitment
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        print(f"step {step} loss {loss.item():.8f}")
    if args.save:
        torch.save(model.state_dict(), args.save)


if __name__ == "__main__":
    main()
