"""Gradients that autograd shares among ties of several sizes, exact ones and ones of rounding."""

import pytest
import torch
from torch import nn

import clarke
from clarke import Verdict
from clarke.decide.mixture import turn_of_selections


def stacked(*sizes):
    """A row for each size, with that many largest entries, behind two parameters an entry."""
    scale = torch.zeros(len(sizes), max(sizes) + 1)
    for row, size in enumerate(sizes):
        scale[row, size:] = -1.0
    return scale


@pytest.mark.parametrize("sizes", [(2, 3), (2, 3, 4), (5, 2), (3, 3, 2)])
def test_ties_of_several_sizes_are_taken_in_turn(sizes):
    base = stacked(*sizes).double()
    x = torch.zeros_like(base, requires_grad=True)
    report = clarke.check(lambda x: (base + x).amax(1).sum(), x)
    assert report.verdict is Verdict.CLARKE
    assert report.certificate.verify()
    assert "mixture" in report.theorem
    many = 1 + len({n / size for size in sizes for n in range(1, size)})
    assert len(report.certificate.argument.witnesses) <= many


def test_a_turn_gives_every_candidate_its_weight():
    base = stacked(2, 3).double()
    x = torch.zeros_like(base, requires_grad=True)
    report = clarke.check(lambda x: (base + x).amax(1).sum(), x)
    program = report.certificate.replay
    relevant = torch.ones(program.analysis.count, dtype=torch.bool)

    class Every:
        pass

    every = Every()
    every.relevant = relevant
    turn = turn_of_selections(program, every, torch.Generator().manual_seed(0))
    shares = [share for _, share in turn]
    assert sum(shares) == pytest.approx(1)
    assert sorted(round(6 * s) for s in shares) == [1, 1, 2, 2]
    (site,) = program.analysis.sites.values()
    total = torch.zeros(site.touch.members.numel(), dtype=torch.float64)
    for choices, share in turn:
        (picked,) = choices.values()
        total += share * (site.touch.members == picked[site.touch.owner])
    torch.testing.assert_close(total, site.touch.weights.to(torch.float64), atol=1e-6, rtol=0)


def narrow_scores(seed, rows=6, wide=24):
    """Scores in bfloat16 of which several are the largest by rounding alone."""
    torch.manual_seed(seed)
    layer = nn.Linear(4, 1, bias=False).bfloat16()
    inputs = (torch.ones(rows, wide, 4) + 0.004 * torch.rand(rows, wide, 4)).bfloat16()
    return layer, inputs


@pytest.mark.parametrize("seed", range(3))
def test_shares_among_ties_of_rounding_are_a_mean_of_limits(seed):
    layer, inputs = narrow_scores(seed)
    with clarke.audit(seconds=30) as watch:
        layer(inputs).amax(1).float().sum().backward()
    (step,) = watch.steps
    assert step.verdict.correct, step.reason
    assert sum(k.touched for k in step.kinks)


def test_an_exact_tie_beside_those_of_rounding():
    """No rounding parts it; a direction of the parameters does."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.MaxPool2d(2)).bfloat16()
    exact = nn.Parameter(torch.zeros(2))  # ties in every type
    images = torch.rand(4, 1, 14, 14).bfloat16()
    with clarke.audit(seconds=30) as watch:
        pooled = net(images).float()
        (pooled.square().sum() + torch.relu(exact - exact.flip(0)).sum()).backward()
    (step,) = watch.steps
    rounded, relevant = (
        sum(k.rounded or 0 for k in step.kinks),
        sum(k.relevant or 0 for k in step.kinks),
    )
    assert rounded
    assert relevant > rounded
    assert step.verdict.correct, step.reason


def test_layers_that_lose_their_terms_are_named():
    """LayerNorm's bias gets 8 where it is 32: no kink is at fault."""
    torch.manual_seed(0)
    norm = nn.LayerNorm(8).bfloat16()
    inputs = torch.randn(2048, 8).bfloat16()
    inputs[:, 0] = inputs[:, 1]
    with clarke.audit(seconds=30) as watch:
        found = norm(inputs)
        (found.sum() / 64 + found.amax(1).float().sum() / 1000).backward()
    assert float(norm.bias.grad[0]) < 16
    (step,) = watch.steps
    assert step.verdict is Verdict.UNDECIDED
    assert "native_layer_norm" in step.reason
    assert "adds up 2048 terms of its gradient" in step.reason


def test_a_difference_of_shares_is_a_mean_beside_roundings():
    """One parameter moves all candidates at once; what 64 rounds away moves each by itself."""
    first = torch.tensor([0.01, 0.02, 0.2], dtype=torch.bfloat16)
    second = torch.tensor([0.01, 0.2], dtype=torch.bfloat16)
    w = torch.tensor(0.5, dtype=torch.bfloat16, requires_grad=True)

    def function(w):
        return ((w * first + 64).amax() - (w * second + 64).amax()).float()

    report = clarke.check(function, w)
    assert report.verdict is Verdict.CLARKE
    assert report.theorem == "mixture beside roundings"
    assert "a mean of limits of gradients of programs that round otherwise" in report.reason
    assert report.certificate.verify()
    assert len(report.certificate.argument.witnesses) == 4
    assert "2 of the 2 ties that matter exist by rounding alone" in report.notes[0]
    # The same numbers without the rounding: nothing is tied, and the gradient is 0.
    first, second, w = first.double(), second.double(), w.detach().double().requires_grad_()
    assert clarke.check(function, w).gradient[0] == 0
