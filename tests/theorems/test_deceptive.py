"""Structures made to deceive: none is taken for a layer with a bias of its own."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - its usual name

from clarke.check import check
from clarke.errors import InputError
from clarke.explain import explain
from clarke.theorems import Bias, Condition, Theorem

X = torch.tensor([[1.0, -2.0, 0.5], [0.25, 3.0, -1.0]])


class Net(nn.Module):
    """Parameters by name, and a forward function."""

    def __init__(self, forward, **parts):
        super().__init__()
        self.run = forward
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, *inputs):
        return self.run(self, *inputs)


def linear(*, bias=True):
    return nn.Linear(3, 3, bias=bias)


def vector(value=0.0):
    return nn.Parameter(torch.full((3,), value))


def matrix():
    return nn.Parameter(torch.randn(3, 3))


def written(y):
    row = y[0]
    row.mul_(0.5 * row.detach())
    return y


def centred(s, x, dim):
    y = s.a(x)
    return F.relu(y - y.mean(dim, keepdim=True))


# name: (forward, parts, theorem, bias of every layer). No entry may be unconditional.
DECEPTIVE = {
    "bias used again after the kink": (
        lambda s, x: F.relu(F.relu(x @ s.w + s.b) @ s.v + s.b),
        {"w": matrix(), "v": matrix(), "b": vector()},
        None,
        [Bias.ELSEWHERE, Bias.ELSEWHERE],
    ),
    "bias added and subtracted in two branches": (
        lambda s, x: F.relu(s.a(x).sin() + s.b) - F.relu(s.a(x).cos() - s.b),
        {"a": linear(), "b": vector()},
        Theorem.EIGHT,
        None,
    ),
    "bias scales another layer's input": (
        lambda s, x: F.relu((x @ s.w).tanh() * s.b + s.b),
        {"w": matrix(), "b": vector()},
        Theorem.EIGHT,
        [Bias.CANCELLED],
    ),
    "non-linearity before the kink": (
        lambda s, x: F.relu(torch.tanh(s.a(x))),
        {"a": linear()},
        Theorem.EIGHT,
        [Bias.BEHIND],
    ),
    "kink before the kink": (
        lambda s, x: F.relu(-F.relu(s.a(x))),
        {"a": linear()},
        None,
        [Bias.ELSEWHERE, Bias.MISSING],
    ),
    "shared layer": (
        lambda s, x: F.relu(s.a(F.relu(s.a(x)))),
        {"a": linear()},
        None,
        [Bias.ELSEWHERE, Bias.ELSEWHERE],
    ),
    "normalised without a shift": (
        lambda s, x: F.relu(F.batch_norm(s.a(x), None, None, training=True)),
        {"a": linear()},
        Theorem.EIGHT,
        [Bias.CANCELLED],
    ),
    "layer norm without a shift": (
        lambda s, x: F.relu(F.layer_norm(s.a(x), (3,))),
        {"a": linear()},
        Theorem.EIGHT,
        [Bias.CANCELLED],
    ),
    "batch mean subtracted": (
        lambda s, x: centred(s, x, 0), {"a": linear()}, Theorem.EIGHT, [Bias.CANCELLED],
    ),
    "feature mean subtracted": (
        lambda s, x: centred(s, x, 1), {"a": linear()}, Theorem.EIGHT, [Bias.CANCELLED],
    ),
    "another sample subtracted": (
        lambda s, x: F.relu(s.a(x) - s.a(x)[:1]), {"a": linear()}, Theorem.EIGHT, None,
    ),
    "bias times zero": (
        lambda s, x: F.relu(torch.tanh(x @ s.w) + 0.0 * s.b),
        {"w": matrix(), "b": vector()},
        Theorem.EIGHT,
        [Bias.ZERO],
    ),
    "bias times a constant with a zero": (
        lambda s, x: F.relu(torch.tanh(x @ s.w) + torch.tensor([1.0, 0.0, 1.0]) * s.b),
        {"w": matrix(), "b": vector()},
        Theorem.EIGHT,
        [Bias.ZERO],
    ),
    "bias times a parameter": (
        lambda s, x: F.relu(torch.tanh(x @ s.w) + s.scale * s.b),
        {"w": matrix(), "b": vector(), "scale": nn.Parameter(torch.ones(()))},
        Theorem.EIGHT,
        None,
    ),
    "coefficients that cancel up to rounding": (
        lambda s, x: F.relu(torch.tanh(x @ s.w) + 0.1 * s.b + 0.2 * s.b - 0.3 * s.b),
        {"w": matrix(), "b": vector()},
        Theorem.EIGHT,
        None,
    ),
    "both signs in one layer": (
        lambda s, x: F.relu(torch.cat([torch.tanh(x @ s.w) + s.b, -(x @ s.w).sin() - s.b], 1)),
        {"w": matrix(), "b": vector()},
        Theorem.EIGHT,
        None,
    ),
    "written over in place": (
        lambda s, x: F.relu((s.a(x) + s.b).mul_(s.b)), {"a": linear(), "b": vector()},
        Theorem.EIGHT, None,
    ),
    "a view written over": (
        lambda s, x: F.relu(written(s.a(x))), {"a": linear()}, None, None,
    ),
    "hidden in the other operand of maximum": (
        lambda s, x: torch.maximum(s.a(x), s.a(x)), {"a": linear()}, Theorem.EIGHT, None,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", DECEPTIVE)
def test_nothing_is_claimed_for_all_parameters(name):
    forward, parts, theorem, biases = DECEPTIVE[name]
    found = explain(Net(forward, **parts), X)
    assert not found.always_correct
    assert found.theorem is theorem
    if biases is not None:
        assert [layer.bias for layer in found.layers] == biases
        assert not found.hypothesis(Condition.BIASES).holds


def test_a_frozen_bias_is_not_a_variable():
    net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 4), nn.Unflatten(1, (2, 2)))
    net.append(nn.ReLU())
    net[2].weight.requires_grad_(False)
    assert explain(net, X).theorem is Theorem.FOUR
    net[2].bias.requires_grad_(False)
    found = explain(net, X)
    assert found.layers[0].bias is Bias.FROZEN
    assert found.layers[0].leaf == "2.bias"
    assert not found.always_correct


def test_variables_left_out_of_wrt_are_frozen():
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU())
    assert explain(net, X).theorem is Theorem.FOUR
    found = explain(net, X, wrt=[net[0].weight])
    assert found.layers[0].bias is Bias.FROZEN
    assert found.theorem is Theorem.FIVE


def test_tied_weights_with_biases_of_their_own_are_covered_beyond_the_paper():
    net = Net(
        lambda s, x: F.relu(F.relu(x @ s.w + s.b) @ s.w + s.c), w=matrix(), b=vector(), c=vector()
    )
    found = explain(net, X)
    assert found.theorem is Theorem.BIAS_SHIFT
    assert not found.hypothesis(Condition.OWN).holds


def test_a_whole_layer_times_zero_has_no_kinks_that_matter():
    found = explain(Net(lambda s, x: F.relu(0.0 * s.a(x)) + s.b, a=linear(), b=vector()), X)
    assert found.theorem is Theorem.ANALYTIC


@pytest.mark.parametrize("p", [0.0, 0.5, 1.0])
def test_dropout_keeps_or_removes_whole_elements(p):
    net = nn.Sequential(nn.Linear(3, 4), nn.Dropout(p), nn.ReLU())
    found = explain(net, X).theorem
    # A drawn mask is another one in the next step.
    assert found in ((Theorem.EIGHT,) if p == 0.5 else (Theorem.FOUR, Theorem.ANALYTIC))


WELL_KNOWN = {
    "relu(x) - relu(-x)": (lambda w: F.relu(w) - F.relu(-w), Theorem.EIGHT),
    "relu(-relu(x))": (lambda w: F.relu(-F.relu(w)), None),
    "max(u + b, b) - max(-u + b, b)": (
        lambda u, b: (
            torch.stack([u + b, b]).max(0).values - torch.stack([-u + b, b]).max(0).values
        ).sum(),
        Theorem.EIGHT,
    ),
    "hardsigmoid(3 + w) + hardsigmoid(-3 + w)": (
        lambda w: F.hardsigmoid(3 + w) + F.hardsigmoid(-3 + w), Theorem.EIGHT,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WELL_KNOWN)
def test_the_well_known_failures_are_ruled_out(name):
    function, theorem = WELL_KNOWN[name]
    count = function.__code__.co_argcount
    inputs = tuple(torch.zeros((), dtype=torch.float64, requires_grad=True) for _ in range(count))
    found = explain(function, inputs)
    assert found.theorem is theorem
    assert not found.always_correct


def test_relu_minus_itself_is_right_and_claimed():
    x = torch.zeros((), requires_grad=True)
    found = explain(lambda w: F.relu(w) - F.relu(w), x)
    assert found.theorem is Theorem.BIAS_SHIFT
    assert check(lambda w: F.relu(w) - F.relu(w), x).correct


MOVING = {
    "a branch": lambda x: x.sum() * 2 if x.sum() > 0 else x.sum(),
    "a detached value": lambda x: (x * x.detach()).sum(),
    "a comparison": lambda x: (x * (x >= 0)).sum(),
    "a step": lambda x: (x * torch.sign(x)).sum(),
    "a square root at zero": lambda x: x.pow(2).sum().sqrt(),
    "an index": lambda x: x[x.argmax()] * 1.0,
    "a sort": lambda x: x.sort().values[0] * 1.0,
}


@pytest.mark.parametrize("name", MOVING)
def test_what_depends_on_values_is_no_fixed_analytic_program(name):
    found = explain(MOVING[name], torch.randn(4, requires_grad=True))
    assert found.theorem is None or found.theorem is Theorem.EIGHT
    if found.theorem is None:
        first = found.hypothesis(Condition.ANALYTIC), found.hypothesis(Condition.FIXED)
        assert not all(h.holds for h in first)


def test_roots_of_positive_values_are_analytic():
    found = explain(
        Net(lambda s, x: s.b * x * torch.rsqrt(s.b.pow(2).mean() + 1e-6), b=vector(1.0)), X
    )
    assert found.theorem is Theorem.ANALYTIC


def test_a_model_without_gradients_is_refused():
    with pytest.raises(InputError, match="requires a gradient"):
        explain(nn.Linear(3, 3).requires_grad_(False), X)
    with pytest.raises(InputError, match="wrt"):
        explain(nn.Linear(3, 3), X, wrt=[vector()])
