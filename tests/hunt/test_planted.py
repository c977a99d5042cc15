"""Random programs, with a fault planted on a kink of codimension 1 or 2, or with none."""

import os
import random

import pytest
import torch

import clarke

F64 = torch.float64
COUNT = int(os.environ.get("CLARKE_FUZZ", "6"))


def affine(rng, x, y):
    """Small whole numbers and halves, as in people's programs; y moves, too."""
    total = rng.randint(-3, 3) / 2
    for v in (x, y):
        for i in range(len(v)):
            total = total + rng.choice((-2, -1, 0, 1, 2)) * v[i]
    return total + rng.choice((1, 2)) * x[rng.randrange(len(x))]


def right(rng, x, y):
    """Kinks at which autograd is right: convex ones, and smooth ones inside of others."""
    kinds = (
        lambda a, b: torch.relu(a) + torch.relu(b),
        torch.maximum,
        lambda a, b: a.abs() + 0.5 * b * b,
        lambda a, b: torch.nn.functional.leaky_relu(a, 0.25) + torch.tanh(b),
        lambda a, b: torch.relu(torch.tanh(a) + 2),
    )
    return rng.choice(kinds)(affine(rng, x, y), affine(rng, x, y))


def planted(rng, x, y, codimension):
    a = affine(rng, x, y)
    if codimension == 1:
        return torch.relu(a) - torch.relu(-a)
    # The median of (a, b, 0) by a sum: at ties of two autograd is right, at those of three wrong.
    t = torch.stack([a, affine(rng, x, y), torch.zeros((), dtype=F64)])
    return t.sum() - t.max(0).values - t.min(0).values


def program(seed, codimension):
    def function(x, y):
        rng = random.Random(seed)  # noqa: S311 - no secret
        total = right(rng, x, y) if codimension != 0 else right(rng, x, y) + right(rng, x, y)
        return total + (planted(rng, x, y, codimension) if codimension else 0)

    return function


def example(seed):
    generator = torch.Generator().manual_seed(seed)
    x, y = (torch.randn(n, generator=generator, dtype=F64) for n in (3, 2))
    return x.requires_grad_(), y


@pytest.mark.fuzz
@pytest.mark.parametrize(("codimension", "share"), [(1, 0.9), (2, 0.6)])
def test_planted_faults_are_found(codimension, share):
    found = [
        bool(clarke.hunt(program(seed, codimension), example(seed), seconds=None))
        for seed in range(COUNT)
    ]
    print(f"codimension {codimension}: {sum(found)} of {COUNT} found")  # noqa: T201 - the figure
    assert sum(found) >= share * COUNT


@pytest.mark.fuzz
def test_nothing_is_found_where_nothing_is_planted():
    for seed in range(COUNT):
        found = clarke.hunt(program(seed, 0), example(seed), seconds=None)
        assert not found, f"seed {seed}\n{found}"


@pytest.mark.slow
def test_one_planted_fault_of_each_kind():
    for codimension in (1, 2):
        assert clarke.hunt(program(0, codimension), example(0), seconds=None), codimension
