"""What used to take minutes: decided rightly or UNDECIDED, each within its limit.

That the limits are kept is checked by `kept_limits` in conftest.py, as for every test.
"""

import itertools

import pytest
import torch
from torch import nn
from torch.nn import functional

import clarke
from clarke.verdict import Verdict
from reference.leaves import zeros

D = torch.float64


def total_variation(im):
    down, right = im[..., 1:, :] - im[..., :-1, :], im[..., 1:] - im[..., :-1]
    return down.abs().sum() + right.abs().sum()


def time_warping(soft):
    def function(x, y):
        n = len(x)
        cost = (x[:, None] - y[None, :]).abs() if not soft else (x[:, None] - y[None, :]) ** 2
        table = {(i, j): torch.tensor(1e9, dtype=D) for i in range(n + 1) for j in range(n + 1)}
        table[0, 0] = torch.zeros((), dtype=D)
        for i in range(1, n + 1):
            for j in range(1, n + 1):
                before = torch.minimum(table[i - 1, j], table[i, j - 1])
                table[i, j] = cost[i - 1, j - 1] + torch.minimum(before, table[i - 1, j - 1])
        return table[n, n]

    return function


def chain(x):
    for _ in range(1000):
        x = torch.relu(x)
    return x.sum()


CASES = {
    "flat total variation": (
        total_variation,
        lambda: (torch.full((6, 6), 0.5, dtype=D, requires_grad=True),),
        Verdict.CLARKE,
    ),
    "time warping": (time_warping(soft=False), lambda: (zeros(6), zeros(6)), Verdict.CLARKE),
    "squared time warping": (time_warping(soft=True), lambda: (zeros(6), zeros(6)), Verdict.SMOOTH),
    "maximum of 1000": (lambda x: x.max(), lambda: (zeros(1000),), Verdict.CLARKE),
    "maxpool": (
        lambda x: functional.max_pool2d(x, 3, 1, 1).sum(),
        lambda: (zeros(1, 1, 60, 60),),
        Verdict.BOULIGAND,
    ),
    "1000 relus": (chain, lambda: (zeros(1),), Verdict.BOULIGAND),
    "identity of 1e5": (
        lambda x: (torch.relu(x) - torch.relu(-x)).sum(),
        lambda: (zeros(100_000),),
        Verdict.NOT_CLARKE,
    ),
}


@pytest.mark.parametrize("seconds", [1, pytest.param(10, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", CASES)
def test_each_ends_within_its_limit(name, seconds):
    function, make, right = CASES[name]
    report = clarke.check(function, make(), seconds=seconds)
    assert report.verdict in (right, Verdict.UNDECIDED)
    if report.verdict is Verdict.UNDECIDED:
        assert report.out_of_time or "for at most" in report.reason or "tied at" in report.reason


def network(images):
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(32 * 64, 10),
    ), torch.randn(images, 3, 32, 32)


@pytest.mark.parametrize("quick", [True, False])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_a_step_of_a_small_network(dtype, quick):
    model, images = network(24)
    model, images = model.to(dtype), images.to(dtype)
    with clarke.audit(settings=clarke.Settings(quick=quick)) as watch:
        for _ in range(2):
            functional.cross_entropy(model(images).float(), torch.arange(24) % 10).backward()
            model.zero_grad()
    for step in watch.steps:
        assert step.verdict in (Verdict.UNDECIDED, Verdict.BOULIGAND, Verdict.SMOOTH)
        assert step.verdict is not Verdict.UNDECIDED or step.reason


def test_a_flat_loss_under_an_audit():
    image = torch.full((1, 1, 64, 64), 0.5, requires_grad=True)
    with clarke.audit() as watch:
        total_variation(image).backward()
    assert watch.steps[0].verdict in (Verdict.UNDECIDED, Verdict.CLARKE)


class Block(nn.Module):
    def __init__(self, inner, outer, stride):
        super().__init__()
        self.one = nn.Conv2d(inner, outer, 3, stride, 1, bias=False)
        self.two = nn.Conv2d(outer, outer, 3, 1, 1, bias=False)
        self.norms = nn.ModuleList([nn.BatchNorm2d(outer), nn.BatchNorm2d(outer)])
        self.short = nn.Conv2d(inner, outer, 1, stride, bias=False)

    def forward(self, x):
        h = functional.relu(self.norms[0](self.one(x)))
        return functional.relu(self.norms[1](self.two(h)) + self.short(x))


@pytest.mark.parametrize("width", [8, 32])
def test_a_residual_network_that_takes_the_ladder(width):
    sizes = [width, width, 2 * width, 4 * width, 8 * width]
    blocks = [Block(a, b, 1 + (a != b)) for a, b in itertools.pairwise(sizes)]
    model = nn.Sequential(
        nn.Conv2d(3, width, 3, 1, 1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.MaxPool2d(2),
        *blocks,
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8 * width, 10),
    ).to(torch.bfloat16)
    images = torch.randn(16, 3, 32, 32).to(torch.bfloat16)
    with clarke.audit(settings=clarke.Settings(quick=False)) as watch:
        functional.cross_entropy(model(images).float(), torch.arange(16) % 10).backward()
    assert watch.steps[0].verdict in (Verdict.UNDECIDED, Verdict.BOULIGAND, Verdict.SMOOTH)
