"""Proximal policy optimization on pendulums, with clipped ratios and a shared trunk."""

import argparse

import torch
from torch import nn
from toys.pendulum import Pendulum


class ActorCritic(nn.Module):
    def __init__(self):
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(3, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU())
        self.mean, self.value = nn.Linear(32, 1), nn.Linear(32, 1)
        self.log_std = nn.Parameter(torch.zeros(1))

    def forward(self, seen):
        hidden = self.trunk(seen)
        policy = torch.distributions.Normal(self.mean(hidden).squeeze(-1), self.log_std.exp())
        return policy, self.value(hidden).squeeze(-1)


def rollout(model, env, length):
    seen, actions, log_probs, rewards, values = [], [], [], [], []
    now = env.look()
    with torch.no_grad():
        for _ in range(length):
            policy, value = model(now)
            action = policy.sample()
            seen.append(now)
            actions.append(action)
            log_probs.append(policy.log_prob(action))
            values.append(value)
            now, reward = env.step(action.clamp(-2, 2))
            rewards.append(reward)
        last = model(now)[1]
        advantages, total = [], torch.zeros_like(last)
        for reward, value in zip(reversed(rewards), reversed(values), strict=True):
            total = reward + 0.95 * last - value + 0.95 * 0.9 * total
            last = value
            advantages.insert(0, total)
    advantages = torch.stack(advantages)
    returns = advantages + torch.stack(values)
    parts = (torch.stack(seen), torch.stack(actions), torch.stack(log_probs), advantages, returns)
    return [p.flatten(0, 1) for p in parts]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--save")
    args = parser.parse_args()
    torch.manual_seed(0)
    model = ActorCritic()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, eps=1e-5)
    env = Pendulum(8)
    for step in range(args.steps):
        seen, actions, old, advantages, returns = rollout(model, env, 16)
        advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
        for _ in range(2):
            for part in torch.randperm(len(seen)).chunk(2):
                policy, value = model(seen[part])
                ratio = (policy.log_prob(actions[part]) - old[part]).exp()
                gain = advantages[part]
                clipped = torch.clamp(ratio, 0.8, 1.2) * gain
                policy_loss = -torch.min(ratio * gain, clipped).mean()
                value_loss = (value - returns[part]).pow(2).mean()
                loss = policy_loss + 0.5 * value_loss - 0.01 * policy.entropy().mean()
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(model.parameters(), 0.5)
                optimizer.step()
        print(f"step {step} loss {loss.item():.8f} return {returns.mean().item():.8f}")
    if args.save:
        torch.save(model.state_dict(), args.save)


if __name__ == "__main__":
    main()
