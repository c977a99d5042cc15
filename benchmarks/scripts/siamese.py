"""Two images through one network, pulled together or pushed apart."""

import argparse

import torch
from torch import nn
from toys.shapes import shapes


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
