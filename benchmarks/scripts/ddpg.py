"""Deterministic policy gradients: an actor, a critic and their slow copies."""

import argparse
import copy

import torch
from torch import nn


class Pendulum:
    """Several pendulums at once; the reward is for hanging upside down."""

    def __init__(self, count):
        self.state = torch.stack([3.0 * torch.rand(count), 0.1 * torch.randn(count)], 1)

    def look(self):
        angle, speed = self.state.unbind(1)
        return torch.stack([angle.cos(), angle.sin(), speed], 1)

    def step(self, torque):
        angle, speed = self.state.unbind(1)
        speed = (speed + 0.05 * (9.8 * angle.sin() + 3.0 * torque)).clamp(-8, 8)
        self.state = torch.stack([angle + 0.05 * speed, speed], 1)
        reward = angle.cos() - 0.01 * speed**2 - 0.001 * torque**2
        return self.look(), reward


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
