"""Kinks of what does not move, or of what nobody takes: none, and every other kink still is one."""

import random

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - as everybody names it

import clarke
from clarke import Verdict
from clarke.audit import turn

LADDER = clarke.Settings(quick=False)
SMOOTH = Verdict.SMOOTH


@pytest.fixture
def climbed(monkeypatch):
    found = []
    ladder = turn.judge
    monkeypatch.setattr(turn, "judge", lambda *a, **k: found.append(1) or ladder(*a, **k))
    return found


def verdicts(step, steps=2, settings=None):
    with clarke.audit(lambda _: None, settings=settings, seconds=30) as audit:
        for _ in range(steps):
            step()
    return [s.verdict for s in audit.steps]


def overlaps():
    net, target = nn.Linear(3, 8), torch.tensor([[0.0, 0.0, 1.0, 1.0], [5.0, 5.0, 6.0, 6.0]])

    def step():
        start, size = net(torch.randn(4, 3)).view(-1, 2, 2, 2).unbind(2)
        box = torch.cat([start, start + size.exp()], -1).view(-1, 4)
        low = torch.maximum(box[:, None, :2], target[:, :2])
        size = (torch.minimum(box[:, None, 2:], target[:, 2:]) - low).clamp(min=0)
        both = size[..., 0] * size[..., 1]
        area = (box[:, 2:] - box[:, :2]).prod(1)[:, None]
        best, index = (both / (area + 1 - both)).max(0)
        seen = torch.zeros(len(box)).scatter_(0, index, 1.0)
        ((1 - best).sum() + (seen * box[:, 0]).square().sum()).backward()

    return step


def thresholds():
    matrix = nn.Parameter(torch.randn(4, 6) * 0.4)

    def step():
        code, seen = torch.zeros(5, 6), torch.randn(5, 4)
        for _ in range(2):
            code = code - (code @ matrix.T - seen) @ matrix
            code = code.sign() * F.relu(code.abs() - 0.6)
        ((code @ matrix.T - seen).square().mean() + code.abs().mean()).backward()

    return step


def hardest():
    net, same = nn.Linear(4, 3), (torch.arange(6)[:, None] - torch.arange(6)) % 2 == 0

    def step():
        code = F.normalize(net(torch.randn(6, 4)))
        far = (2 - 2 * code @ code.T).clamp(min=0).add(1e-12).sqrt()
        near = (far * same).max(1).values - (far + 10 * same).min(1).values
        F.relu(near + 0.3).mean().backward()

    return step


def first_given():
    net, start = nn.Linear(2, 2), torch.randn(3, 2)
    target = torch.stack([start, start + 1])

    def step():
        (torch.stack([start, net(start)]) - target).abs().mean().backward()

    return step


def twins():
    shared = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten())
    shapes = torch.zeros(4, 1, 8, 8)
    shapes[:, :, 2:6, 2:6] = 1.0

    def step():
        one, two = shared(shapes), shared(shapes.roll(1, -1) + 0.1 * torch.randn(4, 1, 8, 8))
        F.relu(1 - F.pairwise_distance(one, two)).square().mean().backward()

    return step


@pytest.mark.parametrize(
    "make", [overlaps, thresholds, hardest, first_given, twins], ids=lambda make: make.__name__
)
def test_no_ladder(make, climbed):
    torch.manual_seed(3)
    step = make()
    assert set(verdicts(step)) == {SMOOTH}
    assert not climbed
    assert set(verdicts(step, 1, LADDER)) == {SMOOTH}
    assert climbed


def test_shared_weights_settle_no_tie_of_two_patches():
    """A direction of weights that others read, too, proves nothing; both patches are others'."""
    conv = nn.Conv2d(1, 1, 1, bias=False)
    with torch.no_grad():
        conv.weight.fill_(0.0)
    image = torch.tensor([[1.0, 2.0]]).reshape(1, 1, 1, 2)

    def step():
        pooled = F.max_pool2d(conv(image), (1, 2)) - F.max_pool2d(conv(-image), (1, 2))
        pooled.sum().backward()

    assert set(verdicts(step)) == set(verdicts(step, 1, LADDER))


def program(seed):
    """A small program at a point of small whole numbers, which its kinks are likely to touch."""
    draw = random.Random(seed)  # noqa: S311 - no secrets
    torch.manual_seed(seed)
    w = torch.randint(-2, 3, (4,)).float().requires_grad_()
    constants = torch.randint(-1, 2, (3, 4)).float()
    steps = [
        lambda v, _: F.relu(v),
        lambda v, _: F.relu(v - 1),
        lambda v, _: v.clamp(min=0),
        lambda v, _: v.clamp(-1, 1),
        lambda v, u: v * u,
        lambda v, u: v - u,
        lambda v, u: torch.stack([v, u]).max(0).values,
        lambda v, u: torch.stack([v, u]).amin(0),
        lambda v, _: torch.cat([v[2:], v[:2]]),
        lambda v, _: v.abs(),
        lambda v, _: v.sign() * F.relu(v.abs() - 1),
        lambda v, u: v / (u.abs() + 2),
    ]
    picked = [(draw.choice(steps), draw.randrange(3), draw.randrange(5)) for _ in range(7)]

    def step():
        values = [w, *constants, w * 2]
        for do, one, two in picked:
            values.append(do(values[-1 - one], values[two]))
        w.grad = None
        (values[-1] + values[-2] + 0 * w).sum().backward()

    return step


def agree(seed):
    step = program(seed)
    (first, again), (ladder,) = verdicts(step, 2), verdicts(step, 1, LADDER)
    right = (Verdict.SMOOTH, Verdict.BOULIGAND, Verdict.CLARKE)
    assert first is again
    assert first is ladder or (first in right and ladder in right)


@pytest.mark.parametrize("seed", [0, 1, 4, 5, 8, 11])
def test_judged_as_by_the_ladder(seed):
    agree(seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 400))
def test_more_programs_are_judged_as_by_the_ladder(seed):
    agree(seed)
