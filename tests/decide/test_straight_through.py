"""Straight-through estimators declare a derivative, in every type and every place."""

import pytest
import torch

import clarke
from clarke import Verdict

TYPES = [torch.float64, torch.float32, torch.bfloat16]


def rounded(x):
    return x + (x.round() - x).detach()


def signs(x):
    return x + (x.sign() - x).detach()


def normed(x):
    return x / x.norm().detach()


def both(function):
    """What `check` and an audit say."""
    checked = clarke.check(function).verdict
    with clarke.audit() as watch:
        function().backward()
    return {checked, watch.steps[0].verdict}


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("size", [1, 3, 40])
@pytest.mark.parametrize("straight", [rounded, signs, normed])
def test_values_at_another_rate_are_a_surrogate(straight, size, dtype):
    torch.manual_seed(size)
    x = (torch.rand(size) * 3 + 0.6).to(dtype).requires_grad_()
    weight = torch.rand(size).to(dtype) + 0.5
    assert both(lambda: (straight(x * 1) * weight).square().sum()) == {Verdict.SURROGATE}


@pytest.mark.parametrize("seed", range(4))
def test_a_code_between_layers(seed):
    torch.manual_seed(seed)
    encoder, decoder, x = torch.nn.Linear(3, 4), torch.nn.Linear(4, 3), torch.rand(8, 3)
    loss = lambda: (decoder(rounded(encoder(x).tanh() * 3)) - x).square().mean()  # noqa: E731
    assert both(loss) == {Verdict.SURROGATE}


@pytest.mark.parametrize("share", [1.0, 1e-3, 1e-6])
@pytest.mark.parametrize("dtype", TYPES[:2])
def test_a_code_behind_layers_that_move_the_value_more(share, dtype):
    """Rays move what the detached value came from: what others do would drown it."""
    for seed in range(4):
        torch.manual_seed(seed)
        encoder, decoder = (torch.nn.Linear(3, 3).to(dtype) for _ in range(2))
        x = torch.rand(8, 3).to(dtype)

        def loss(encoder=encoder, decoder=decoder, x=x):
            return decoder(x).abs().sum() + share * rounded(encoder(x).tanh() * 3).square().sum()

        assert both(loss) == {Verdict.SURROGATE}


def test_what_was_detached_of_others_is_a_constant():
    """A target from another network, a critic's value in an actor's loss: right."""
    torch.manual_seed(0)
    one, other, x = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2), torch.rand(8, 3)
    weights = tuple(one.parameters())

    def loss():
        return (one(x).tanh() - other(x).detach().round()).square().sum()

    with clarke.audit(wrt=weights) as watch:
        loss().backward()
    assert watch.steps[0].verdict is Verdict.SMOOTH


@pytest.mark.parametrize("dtype", TYPES[:2])
@pytest.mark.parametrize("seed", range(3))
def test_what_is_detached_and_cancels_is_right(seed, dtype):
    """The usual shift by the largest entry: the value does not depend on it."""
    torch.manual_seed(seed)
    net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
    net = net.to(dtype)
    x = torch.rand(6, 4, dtype=dtype)

    def loss():
        out = net(x)
        out = out - out.amax(1, keepdim=True).detach()
        return (out.exp().sum(1).log() - out[:, 0]).mean()

    assert both(loss) <= {Verdict.SMOOTH, Verdict.BOULIGAND}
