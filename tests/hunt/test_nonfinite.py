"""NaN and infinity are finds of their own kind, with what to write instead."""

import pytest
import torch
from torch.nn import functional as F  # noqa: N812 - as users write it

import clarke

F64 = torch.float64


def cosine_distance(a, b):
    return (1 - (a * b).sum(-1) / (a.norm(dim=-1) * b.norm(dim=-1))).sum()


def example(*shapes):
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randn(s, generator=generator, dtype=F64).requires_grad_() for s in shapes)


def hunted(function, *shapes):
    return clarke.hunt(function, example(*shapes), seconds=None)


def unit(x):
    return (x / x.norm(dim=-1, keepdim=True)).sum()


def test_a_quotient_of_zeros():
    found = hunted(unit, (1, 2))
    assert not found  # autograd is not to blame: the function has no value there
    (first,) = found.nonfinite
    assert not first.inputs[0].any()
    assert "denominator" in first.report.cures[0]
    text = str(found)
    assert "Found no wrong gradient at " in text
    assert "NaN or infinity at 1 place. " in text
    line = unit.__code__.co_firstlineno + 1
    told = f"\nNaN or infinity: div at test_nonfinite.py:{line}, with the inputs [[0, 0]]\n"
    assert told + "  instead   Keep the denominator away from 0" in text
    assert found.to_dict()["nonfinite"][0]["report"]["cures"]


@pytest.mark.slow
def test_the_cosine_of_nothing():
    found = hunted(cosine_distance, (1, 2), (1, 2))
    assert not found
    first = found.nonfinite[0]
    assert not all(x.any() for x in first.inputs)
    assert "denominator" in first.report.cures[0]


@pytest.mark.parametrize(
    ("function", "cure"),
    [
        (lambda p: (p * torch.log(p)).sum(), "torch.log(x.clamp_min(eps))"),
        (lambda x: torch.acos(x.clamp(-1, 1)).sum(), "torch.acos(x.clamp(-1 + eps, 1 - eps))"),
        (lambda x: (x.abs() ** 0.5).sum(), "x.clamp_min(eps) ** p"),
    ],
    ids=["p log p", "acos", "pow"],
)
def test_a_place_without_a_gradient(function, cure):
    found = hunted(function, (2,))
    assert not found
    (hole,) = found.nonfinite
    assert hole.inputs[0].numel() == 1
    assert abs(hole.inputs[0].item()) in (0, 1)
    assert cure in hole.report.cures[0]


@pytest.mark.slow
def test_what_is_finite_is_no_find():
    found = hunted(lambda a, b: F.cosine_similarity(a, b, dim=-1).sum(), (1, 2), (1, 2))
    assert not found
    assert not found.nonfinite


def test_what_is_outside_of_a_domain_is_no_place():
    # Below 3 it is NaN everywhere.
    found = hunted(lambda x: torch.log(x - 3).sum() + torch.relu(x).sum(), (1,))
    assert [f.inputs[0].item() for f in found.nonfinite] == [3]


@pytest.mark.slow
def test_what_overflows_at_ordinary_numbers_is_told():
    found = hunted(lambda x: torch.log(torch.exp(x).sum()), (2,))
    assert not found
    assert "logsumexp" in str(found)
    assert found.extreme


@pytest.mark.slow
def test_both_faults_of_an_overlap_in_one_round():
    """Equal boxes and boxes without area: a wrong gradient, and 0/0."""

    def loss(a, b):
        low, high = torch.maximum(a[:, :2], b[:, :2]), torch.minimum(a[:, 2:], b[:, 2:])
        inner = (high - low).clamp(min=0).prod(1)
        area = [(x[:, 2:] - x[:, :2]).prod(1) for x in (a, b)]
        apart = ((a[:, :2] - b[:, :2]) ** 2).sum(1).sqrt()
        return (1 - inner / (area[0] + area[1] - inner) + apart).sum()

    found = hunted(loss, (1, 4), (1, 4))
    assert "sqrt" in str(found)
    assert found
    assert "div" in [f.report.culprits[0].operation for f in found.nonfinite]
