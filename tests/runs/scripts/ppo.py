"""PPO's clipped objective on random data: in the first epoch every ratio is 1, a tie."""

import torch
from torch import nn

torch.manual_seed(0)
policy = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 3))
optimizer = torch.optim.Adam(policy.parameters(), lr=3e-3)
states = torch.randn(32, 6)
actions = torch.randint(0, 3, (32,))
advantages = torch.randn(32)


def log_probability():
    return torch.distributions.Categorical(logits=policy(states)).log_prob(actions)


old = log_probability().detach()
for _ in range(4):
    ratio = (log_probability() - old).exp()
    clipped = ratio.clamp(0.8, 1.2)
    loss = -torch.min(ratio * advantages, clipped * advantages).mean()
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(policy.parameters(), 0.5)
    optimizer.step()
print(f"{loss.item():.6f}")
