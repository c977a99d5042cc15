"""Ties of maxpools found while the program runs, against those found afterwards."""

import pytest
import torch
from torch import nn

from clarke import Settings, audit
from clarke.capture import Recorder, collect_trace
from clarke.compiled import Compiled
from clarke.fast import Declined, EarlyTies, QuickJudge
from clarke.fast.ties import Ties
from clarke.kinks import default_registry

REGISTRY = default_registry()


@pytest.fixture
def compiled():
    pytest.importorskip("numba", reason="numba is not installed")
    found = Compiled(always=True)
    assert found.can_take(1)
    return found


class Net(nn.Module):
    def __init__(self, *, inplace=False, norm=False, rectified=True):
        super().__init__()

        def block(read, made):
            return [
                nn.Conv2d(read, made, 3, padding=1),
                *([nn.BatchNorm2d(made)] if norm else []),
                *([nn.ReLU(inplace)] if rectified else []),
                nn.MaxPool2d(2),
            ]

        self.layers = nn.Sequential(*block(3, 4), *block(4, 8), *block(8, 8), nn.Flatten())
        self.last = nn.Linear(8 * 2 * 2, 3)
        with torch.no_grad():  # coarse weights: different patches tie
            for p in self.layers.parameters():
                p.copy_((p * 8).round() / 8)

    def forward(self, x):
        return self.last(self.layers(x))


def record(net, compiled, *, early, rows=16):
    torch.manual_seed(1)
    x = torch.ones(6, 3, 16, 16)  # constant but for some rows
    x[:, :, :rows] = torch.randint(0, 3, (6, 3, rows, 16)).float()
    look = EarlyTies(compiled) if early else None
    with Recorder(REGISTRY.keeps, compiled=compiled, early=look) as recorder:
        return collect_trace(recorder, nn.functional.cross_entropy(net(x), torch.arange(6) % 3))


def found(trace):
    return [op.early for op in trace.ops if op.short_name == "max_pool2d_with_indices"]


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("rows", [0, 16])
def test_what_is_found_early_is_what_is_found_later(compiled, norm, rows):
    torch.manual_seed(0)
    net = Net(norm=norm)
    decisions = []
    for early in (True, False):
        trace = record(net, compiled, early=early, rows=rows)
        # The first maxpool's ties are compared with the codes of the images, which come later.
        assert [isinstance(f, Ties) for f in found(trace)] == [False, early, early]
        variables = [e.slot for e in trace.leaves()]
        decisions.append(QuickJudge(REGISTRY, compiled=compiled).decide(trace, variables, None))
    ours, theirs = decisions
    assert isinstance(ours, Declined) == isinstance(theirs, Declined)
    if isinstance(ours, Declined):
        assert rows == 16  # with so many different patches, no direction settles them
        assert ours.reason == theirs.reason
        return
    assert (ours.verdict, ours.theorem) == (theirs.verdict, theirs.theorem)
    counts, others = (
        [(c.elements, c.touched, c.relevant, c.nonzero) for c in d.counts] for d in decisions
    )
    assert counts == others
    assert any(touched for _, touched, _, _ in counts)


def test_places_and_counts(compiled):
    torch.manual_seed(0)
    trace = record(Net(), compiled, early=True)
    early = [op for op in trace.ops if isinstance(op.early, Ties)]
    assert len(early) == 2
    assert sum(op.early.count for op in early) > 0
    for op in early:
        values, peaks = op.kept[0], op.kept_outputs[0]
        windows = nn.functional.unfold(values.flatten(0, 1)[:, None], 2, stride=2)
        many = (windows == peaks.flatten(0, 1).flatten(1)[:, None]).sum(1) > 1
        tied = (many & (peaks.flatten(0, 1).flatten(1) > 0)).reshape(-1)
        assert op.early.tied.tolist() == tied.nonzero().squeeze(1).tolist()
        assert op.early.count == int(tied.sum())
        assert op.early.zero_ties == int((peaks <= 0).sum())
        assert op.bare().early is None


@pytest.mark.parametrize("net", [Net(inplace=True), Net(rectified=False)], ids=["in place", "none"])
def test_only_behind_a_relu_whose_output_stays_as_it_is(compiled, net):
    assert found(record(net, compiled, early=True)) == [None] * 3


def test_nothing_is_looked_at_without_gradients_or_in_double_precision(compiled):
    net, looked = Net(), []

    def look(node, args, out):
        looked.append(node)
        return EarlyTies(compiled)(node, args, out)

    x = torch.zeros(2, 3, 16, 16)
    with Recorder(REGISTRY.keeps, compiled=compiled, early=look) as recorder:
        with torch.no_grad():
            net(x)
        assert looked == []
        loss = net.double()(x.double()).sum()
        assert found(collect_trace(recorder, loss)) == [None] * 3
    assert looked


def test_an_audit_looks_early_unless_the_whole_ladder_is_asked_for(compiled, monkeypatch):
    looked = []
    monkeypatch.setattr(EarlyTies, "__call__", lambda *_: looked.append(1))
    for quick in (False, True):
        with audit(settings=Settings(quick=quick)) as watching:
            Net()(torch.randn(2, 3, 16, 16)).sum().backward()
        assert watching.steps[-1].correct
        assert bool(looked) is quick
