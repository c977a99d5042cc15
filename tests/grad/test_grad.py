"""clarke.grad: always a limiting gradient, like torch.autograd.grad in all else."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

import clarke
from reference.leaves import zeros


def test_lemma_2_and_its_derivative():
    (g,) = clarke.grad(lambda x: (F.relu(x) - F.relu(-x)).sum(), (zeros(3),))
    assert g.tolist() == [1, 1, 1]


def test_the_generator_chooses_and_repeats():
    def taken(seed):
        generator = torch.Generator().manual_seed(seed)
        return tuple(
            clarke.grad(lambda x: x.abs().sum(), (zeros(4),), generator=generator)[0].tolist()
        )

    assert taken(3) == taken(3)
    assert len({taken(seed) for seed in range(8)}) > 3
    default = clarke.grad(lambda x: x.abs().sum(), (zeros(4),))[0]
    assert torch.equal(default, clarke.grad(lambda x: x.abs().sum(), (zeros(4),))[0])


def test_away_from_kinks_it_is_autograd():
    model = nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 1))
    x = torch.randn(4, 5)
    expected = torch.autograd.grad(model(x).sum(), list(model.parameters()))
    for a, b in zip(clarke.grad(lambda: model(x).sum()), expected, strict=True):
        assert torch.equal(a, b)


def test_the_users_world_is_left_alone():
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.ReLU(), nn.Dropout(0.5))
    x = torch.ones(4, 3)
    state = torch.get_rng_state()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    clarke.grad(lambda: model(x).sum())
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


def network(batch=6):
    """A convolutional network on an image with equal patches and a zero border."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 4, 3, padding=1, bias=False),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(16, 1),
    )
    images = torch.randint(0, 2, (batch, 1, 8, 8)).float()
    with torch.no_grad():
        model[0].bias.zero_()
        model[0].weight.copy_(torch.randint(-1, 2, model[0].weight.shape).float())
        model[3].weight.copy_(torch.randint(-1, 2, model[3].weight.shape).float())
    return model, images


@pytest.mark.slow
def test_a_network_with_many_ties_agrees_with_its_neighbourhood():
    """Along the direction that chose the pieces, autograd's own gradients tend to the answer."""
    model, images = network()
    model, images = model.double(), images.double()
    parameters = list(model.parameters())
    report = clarke.check(lambda: model(images).sum())
    assert report.touched > 100
    generator = torch.Generator().manual_seed(5)
    direction = [torch.randn(p.shape, dtype=p.dtype, generator=generator) for p in parameters]
    taken = clarke.grad(lambda: model(images).sum(), generator=torch.Generator().manual_seed(5))
    kept = [p.detach().clone() for p in parameters]
    with torch.no_grad():
        for p, d in zip(parameters, direction, strict=True):
            p.add_(1e-9 * d)
    beside = torch.autograd.grad(model(images).sum(), parameters)
    with torch.no_grad():
        for p, k in zip(parameters, kept, strict=True):
            p.copy_(k)
    for a, b in zip(taken, beside, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)


def test_the_inner_product_is_the_directional_derivative():
    A = torch.randint(-2, 3, (12, 4)).double()

    def program(x):
        return (A @ x).abs().sum() + torch.stack([x[0], x[1], 2 * x[2]]).amax()

    x = zeros(4)
    found = clarke.subdifferential(program, (x,))
    for seed in range(4):
        d = torch.randn(4, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        (g,) = clarke.grad(program, (x,), generator=torch.Generator().manual_seed(seed))
        assert float(g @ d) == pytest.approx(float(program(d)))
        assert found.contains(g)


def test_what_cannot_be_vouched_for_is_refused():
    with pytest.raises(clarke.UnsupportedError, match="sqrt"):
        clarke.grad(lambda x: torch.sqrt(x).sum(), (zeros(1),))
    with pytest.raises(clarke.UnsupportedError, match="round"):
        clarke.grad(
            lambda x: (torch.round(x) * x).sum(), (torch.full((1,), 0.5, requires_grad=True),)
        )
    with pytest.raises(clarke.InputError):
        clarke.grad(lambda x: x.abs(), (zeros(2),))


def test_float32_and_shared_modules_and_in_place():
    layer = nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.eye(2))
    x = zeros(1, 2, dtype=torch.float32)
    (g,) = clarke.grad(lambda x: layer(layer(x).relu_()).relu_().sum(), (x,), wrt=[x])
    assert g.dtype == torch.float32
    assert set(g.reshape(-1).tolist()) <= {0.0, 1.0}
