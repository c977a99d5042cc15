"""The core of it on an accelerator: `make gpu` runs these there, elsewhere they are skipped."""

import pytest
import torch
from torch import nn

import clarke
from clarke.devices import accelerator

DEVICE = accelerator()
pytestmark = pytest.mark.skipif(
    DEVICE is None, reason="torch finds no accelerator here: run `make gpu` where there is one"
)

PROGRAMS = {
    "wrong": (lambda w: (torch.relu(w) - torch.relu(-w)).sum(), 0),
    "right": (lambda w: torch.relu(w).sum(), 0),
    "smooth": (lambda w: (w * w).exp().sum(), 1),
    "made there": (lambda w: torch.maximum(w, torch.zeros(4, device=w.device)).sum(), 0),
    "norm": (lambda w: w.norm(), 0),
    "sorted": (lambda w: (w.sort().values * torch.arange(4, device=w.device)).sum(), 0),
    "pooled": (lambda w: nn.functional.max_pool1d(w[None], 2).sum(), 0),
    "half": (lambda w: torch.relu(w.bfloat16()).float().sum(), 0),
}


def verdicts(function, at, device):
    x = torch.full((4,), float(at), device=device, requires_grad=True)
    report = clarke.check(function, (x,), seconds=30)
    with clarke.audit("repair", seconds=30) as audit:
        function(x).backward()
    return report.verdict, audit.steps[0].verdict, x.grad.cpu()


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.filterwarnings("ignore::clarke.WrongGradientWarning")
def test_as_on_the_processor(name):
    function, at = PROGRAMS[name]
    here, there = verdicts(function, at, "cpu"), verdicts(function, at, DEVICE)
    assert here[:2] == there[:2]
    assert torch.equal(here[2], there[2])


def trained(model, audit, cast):
    torch.manual_seed(0)
    model = model().to(DEVICE)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    drawn = torch.Generator().manual_seed(1)
    with audit:
        for _ in range(3):
            x = torch.randn(8, 1, 8, 8, generator=drawn).to(DEVICE)
            optimizer.zero_grad()
            with torch.autocast(DEVICE, dtype=torch.bfloat16, enabled=cast):
                loss = model(x).float().square().mean()
            loss.backward()
            optimizer.step()
    return [p.detach().cpu() for p in model.parameters()]


def network():
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Dropout(0.2), nn.Linear(36, 5),
    )  # fmt: skip


@pytest.mark.parametrize("cast", [False, True])
def test_training_is_as_without(cast):
    audit = clarke.audit(on_wrong=lambda _: None, seconds=10)
    audited = trained(network, audit, cast)
    plain = trained(network, clarke.audit(every=1000), cast)
    assert all(torch.equal(a, b) for a, b in zip(audited, plain, strict=True))
    assert not [s.reason for s in audit.steps if "clarke itself failed" in s.reason]
