"""The paper's three networks, step by step: what the audit and the naive reference say."""

import importlib.util
import os
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from clarke.experiments.data import Source, load
from clarke.experiments.models import resnet18, vgg11, vgg11_bn

_FILE = Path(__file__).resolve().parents[2] / "benchmarks" / "agreement.py"
_spec = importlib.util.spec_from_file_location("agreement", _FILE)
agreement = importlib.util.module_from_spec(_spec)
sys.modules["agreement"] = agreement
_spec.loader.exec_module(agreement)

NETWORKS = tuple(agreement.settings())


def trained(network, steps, numbers, data="digits", batch=2):
    setting = agreement.settings(batch)[network]
    images = load(Source.CIFAR10, data)
    return list(agreement.train(setting, images, steps, numbers))


def check(outcomes):
    for number, outcome in enumerate(outcomes, 1):
        assert outcome.agrees, (number, outcome.differences)
        assert outcome.tied == outcome.our_tied


@pytest.mark.parametrize("network", NETWORKS)
def test_the_first_steps_agree(network):
    outcomes = trained(network, 2, agreement.Numbers.REAL)
    check(outcomes)
    assert sum(o.tied for o in outcomes) > 10


@pytest.mark.parametrize("network", NETWORKS)
def test_steps_with_ties_that_matter_agree(network):
    outcomes = trained(network, 2, agreement.Numbers.COARSE)
    check(outcomes)
    assert sum(o.relevant for o in outcomes) > 0
    assert {o.ours for o in outcomes} & {agreement.Rank.LIMIT, agreement.Rank.OPEN}


@pytest.mark.slow
@pytest.mark.parametrize("numbers", agreement.Numbers)
@pytest.mark.parametrize("network", NETWORKS)
def test_fifty_steps_agree(network, numbers):
    outcomes = trained(network, 50, numbers, batch=4)
    check(outcomes)
    assert len(outcomes) == 50


@pytest.mark.slow
@pytest.mark.parametrize("network", NETWORKS)
def test_fifty_steps_on_real_images_agree(network):
    folder = os.environ.get("CLARKE_CIFAR10")
    if not folder:
        pytest.skip("CLARKE_CIFAR10 does not name a folder with CIFAR-10's binary files")
    check(trained(network, 50, agreement.Numbers.REAL, data=folder, batch=8))


def test_the_absolute_tolerance_errs_behind_batch_normalisation():
    (outcome,) = trained("vgg11-bn", 1, agreement.Numbers.REAL, batch=4)
    assert outcome.relevant == outcome.our_relevant == 0
    assert outcome.rough > 0


# ------------------------------------------------------------------------------ hard inputs

SHAPES = {
    "vgg11": lambda: vgg11(shrink=32),
    "vgg11-bn": lambda: vgg11_bn(shrink=32),
    "resnet18": lambda: resnet18(width=2),
}


def hard_images(kind):
    """(2, 3, 32, 32) images of one kind."""
    generator = torch.Generator().manual_seed(4)
    x = torch.rand(2, 3, 32, 32, generator=generator) * 2 - 1
    if kind == "zero-padded":
        x[:, :, :9] = 0
        x[:, :, :, 25:] = 0
    elif kind == "saturated":
        x = (4 * x).clamp(-1, 1)
    elif kind == "constant":
        x[:] = x[:, :, :1, :1]
    elif kind == "black":
        x[:] = 0
    elif kind == "duplicate samples":
        x[1] = x[0]
        x[:, :, 4:12, 4:12] = 0.5
    elif kind == "duplicated pixels":
        x = x[..., ::2, ::2].repeat_interleave(2, 2).repeat_interleave(2, 3)
    elif kind == "repeated stripes":
        x = x[..., :1].expand(2, 3, 32, 32).contiguous()
    return x


def hard_network(net, kind):
    """Break some of a network's parameters; its first convolution and what shifts its outputs."""
    convs = [m for m in net.modules() if isinstance(m, nn.Conv2d)]
    norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    with torch.no_grad():
        if kind == "dead channel":
            (norms or convs)[0].bias[0] = -100.0
        elif kind == "all channels dead":
            (norms or convs)[0].bias[:] = -100.0
        elif kind == "one channel of zero weights":
            convs[0].weight[0] = 0
            (norms or convs)[0].bias[0] = 0.5
        elif kind == "all weights zero":
            convs[0].weight[:] = 0
            (norms or convs)[0].bias[:] = 0.5
        elif kind == "zero weights in the second layer":
            convs[1].weight[0] = 0
        elif kind == "two equal channels":
            convs[0].weight[1] = convs[0].weight[0]
    return net


IMAGES = (
    "zero-padded",
    "saturated",
    "constant",
    "black",
    "duplicate samples",
    "duplicated pixels",
    "repeated stripes",
)
BROKEN = (
    "dead channel",
    "all channels dead",
    "one channel of zero weights",
    "all weights zero",
    "zero weights in the second layer",
    "two equal channels",
)


def quick(chosen):
    """The networks, of which all but one are left to `make test-slow`."""
    return [pytest.param(n, marks=[pytest.mark.slow] * (n != chosen)) for n in SHAPES]


@pytest.mark.parametrize("kind", IMAGES)
@pytest.mark.parametrize("network", quick("vgg11-bn"))
def test_hard_images_are_counted_right(network, kind):
    torch.manual_seed(1)
    outcome = agreement.compare(
        SHAPES[network](), hard_images(kind), torch.tensor([3, 5]), rough=False
    )
    check([outcome])


@pytest.mark.parametrize("kind", BROKEN)
@pytest.mark.parametrize("network", quick("resnet18"))
def test_broken_networks_are_counted_right(network, kind):
    torch.manual_seed(2)
    net = hard_network(SHAPES[network](), kind)
    images = hard_images("zero-padded")
    check([agreement.compare(net, images, torch.tensor([3, 5]), rough=False)])


POOLS = (
    {"kernel_size": 2},
    {"kernel_size": 3, "stride": 2, "padding": 1},
    {"kernel_size": 3, "stride": 1},
    {"kernel_size": 2, "stride": 2, "dilation": 2},
    {"kernel_size": 3, "stride": 2, "ceil_mode": True},
    {"kernel_size": 3, "stride": 3, "padding": 1, "ceil_mode": True},
    {"kernel_size": (3, 2), "stride": (1, 2), "padding": (1, 0), "dilation": (2, 1)},
)
CONVOLUTIONS = (
    {"kernel_size": 3, "padding": 1},
    {"kernel_size": 3, "stride": 2, "padding": 1},
    {"kernel_size": 3, "dilation": 2, "padding": 2},
    {"kernel_size": (1, 3), "stride": (1, 2), "padding": (0, 2)},
    {"kernel_size": 3, "padding": 1, "groups": 2},
)


def two_layers(convolution, pool, *, norm):
    layers = []
    for inputs, outputs in ((2, 4), (4, 2)):
        layers.append(nn.Conv2d(inputs, outputs, **convolution))
        if norm:
            layers.append(nn.BatchNorm2d(outputs))
        layers += [nn.ReLU(), nn.MaxPool2d(**pool)]
    return nn.Sequential(*layers, nn.Flatten(), nn.LazyLinear(3))


# Every pool with two of the convolutions, every convolution with two or three of the pools.
PAIRS = tuple(
    (pool, CONVOLUTIONS[(i + shift) % len(CONVOLUTIONS)], (i + shift) % 2 == 1)
    for i, pool in enumerate(POOLS)
    for shift in (0, 2)
)


@pytest.mark.parametrize(("pool", "convolution", "norm"), PAIRS, ids=str)
def test_any_geometry_is_counted_right(pool, convolution, norm):
    net = two_layers(convolution, pool, norm=norm)
    generator = torch.Generator().manual_seed(6)
    x = torch.rand(2, 2, 16, 16, generator=generator)
    x[:, :, :7] = 0
    x[1, :, :, 8:] = x[0, :, :, 8:]
    with torch.no_grad():
        net(x)  # makes the last layer
    outcome = agreement.compare(net, x, torch.tensor([0, 1]), rough=False)
    check([outcome])
    assert outcome.tied > 0
