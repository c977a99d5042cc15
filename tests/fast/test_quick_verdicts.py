"""The quick judge declines what it cannot prove, and what it proves stands up to a replay."""

import importlib.util
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from clarke.capture import Recorder, collect_trace
from clarke.decide import Decision
from clarke.fast import Declined, QuickJudge
from clarke.kinks import default_registry
from clarke.verdict import Verdict

_NAIVE = Path(__file__).resolve().parents[2] / "benchmarks" / "naive.py"
_spec = importlib.util.spec_from_file_location("naive", _NAIVE)
naive = importlib.util.module_from_spec(_spec)
sys.modules["naive"] = naive
_spec.loader.exec_module(naive)


def quick(function):
    """The quick decision on a function without arguments, with respect to all leaves."""
    registry = default_registry()
    with Recorder(registry.keeps) as recorder:
        loss = function()
        trace = collect_trace(recorder, loss)
        recorder.paused = True
        leaves = [e.tensor for e in trace.leaves()]
        gradient = torch.autograd.grad(loss, leaves, allow_unused=True)
    slots = [e.slot for e in trace.leaves()]
    filled = [
        torch.zeros_like(x) if g is None else g for g, x in zip(gradient, leaves, strict=True)
    ]
    return QuickJudge(registry).decide(trace, slots, filled)


def linear(weight, bias):
    layer = nn.Linear(1, 1)
    with torch.no_grad():
        layer.weight.fill_(weight)
        layer.bias.fill_(bias)
    return layer


def test_lemma_3_needs_shifts_both_ways():
    layer = linear(1.0, 0.0)
    found = quick(lambda: nn.functional.hardsigmoid(layer(torch.tensor([[3.0], [-3.0]]))).sum())
    assert isinstance(found, Declined)
    assert "bias" in found.reason


def test_one_end_of_a_hardsigmoid_is_a_shift():
    layer = linear(1.0, 0.0)
    found = quick(lambda: nn.functional.hardsigmoid(layer(torch.tensor([[3.0], [1.0]]))).sum())
    assert found.verdict is Verdict.BOULIGAND
    assert found.theorem == "bias shift (Theorem 6)"
    assert found.certificate.verify()


def test_appendix_h_is_declined():
    layer = linear(0.0, 0.0)
    x = torch.ones(1, 1)

    def difference():
        return (torch.relu(layer(x)) - torch.relu(-layer(x))).sum()

    found = quick(difference)
    assert isinstance(found, Declined)


def test_lemma_7_has_no_direction():
    conv = nn.Conv2d(1, 1, 1)
    nn.init.zeros_(conv.weight)
    nn.init.zeros_(conv.bias)
    pool = nn.MaxPool2d((1, 2))
    x = torch.tensor([[[[1.0, 0.0], [-1.0, 0.0]]]])
    sign = torch.tensor([[[[1.0], [-1.0]]]])

    def weighted():
        return (pool(conv(x)) * sign).sum()

    found = quick(weighted)
    assert isinstance(found, Declined)
    assert "settles 2 tied windows" in found.reason


def test_a_layer_used_twice_is_declined():
    conv = nn.Conv2d(1, 1, 1)
    nn.init.zeros_(conv.bias)
    x = torch.tensor([[[[1.0, 1.0], [1.0, 1.0]]]])

    def twice():
        return torch.relu(conv(torch.relu(conv(x)) - 1)).sum()

    with torch.no_grad():
        conv.weight.fill_(1.0)
    assert isinstance(quick(twice), Declined)


def test_a_leaf_image_has_no_equal_patches():
    conv = nn.Conv2d(1, 2, 3)
    image = torch.ones(1, 1, 6, 6, requires_grad=True)
    found = quick(lambda: nn.MaxPool2d(2)(torch.relu(conv(image) + 5)).sum())
    assert isinstance(found, Declined)
    constant = image.detach()
    net = nn.Sequential(conv, nn.ReLU(), nn.MaxPool2d(2))
    with torch.no_grad():
        conv.bias.fill_(5.0)
    found = quick(lambda: net(constant).sum())
    assert found.verdict is Verdict.SMOOTH
    assert sum(c.nonzero or 0 for c in found.counts) == 2 * 4


@pytest.mark.parametrize("inplace", [False, True])
def test_in_place_activations_are_followed(inplace):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(inplace=inplace), nn.MaxPool2d(2))
    found = quick(lambda: net(torch.rand(2, 1, 6, 6)).sum())
    assert isinstance(found, Decision)
    assert found.certificate.verify()


def test_nonfinite_gradients_are_declined():
    layer = linear(1.0, 0.0)
    found = quick(lambda: (layer(torch.tensor([[torch.inf]]))).sum())
    assert isinstance(found, Declined)


def test_a_detached_value_in_the_loss_is_declined():
    layer = linear(1.0, 0.0)
    x = torch.ones(2, 1)

    def stopped():
        y = layer(x)
        return (y * y.detach()).sum()

    assert isinstance(quick(stopped), Declined)


def integer_net(generator, *, norm):
    """Few channels, weights -1, 0 or 1: kinks are touched everywhere."""

    def conv(inputs, outputs, size):
        layer = nn.Conv2d(inputs, outputs, size, padding=size // 2)
        with torch.no_grad():
            layer.weight.copy_(torch.randint(-1, 2, layer.weight.shape, generator=generator))
            layer.bias.copy_(torch.randint(-1, 2, layer.bias.shape, generator=generator))
        return layer

    layers = [conv(1, 2, 3)]
    if norm:
        layers.append(nn.BatchNorm2d(2))
    layers += [nn.ReLU(), nn.MaxPool2d(2), conv(2, 2, 1), nn.ReLU(), nn.MaxPool2d((1, 2))]
    return nn.Sequential(*layers).double()


@pytest.mark.slow
def test_what_is_proved_stands_up_to_a_replay_and_to_the_program():
    generator = torch.Generator().manual_seed(0)
    verdicts = []
    for number in range(48):
        torch.manual_seed(number)
        net = integer_net(generator, norm=number % 4 == 3)
        x = torch.randint(-1, 2, (2, 1, 4, 4), generator=generator).double()
        weight = torch.randn(2, 2, 2, 1, generator=generator).double()
        found = quick(lambda n=net, i=x, w=weight: (n(i) * w).sum())
        if isinstance(found, Decision):
            verdicts.append(found.verdict)
            assert found.certificate.defects() == ()
    assert verdicts.count(Verdict.BOULIGAND) >= 4, len(verdicts)


def test_an_absolute_tolerance_errs_where_ours_does_not():
    """Equal patches behind batch normalisation differ in float32's roundings only."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2)
    )
    x = torch.rand(2, 3, 8, 8)
    x[:, :, 2:6] = 0.3
    trace_decision = quick(lambda: net(x).sum())
    layer = next(iter(naive.Naive(net, x).layers().values()))
    assert layer.relevant == sum(c.relevant for c in trace_decision.counts) == 0
    assert layer.ties > 0
