"""A convolutional network of trees whose roots aggregate their branches."""

import argparse

import torch
from torch import nn
from toys.shapes import shapes


def unit(inputs, outputs, stride=1):
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


class Block(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.one = unit(inputs, outputs)
        self.two = nn.Sequential(
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs)
        )
        self.short = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def forward(self, x):
        return torch.relu(self.two(self.one(x)) + self.short(x))


class Tree(nn.Module):
    def __init__(self, inputs, outputs, depth):
        super().__init__()
        inner = Block if depth == 1 else lambda i, o: Tree(i, o, depth - 1)
        self.left, self.right = inner(inputs, outputs), inner(outputs, outputs)
        self.root = unit(2 * outputs, outputs)

    def forward(self, x):
        left = self.left(x)
        return self.root(torch.cat([left, self.right(left)], 1))


class Network(nn.Module):
    def __init__(self, classes=2):
        super().__init__()
        self.stem = unit(1, 8)
        self.trees = nn.Sequential(
            Tree(8, 8, 1), nn.MaxPool2d(2), Tree(8, 16, 2), nn.MaxPool2d(2), Tree(16, 16, 1)
        )
        self.head = nn.Linear(16, classes)

    def forward(self, x):
        return self.head(self.trees(self.stem(x)).mean((2, 3)))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--save")
    args = parser.parse_args()
    torch.manual_seed(0)
    data = shapes(128)
    labels = (data.mean((1, 2, 3)) > 0.12).long()
    model = Network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    for step in range(args.steps):
        chosen = torch.randint(0, len(data), (32,))
        loss = nn.functional.cross_entropy(model(data[chosen]), labels[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        print(f"step {step} loss {loss.item():.8f}")
    if args.save:
        torch.save(model.state_dict(), args.save)


if __name__ == "__main__":
    main()
