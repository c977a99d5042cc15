"""A generative adversarial network in two dimensions, with a penalty on the critic's slope."""

import argparse

import torch
from torch import nn


def ring(count):
    """Points around eight places on a circle."""
    angle = torch.randint(0, 8, (count,)) * (3.14159265 / 4)
    return 2 * torch.stack([angle.cos(), angle.sin()], 1) + 0.05 * torch.randn(count, 2)


def network(inputs, outputs):
    return nn.Sequential(
        nn.Linear(inputs, 64),
        nn.LeakyReLU(0.2),
        nn.Linear(64, 64),
        nn.LeakyReLU(0.2),
        nn.Linear(64, outputs),
    )


def penalty(critic, real, fake):
    share = torch.rand(len(real), 1)
    between = (share * real + (1 - share) * fake).requires_grad_()
    score = critic(between)
    (slope,) = torch.autograd.grad(score.sum(), between, create_graph=True)
    return ((slope.norm(2, dim=1) - 1) ** 2).mean()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--save")
    args = parser.parse_args()
    torch.manual_seed(0)
    generator, critic = network(8, 2), network(2, 1)
    for_generator = torch.optim.Adam(generator.parameters(), lr=1e-3, betas=(0.5, 0.9))
    for_critic = torch.optim.Adam(critic.parameters(), lr=1e-3, betas=(0.5, 0.9))
    for step in range(args.steps):
        for _ in range(2):
            real, fake = ring(64), generator(torch.randn(64, 8)).detach()
            critic_loss = critic(fake).mean() - critic(real).mean()
            critic_loss = critic_loss + 10 * penalty(critic, real, fake)
            for_critic.zero_grad()
            critic_loss.backward()
            for_critic.step()
        loss = -critic(generator(torch.randn(64, 8))).mean()
        for_generator.zero_grad()
        loss.backward()
        for_generator.step()
        print(f"step {step} critic {critic_loss.item():.8f} generator {loss.item():.8f}")
    if args.save:
        torch.save([generator.state_dict(), critic.state_dict()], args.save)


if __name__ == "__main__":
    main()
