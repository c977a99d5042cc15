"""Deep Q-learning with a replay buffer and a target network."""

import argparse

import torch
from torch import nn
from toys.pendulum import Pendulum

TORQUES = torch.tensor([-2.0, 0.0, 2.0])


def network():
    return nn.Sequential(
        nn.Linear(3, 48), nn.ReLU(), nn.Linear(48, 48), nn.ReLU(), nn.Linear(48, 3)
    )


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--save")
    args = parser.parse_args()
    torch.manual_seed(0)
    model, target = network(), network()
    target.load_state_dict(model.state_dict())
    optimizer = torch.optim.RMSprop(model.parameters(), lr=1e-3)
    env, memory = Pendulum(4), []
    now = env.look()
    for step in range(args.steps):
        for _ in range(4):
            with torch.no_grad():
                action = model(now).argmax(1)
            explore = torch.rand(4) < max(0.1, 1 - step / 20)
            action = torch.where(explore, torch.randint(0, 3, (4,)), action)
            after, reward = env.step(TORQUES[action])
            memory.append((now, action, reward, after))
            now = after
        chosen = torch.randint(0, len(memory), (8,)).tolist()
        seen, action, reward, after = (
            torch.cat([memory[i][part] for i in chosen]) for part in range(4)
        )
        with torch.no_grad():
            best = target(after).max(1).values
        value = model(seen).gather(1, action[:, None]).squeeze(1)
        loss = nn.functional.smooth_l1_loss(value, reward + 0.98 * best)
        optimizer.zero_grad()
        loss.backward()
        for p in model.parameters():
            p.grad.data.clamp_(-1, 1)
        optimizer.step()
        if step % 10 == 9:
            target.load_state_dict(model.state_dict())
        print(f"step {step} loss {loss.item():.8f}")
    if args.save:
        torch.save(model.state_dict(), args.save)


if __name__ == "__main__":
    main()
