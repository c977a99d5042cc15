"""Programs in bfloat16 that are compared with float64: they run as they would without an audit."""

import contextlib
import copy
import threading

import pytest
import torch
from torch import nn

import clarke

BF = torch.bfloat16


class Table(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Parameter(torch.ones(5, 3))
        self.places = torch.arange(200) % 5

    def forward(self, x):
        return self.table[self.places] * x


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.words, self.norm = nn.Embedding(20, 8), nn.LayerNorm(8)

    def forward(self, x):
        return self.norm(self.words(x)) @ self.words.weight.T


PROGRAMS = {
    "norm": (lambda: nn.Sequential(nn.Linear(3, 8), nn.LayerNorm(8)), torch.randn(200, 3)),
    "words": (lambda: nn.Embedding(20, 8, padding_idx=0), torch.randint(20, (16, 8))),
    "sparse": (lambda: nn.Embedding(20, 8, sparse=True), torch.randint(20, (16, 8))),
    "renormed": (lambda: nn.Embedding(20, 8, max_norm=1.0), torch.randint(20, (16, 8))),
    "bags": (lambda: nn.EmbeddingBag(20, 8), torch.randint(20, (16, 8))),
    "pool": (
        lambda: nn.Sequential(nn.Conv2d(1, 2, 3), nn.AvgPool2d(5, 1)),
        torch.randn(4, 1, 12, 12),
    ),
    "pad": (
        lambda: nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReplicationPad2d(9)),
        torch.randn(2, 1, 6, 6),
    ),
    "table": (Table, torch.randn(200, 3)),
    "tied": (Tied, torch.randint(20, (8, 8))),
}


def trained(net, x, audit):
    torch.manual_seed(3)
    optimizer = torch.optim.SGD(net.parameters(), 0.05)
    found = []
    with audit:
        for _ in range(3):
            optimizer.zero_grad()
            loss = net(x).float().square().mean()
            loss.backward()
            optimizer.step()
            found += [loss.detach(), torch.rand(1)]
    return [*found, *(p.detach() for p in net.parameters())]


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.filterwarnings("error")
def test_bits_are_those_without(name):
    make, x = PROGRAMS[name]
    torch.manual_seed(0)
    net = make().to(BF)
    x = x.to(BF) if x.is_floating_point() else x
    plain = trained(copy.deepcopy(net), x, contextlib.nullcontext())
    seen = trained(copy.deepcopy(net), x, clarke.audit(lambda _: None))
    assert all(map(torch.equal, plain, seen))


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_what_is_raised_in_between_passes_through(error):
    table = nn.Parameter(torch.ones(4, 8, dtype=BF))
    places = torch.zeros(900, dtype=torch.long)

    def fail(_):
        raise error("mine")

    with clarke.audit(lambda _: None) as audit:
        for step in range(4):
            table.grad = None
            rows = table[places]
            if step == 1:
                rows.register_hook(fail)
            with pytest.raises(error) if step == 1 else contextlib.nullcontext():
                rows.float().sum().backward()
    assert float(table.grad[0, 0]) == 256
    assert not any(s.verdict.correct for s in audit.steps)


def test_other_threads_train_undisturbed():
    found, places = [], torch.zeros(900, dtype=torch.long)

    def train():
        table = nn.Parameter(torch.ones(4, 8, dtype=BF))
        for _ in range(4):
            table.grad = None
            table[places].float().sum().backward()
        found.append(float(table.grad[0, 0]))

    with clarke.audit(lambda _: None):
        threads = [threading.Thread(target=train) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert found == [256] * 4
