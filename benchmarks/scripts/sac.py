"""Soft actor-critic: two critics, a squashed Gaussian policy, a learned temperature."""

import argparse
import copy

import torch
from torch import nn
from toys.pendulum import Pendulum


class Policy(nn.Module):
    def __init__(self):
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(3, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU())
        self.mean, self.log_std = nn.Linear(32, 1), nn.Linear(32, 1)

    def forward(self, seen):
        hidden = self.trunk(seen)
        policy = torch.distributions.Normal(
            self.mean(hidden), self.log_std(hidden).clamp(-5, 2).exp()
        )
        raw = policy.rsample()
        action = torch.tanh(raw)
        log_prob = policy.log_prob(raw) - torch.log(1 - action.pow(2) + 1e-6)
        return 2 * action, log_prob


def critic():
    return nn.Sequential(
        nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 1)
    )


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--save")
    args = parser.parse_args()
    torch.manual_seed(0)
    policy, first, second = Policy(), critic(), critic()
    slow = [copy.deepcopy(first), copy.deepcopy(second)]
    log_alpha = torch.zeros(1, requires_grad=True)
    critic_optimizer = torch.optim.Adam([*first.parameters(), *second.parameters()], lr=1e-3)
    policy_optimizer = torch.optim.Adam(policy.parameters(), lr=1e-3)
    alpha_optimizer = torch.optim.Adam([log_alpha], lr=1e-3)
    env, memory = Pendulum(8), []
    now = env.look()
    for step in range(args.steps):
        with torch.no_grad():
            action, _ = policy(now)
        after, reward = env.step(action.squeeze(1))
        memory.append((now, action, reward[:, None], after))
        now = after
        chosen = torch.randint(0, len(memory), (4,)).tolist()
        seen, action, reward, after = (
            torch.cat([memory[i][part] for i in chosen]) for part in range(4)
        )
        with torch.no_grad():
            next_action, next_log = policy(after)
            pair = torch.cat([after, next_action], 1)
            least = torch.min(slow[0](pair), slow[1](pair)) - log_alpha.exp() * next_log
            expected = reward + 0.98 * least
        pair = torch.cat([seen, action], 1)
        critic_loss = sum(nn.functional.mse_loss(c(pair), expected) for c in (first, second))
        critic_optimizer.zero_grad()
        critic_loss.backward()
        critic_optimizer.step()
        new, log_prob = policy(seen)
        pair = torch.cat([seen, new], 1)
        policy_loss = (
            log_alpha.exp().detach() * log_prob - torch.min(first(pair), second(pair))
        ).mean()
        policy_optimizer.zero_grad()
        policy_loss.backward()
        policy_optimizer.step()
        alpha_loss = -(log_alpha * (log_prob + 1.0).detach()).mean()
        alpha_optimizer.zero_grad()
        alpha_loss.backward()
        alpha_optimizer.step()
        with torch.no_grad():
            for s, f in zip(slow, (first, second), strict=True):
                for a, b in zip(s.parameters(), f.parameters(), strict=True):
                    a.mul_(0.95).add_(0.05 * b)
        print(f"step {step} critic {critic_loss.item():.8f} policy {policy_loss.item():.8f}")
    if args.save:
        torch.save([policy.state_dict(), first.state_dict(), second.state_dict()], args.save)


if __name__ == "__main__":
    main()
