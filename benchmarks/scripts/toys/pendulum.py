"""An environment for the scripts that learn to act."""

import torch


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
