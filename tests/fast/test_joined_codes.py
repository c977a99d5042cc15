"""Codes of tensors one behind the other and of smooth activations, against the whole ladder."""

import pytest
import torch
from torch import nn

import clarke
from clarke.decide import Settings
from clarke.verdict import Verdict

SMOOTH = [nn.GELU(), nn.SiLU(), nn.Mish(), nn.Sigmoid(), nn.Tanh()]


class Joined(nn.Module):
    """Two branches, one behind the other along the channels, in front of a maxpool."""

    def __init__(self, activation, bias=True):
        super().__init__()
        self.one = nn.Conv2d(1, 2, 1, bias=bias)
        self.two = nn.Conv2d(1, 2, 1, bias=bias)
        self.root = nn.Conv2d(4, 2, 1)
        self.activation = activation
        self.pool = nn.MaxPool2d(2)
        self.head = nn.Linear(8, 2)

    def forward(self, x):
        both = [self.activation(self.one(x[:, :1])), torch.relu(self.two(x[:, 1:]))]
        return self.head(self.pool(self.root(torch.cat(both, 1))).flatten(1))


def step(net, images, *, quick):
    with clarke.audit(seconds=60, settings=Settings(quick=quick)) as watch:
        nn.functional.cross_entropy(net(images), torch.arange(len(images)) % 2).backward()
    net.zero_grad()
    (found,) = watch.steps
    return found


def images(kind):
    generator = torch.Generator().manual_seed(3)
    x = torch.rand(2, 2, 4, 4, generator=generator)
    if kind == "repeated":  # equal in both channels: ties that change nothing
        return x[..., ::2].repeat_interleave(2, 3).contiguous()
    if kind == "first only":
        x[:, :1] = x[:, :1, :, ::2].repeat_interleave(2, 3)
    if kind == "black":
        x[:] = 0
    return x


@pytest.mark.parametrize("kind", ["repeated", "first only", "black", "natural"])
@pytest.mark.parametrize("activation", SMOOTH, ids=lambda a: type(a).__name__)
def test_quick_verdicts_are_those_of_the_ladder(activation, kind):
    torch.manual_seed(0)
    net = Joined(activation)
    fast, slow = (step(net, images(kind), quick=q) for q in (True, False))
    assert fast.verdict.correct
    assert slow.verdict.correct
    if fast.verdict is Verdict.SMOOTH:
        assert slow.verdict is Verdict.SMOOTH


@pytest.mark.filterwarnings("ignore::clarke.errors.WrongGradientWarning")
@pytest.mark.parametrize("quick", [True, False])
@pytest.mark.parametrize("activation", SMOOTH[:4:3], ids=lambda a: type(a).__name__)
def test_a_tie_that_one_part_alone_breaks_is_no_null_kink(activation, quick):
    """The windows tie, since the second branch counts for nothing; its gradients differ."""
    torch.manual_seed(0)
    net = Joined(activation)
    with torch.no_grad():
        net.root.weight[:, 2:] = 0
        net.two.bias += 1
    found = step(net, images("first only"), quick=quick)
    assert found.verdict is not Verdict.SMOOTH
    assert sum(k.relevant or 0 for k in found.kinks) > 0


@pytest.mark.filterwarnings("ignore::clarke.errors.WrongGradientWarning")
def test_the_order_of_the_parts_counts():
    """Places at which the parts have each other's values are not equal."""
    torch.manual_seed(0)
    net = Joined(nn.SiLU(), bias=False)
    with torch.no_grad():
        net.two.weight.copy_(net.one.weight)
        net.root.weight[:, 2:] = net.root.weight[:, :2]
        net.activation = nn.ReLU()
    x = torch.rand(1, 1, 4, 4) + 0.5
    turned = torch.cat([x, x[..., [1, 0, 3, 2]]], 1)
    for quick in (True, False):
        found = step(net, turned, quick=quick)
        assert found.verdict is not Verdict.SMOOTH
