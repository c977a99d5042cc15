"""Several ties of one operator are several kinks: idle ones say nothing of the others."""

import pytest
import torch
from torch.nn.functional import relu

import clarke
from clarke.verdict import Verdict
from reference.leaves import leaf


def bits(number, count=3):
    return torch.tensor([float(number >> i & 1) for i in range(count)], dtype=torch.float64)


def test_a_limit_behind_a_masked_first_element():
    mask = torch.tensor([0.0, 1.0], dtype=torch.float64)

    def f(x, y):
        k = -0.01 * (mask * torch.where(x < 0, x, 0)).sum()
        return (relu(y) - relu(-y - k)).sum()

    # Walk to y < 0, x1 < 0, -y < -0.01 x1: both relus are off there.
    assert clarke.check(f, (leaf(0.0, 0.0), leaf(0.0))).verdict is Verdict.BOULIGAND


HALVES = {
    "where": lambda p, m: (m * torch.where(p > 0, p, 0)).sum(),
    "product": lambda p, m: (m * p * (p > 0)).sum(),
    "filled": lambda p, m: (m * p.masked_fill(p <= 0, 0.0)).sum(),
    "logical": lambda p, m: (m * torch.where(~(p < 0) & (p >= 0), p, 0)).sum(),
    "sign": lambda p, m: (m * (p.sign() * p + p)).sum() / 2,
    "relu": lambda p, m: (m * relu(p)).sum(),
    "norms": lambda p, m: (m * (p[:, None] ** 2).sum(1).sqrt()).sum(),
    "vector norms": lambda p, m: (m * torch.linalg.vector_norm(p[:, None], dim=1)).sum(),
    "sorted": lambda p, m: (m * torch.stack([p, 0 * p]).amax(0)).sum(),
    "floor": lambda p, m: (m * (p - p.floor()) * (p.floor() + 1 - p)).sum(),
}


@pytest.mark.parametrize("number", range(8))
@pytest.mark.parametrize("name", ["where", "product", "filled", "logical", "relu", "sorted"])
def test_every_element_that_counts_has_two_sides(name, number):
    mask, points = bits(number), leaf(0.0, 0.0, 0.0)
    result = clarke.subdifferential(lambda p: HALVES[name](p, mask), (points,))
    assert result.complete
    found = {tuple(row) for row in result.bouligand().reshape(-1, 3).tolist()}
    expected = {(a * mask[0].item(), b * mask[1].item(), c * mask[2].item())
                for a in (0, 1) for b in (0, 1) for c in (0, 1)}  # fmt: skip
    assert found == expected


@pytest.mark.parametrize("number", range(1, 8))
@pytest.mark.parametrize("name", HALVES)
def test_a_kink_that_counts_is_never_smooth(name, number):
    mask = bits(number)
    try:
        report = clarke.check(lambda p: HALVES[name](p, mask), (leaf(0.0, 0.0, 0.0),))
    except clarke.InputError:
        pytest.skip("infinite slopes")
    assert report.verdict is not Verdict.SMOOTH
    assert report.verdict is not Verdict.NOT_CLARKE or "norms" in name


def test_a_right_gradient_is_not_repaired():
    mask = torch.tensor([0.0, 1.0, 1.0], dtype=torch.float64)
    p = leaf(0.0, 0.0, 0.0)
    with clarke.audit(on_wrong="repair"):
        (mask * torch.where(p > 0, p, 0)).sum().backward()
    assert p.grad.tolist() == [0.0, 0.0, 0.0]
