"""A spiral learned as the flow of a network; gradients by the adjoint equation."""

import argparse
from itertools import pairwise

import torch
from torch import nn


class Adjoint(torch.autograd.Function):
    """Integrates forward; its backward integrates the adjoint back in time."""

    @staticmethod
    def forward(ctx, field, start, times, *parameters):
        ctx.field, ctx.parameters = field, parameters
        with torch.no_grad():
            path = [start]
            for a, b in pairwise(times):
                path.append(runge_kutta(field, path[-1], b - a))
            path = torch.stack(path)
        ctx.save_for_backward(path, times)
        return path

    @staticmethod
    def backward(ctx, grad):
        path, times = ctx.saved_tensors
        total = [torch.zeros_like(p) for p in ctx.parameters]
        state = grad[-1]
        for i in range(len(times) - 1, 0, -1):
            with torch.enable_grad():
                at = path[i - 1].detach().requires_grad_()
                ahead = runge_kutta(ctx.field, at, times[i] - times[i - 1])
                found = torch.autograd.grad(ahead, (at, *ctx.parameters), state)
            state = found[0] + grad[i - 1]
            total = [t + f for t, f in zip(total, found[1:], strict=True)]
        return None, state, None, *total


def runge_kutta(field, y, step):
    first = field(y)
    second = field(y + step / 2 * first)
    third = field(y + step / 2 * second)
    fourth = field(y + step * third)
    return y + step / 6 * (first + 2 * second + 2 * third + fourth)


class Field(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(2, 32), nn.Tanh(), nn.Linear(32, 2))

    def forward(self, y):
        return self.layers(y**3)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--save")
    args = parser.parse_args()
    torch.manual_seed(0)
    truth = torch.tensor([[-0.1, 2.0], [-2.0, -0.1]])
    times = torch.linspace(0, 1, 11)
    start = torch.randn(16, 2)
    path = [start]
    for a, b in pairwise(times):
        path.append(runge_kutta(lambda y: (y**3) @ truth, path[-1].clamp(-1.5, 1.5), b - a))
    target = torch.stack(path)
    model = Field()
    optimizer = torch.optim.RMSprop(model.parameters(), lr=1e-3)
    for step in range(args.steps):
        found = Adjoint.apply(model, start, times, *model.parameters())
        loss = (found - target).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        print(f"step {step} loss {loss.item():.8f}")
    if args.save:
        torch.save(model.state_dict(), args.save)


if __name__ == "__main__":
    main()
