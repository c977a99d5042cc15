"""Step by step: the fast path against Algorithms 1 and 2 done naively, and the whole ladder."""

import importlib.util
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from clarke.capture import Recorder, collect_trace
from clarke.compiled import Compiled
from clarke.decide import Confirm, Decision, Settings, decide
from clarke.experiments.models import resnet18, vgg11, vgg11_bn
from clarke.fast import QuickJudge
from clarke.kinks import default_registry

_NAIVE = Path(__file__).resolve().parents[2] / "benchmarks" / "naive.py"
_spec = importlib.util.spec_from_file_location("naive", _NAIVE)
naive = importlib.util.module_from_spec(_spec)
sys.modules["naive"] = naive
_spec.loader.exec_module(naive)


@pytest.fixture(params=["passes", "loops"])
def compiled(request):
    """None, or compiled loops that take arrays of any size."""
    if request.param == "passes":
        return None
    pytest.importorskip("numba", reason="numba is not installed")
    return Compiled(always=True)


def traced(net, inputs, labels, compiled=None):
    """Trace, slots of the variables and AD's gradient of one training step."""
    registry = default_registry()
    net.zero_grad()
    with Recorder(registry.keeps, compiled=compiled) as recorder:
        loss = cross_entropy(net(inputs), labels)
        trace = collect_trace(recorder, loss)
        recorder.paused = True
        loss.backward()
    slots = [e.slot for e in trace.leaves()]
    return trace, slots, tuple(trace.externals[s].tensor.grad for s in slots)


def small_vgg(batch_norm=False, size=8):
    """The first two blocks of VGG11, three channels wide."""
    layers = []
    for _ in range(2):
        layers.append(nn.Conv2d(3, 3, 3, padding=1))
        if batch_norm:
            layers.append(nn.BatchNorm2d(3))
        layers += [nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(3 * (size // 4) ** 2, 4))


def stem(batch_norm=True):
    """ResNet's stem: overlapping windows with padding."""
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1, bias=not batch_norm),
        *([nn.BatchNorm2d(4)] if batch_norm else []),
        nn.ReLU(),
        nn.MaxPool2d(3, stride=2, padding=1),
        nn.Flatten(),
        nn.Linear(4 * 16, 4),
    )


def odd(**kwargs):
    """Other strides, dilation, ceil_mode and groups."""
    return nn.Sequential(
        nn.Conv2d(3, 6, (3, 2), stride=(1, 2), padding=(2, 1), dilation=(2, 1), groups=3),
        nn.ReLU(),
        nn.MaxPool2d((3, 2), stride=(2, 1), padding=(1, 0), dilation=(1, 1), ceil_mode=True),
        nn.Conv2d(6, 4, 3, padding=1, groups=2),
        nn.MaxPool2d(2, dilation=2, stride=1),
        nn.Flatten(),
        nn.LazyLinear(4),
    )


def inputs_of(kind, generator):
    """(4, 3, 8, 8) images of one kind."""
    x = torch.rand(4, 3, 8, 8, generator=generator) * 2 - 1
    if kind == "natural":
        return x
    if kind == "zero-padded":
        x[:, :, :3] = 0
        x[:, :, :, 6:] = 0
    elif kind == "saturated":
        x = (3 * x).clamp(-1, 1)
    elif kind == "constant":
        x[:] = x[:, :, :1, :1]
    elif kind == "duplicate samples":
        x[2:] = x[:2]
    elif kind == "repeated columns":
        x = x[..., ::2].repeat_interleave(2, dim=3)
    elif kind == "coarse":
        x = (2 * x).round() / 2
    elif kind == "signed zeros":
        x = torch.where(x > 0.3, x, -0.0 * x.sign())
    return x


KINDS = (
    "natural",
    "zero-padded",
    "saturated",
    "constant",
    "duplicate samples",
    "repeated columns",
    "coarse",
    "signed zeros",
)
NETS = {
    "vgg": small_vgg,
    "vgg-bn": lambda: small_vgg(batch_norm=True),
    "stem": stem,
    "odd": odd,
}


def pools(decision):
    return [c for c in decision.counts if c.op.short_name == "max_pool2d_with_indices"]


def compare(net, inputs, labels, judge, compiled=None):
    """The decision of the fast path, after checking its counts against the naive reference."""
    trace, slots, gradient = traced(net, inputs, labels, compiled)
    decision = judge.decide(trace, slots, gradient)
    reference = naive.Naive(net, inputs).layers()
    if not isinstance(decision, Decision):
        return decision, reference
    assert decision.verdict.correct
    for count, layer in zip(pools(decision), reference.values(), strict=True):
        assert count.elements == layer.outputs
        assert (count.touched if count.nonzero is None else count.nonzero) == layer.ties
        assert count.relevant == layer.relevant
        assert layer.feasible
    return decision, reference


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", NETS)
def test_counts_and_verdicts_are_those_of_the_paper(name, kind, compiled):
    generator = torch.Generator().manual_seed(3)
    judge = QuickJudge(default_registry(), compiled=compiled)
    labels = torch.tensor([0, 1, 2, 3])
    decided = 0
    for _ in range(3):
        net = NETS[name]()
        inputs = inputs_of(kind, generator)
        net(inputs)
        decision, reference = compare(net, inputs, labels, judge, compiled)
        if isinstance(decision, Decision):
            decided += 1
        elif name != "odd":  # fingerprints do not look into the groups of a convolution
            assert any(layer.relevant or layer.touched for layer in reference.values()), decision
    assert decided


def test_fifty_steps_of_training_agree(compiled):
    generator = torch.Generator().manual_seed(5)
    judge = QuickJudge(default_registry(), compiled=compiled)
    for batch_norm in (False, True):
        net = small_vgg(batch_norm=batch_norm)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
        for step in range(25):
            kind = KINDS[step % len(KINDS)]
            inputs = inputs_of(kind, generator)
            labels = torch.randint(0, 4, (4,), generator=generator)
            decision, _ = compare(net, inputs, labels, judge, compiled)
            assert isinstance(decision, Decision) or kind == "coarse", str(decision)
            optimizer.step()


def test_zero_weights_and_dead_channels(compiled):
    judge = QuickJudge(default_registry(), compiled=compiled)
    generator = torch.Generator().manual_seed(7)
    labels = torch.tensor([0, 1, 2, 3])
    net = small_vgg()
    with torch.no_grad():
        net[0].weight[0] = 0  # channel 0 is its bias everywhere
        net[0].bias[0] = 0.5
        net[0].bias[1] = -100.0  # channel 1 is dead
    decision, reference = compare(net, inputs_of("natural", generator), labels, judge, compiled)
    first = next(iter(reference.values()))
    assert first.ties == first.relevant == 4 * 16
    if isinstance(decision, Decision):
        assert first.feasible


def test_scale_zero_is_left_to_the_ladder():
    net = small_vgg(batch_norm=True)
    with torch.no_grad():
        net[1].weight[0] = 0
        net[1].bias[0] = 0.5
    inputs = inputs_of("natural", torch.Generator().manual_seed(1))
    found = QuickJudge(default_registry()).decide(*traced(net, inputs, torch.tensor([0, 1, 2, 3])))
    assert not isinstance(found, Decision)
    assert "tied windows" in str(found)


@pytest.mark.parametrize(
    "make",
    [
        lambda: vgg11(shrink=16),
        pytest.param(lambda: vgg11_bn(shrink=16), marks=pytest.mark.slow),
        pytest.param(lambda: resnet18(width=4), marks=pytest.mark.slow),
    ],
)
def test_certificates_hold_and_the_ladder_agrees(make):
    generator = torch.Generator().manual_seed(11)
    judge = QuickJudge(default_registry())
    registry = default_registry()
    net = make()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
    for _ in range(2):
        inputs = torch.rand(6, 3, 32, 32, generator=generator) * 2 - 1
        inputs = torch.nn.functional.avg_pool2d(inputs, 3, 1, 1).mul(8).round() / 8
        inputs[:, :, 10:20, 4:16] = 0.5
        labels = torch.randint(0, 10, (6,), generator=generator)
        trace, slots, gradient = traced(net, inputs, labels)
        quick = judge.decide(trace, slots, gradient)
        if isinstance(quick, Decision):
            assert quick.certificate.defects(run=False) == ()
            slow = decide(trace, registry, slots, gradient, Settings(confirm=Confirm.NEVER))
            assert slow.verdict.correct, slow.reason
            assert sum(c.relevant for c in pools(quick)) >= _relevant_pools(slow)
        optimizer.step()


def _relevant_pools(decision):
    relevant = decision.relevance.relevant
    return sum(
        int(relevant[s.first : s.first + s.touch.count].sum())
        for s in decision.analysis.ordered()
        if s.touch.op.short_name == "max_pool2d_with_indices"
    )
