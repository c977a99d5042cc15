"""Two images through one network, pulled together or pushed apart."""

import argparse

import torch
from torch import nn


def shapes(count, size=16):
    """Images of bright boxes and rings on a dark ground."""
    rows = torch.arange(size, dtype=torch.float32)
    y, x = torch.meshgrid(rows, rows, indexing="ij")
    found = []
    for _ in range(count):
        a, b = (size * (0.3 + 0.4 * torch.rand(2))).tolist()
        r = 2.0 + 3.0 * torch.rand(()).item()
        if torch.rand(()).item() < 0.5:
            found.append((((x - a).abs() < r) & ((y - b).abs() < r)).float())
        else:
            found.append(((((x - a) ** 2 + (y - b) ** 2).sqrt() - r).abs() < 1.0).float())
    return torch.stack(found)[:, None]


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 8, 3),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(8, 16, 3),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(64, 16),
        )

    def forward(self, x):
        return self.layers(x)


def contrastive(one, two, same, margin=1.0):
    distance = nn.functional.pairwise_distance(one, two)
    apart = torch.clamp(margin - distance, min=0)
    return (same * distance.pow(2) + (1 - same) * apart.pow(2)).mean()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=15)
    parser.add_argument("--save")
    args = parser.parse_args()
    torch.manual_seed(0)
    data = shapes(64)
    model = Encoder()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    for step in range(args.steps):
        index = torch.randint(0, len(data), (16,))
        same = (torch.rand(16) < 0.5).float()
        other = torch.where(same == 1, index, torch.randint(0, len(data), (16,)))
        moved = data[other] + 0.05 * torch.randn(16, 1, 16, 16)
        loss = contrastive(model(data[index]), model(moved), same)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        print(f"step {step} loss {loss.item():.8f}")
    if args.save:
        torch.save(model.state_dict(), args.save)


if __name__ == "__main__":
    main()
