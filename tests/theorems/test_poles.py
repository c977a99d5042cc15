"""Where parameters can lead an operation to a pole, a theorem says that it leaves that out."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - the usual name

import clarke
from clarke import Verdict, explain

ONES = torch.ones(2, 3)


class Divided(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.scale = nn.Linear(3, 3), nn.Parameter(torch.ones(3))

    def forward(self, x):
        return F.relu(self.first(x)) / self.scale


def weighted():
    layer = nn.utils.parametrizations.weight_norm(nn.Linear(3, 3))
    return nn.Sequential(layer, nn.ReLU())


@pytest.mark.parametrize(
    ("make", "excluded"),
    [(Divided, "excludes division by 0"), (weighted, "excludes a row of v that is 0")],
)
def test_poles_that_parameters_reach_are_left_out_in_words(make, excluded):
    net = make()
    found = explain(net, ONES)
    assert found.always_correct
    assert any(a.startswith("values stay finite at ") and excluded in a for a in found.assumptions)
    assert excluded in " ".join(str(found).split())
    with torch.no_grad():
        for p in net.parameters():
            p.zero_()
    report = clarke.check(lambda *_: net(ONES).sum(), tuple(net.parameters()))
    assert report.verdict in (Verdict.NONFINITE, Verdict.NOT_LIPSCHITZ)


@pytest.mark.parametrize(
    "net",
    [
        nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.LayerNorm(3)),
        nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Softmax(-1)),
        nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 1)),
    ],
)
def test_nothing_is_said_where_no_parameter_reaches_a_pole(net):
    found = explain(net, ONES)
    assert found.always_correct
    assert found.assumptions == ()


def test_a_divisor_that_is_positive_whatever_happens_is_no_pole():
    layer = nn.Linear(3, 3)

    def scaled(x):
        return F.relu(layer(x)) / (layer.weight.exp().sum() + 1.0)

    assert not any("finite" in a for a in explain(scaled, ONES).assumptions)
