"""A doubt that one step settles by a replay leaves the later steps as quick."""

import torch
from torch import nn

import clarke
from clarke.audit import turn
from clarke.verdict import Verdict


def test_shared_weights_before_a_maxpool_take_no_ladder(monkeypatch):
    climbed = []
    ladder = turn.judge
    monkeypatch.setattr(turn, "judge", lambda *a, **k: climbed.append(1) or ladder(*a, **k))
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten())
    with clarke.audit(lambda _: None, seconds=60) as audit:
        for step in range(4):
            torch.manual_seed(step)
            one, two = torch.randn(2, 3, 1, 8, 8)
            one[0] = 0  # patches that are equal
            distance = (layers(one) - layers(two)).square().mean()
            layers.zero_grad()
            distance.backward()
    assert [s.verdict for s in audit.steps] == [Verdict.SMOOTH] * 4
    assert any(k.touched for k in audit.steps[0].kinks)
    assert len(climbed) == 0


def test_hooks_of_ones_own_still_take_the_ladder(monkeypatch):
    climbed = []
    ladder = turn.judge
    monkeypatch.setattr(turn, "judge", lambda *a, **k: climbed.append(1) or ladder(*a, **k))
    x = torch.tensor([0.5, 2.0], requires_grad=True)
    with clarke.audit(lambda _: None, seconds=60) as audit:
        y = x * x
        y.register_hook(lambda g: 3 * g)
        y.sum().backward()
    assert climbed
    assert audit.steps[0].verdict is not Verdict.SMOOTH
