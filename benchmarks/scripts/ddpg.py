"""Deterministic policy gradients: an actor, a critic and their slow copies."""

import argparse
import copy

import torch
from torch import nn
from toys.pendulum import Pendulum


class Actor(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 32), nn.ReLU(), nn.Linear(32, 1), nn.Tanh())

    def forward(self, seen):
        return 2 * self.layers(seen)


class Critic(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 1))

    def forward(self, seen, action):
        return self.layers(torch.cat([seen, action], 1))


def follow(slow, fast, rate=0.05):
    for s, f in zip(slow.parameters(), fast.parameters(), strict=True):
        s.data.copy_((1 - rate) * s.data + rate * f.data)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--save")
    args = parser.parse_args()
    torch.manual_seed(0)
    actor, critic = Actor(), Critic()
    slow_actor, slow_critic = copy.deepcopy(actor), copy.deepcopy(critic)
    actor_optimizer = torch.optim.Adam(actor.parameters(), lr=1e-3)
    critic_optimizer = torch.optim.Adam(critic.parameters(), lr=1e-3)
    env, memory = Pendulum(8), []
    now = env.look()
    for step in range(args.steps):
        with torch.no_grad():
            action = (actor(now) + 0.3 * torch.randn(8, 1)).clamp(-2, 2)
        after, reward = env.step(action.squeeze(1))
        memory.append((now, action, reward[:, None], after))
        now = after
        chosen = torch.randint(0, len(memory), (4,)).tolist()
        seen, action, reward, after = (
            torch.cat([memory[i][part] for i in chosen]) for part in range(4)
        )
        expected = reward + 0.98 * slow_critic(after, slow_actor(after))
        critic_loss = nn.functional.mse_loss(critic(seen, action), expected.detach())
        critic_optimizer.zero_grad()
        critic_loss.backward()
        critic_optimizer.step()
        actor_loss = -critic(seen, actor(seen)).mean()
        actor_optimizer.zero_grad()
        actor_loss.backward()
        actor_optimizer.step()
        follow(slow_actor, actor)
        follow(slow_critic, critic)
        print(f"step {step} critic {critic_loss.item():.8f} actor {actor_loss.item():.8f}")
    if args.save:
        torch.save([actor.state_dict(), critic.state_dict(), slow_critic.state_dict()], args.save)


if __name__ == "__main__":
    main()
