"""clarke.grad(pick=): which element of the set comes back, at kinks and at tips of norms."""

import pytest
import torch

import clarke

F64 = torch.float64


def zeros(size, dtype=F64):
    return torch.zeros(size, dtype=dtype, requires_grad=True)


def root(x):
    return (x * x).sum().sqrt()


def test_the_smallest_element():
    x = zeros(2)
    skew = lambda x: 2 * torch.relu(x[0]) + x[0] + x[1].abs() + 0.5 * x[1]  # noqa: E731
    (found,) = clarke.grad(skew, (x,), pick="min_norm")
    assert found.tolist() == pytest.approx([1.0, 0.0], abs=1e-12)
    (smooth,) = clarke.grad(lambda x: (x * x + x).sum(), (x,), pick="min_norm")
    assert smooth.tolist() == [1.0, 1.0]


def test_random_directions_differ_from_call_to_call():
    found = {
        tuple(clarke.grad(lambda x: x.abs().sum(), zeros(6), pick="random")[0].tolist())
        for _ in range(8)
    }
    assert len(found) > 1
    assert all(abs(v) == 1 for g in found for v in g)
    same = [clarke.grad(lambda x: x.abs().sum(), zeros(6), pick="direction")[0] for _ in range(2)]
    assert torch.equal(*same)


@pytest.mark.parametrize(
    "function", [root, torch.linalg.vector_norm, lambda x: torch.relu(1 - root(x))]
)
def test_at_the_tip_of_a_norm(function):
    """Autograd gives NaN, or zero; the set is a ball."""
    (limit,) = clarke.grad(function, zeros(3))
    assert float(limit.norm()) == pytest.approx(1.0)
    (smallest,) = clarke.grad(function, zeros(3), pick="min_norm")
    assert smallest.tolist() == [0.0, 0.0, 0.0]


def test_zero_is_not_claimed_where_the_ball_does_not_hold_it():
    tilted = lambda x: root(x) + 2 * x[0]  # noqa: E731
    with pytest.raises(clarke.BudgetError):
        clarke.grad(tilted, zeros(2), pick="min_norm")
    (limit,) = clarke.grad(tilted, zeros(2))
    assert float((limit - torch.tensor([2.0, 0.0], dtype=F64)).norm()) == pytest.approx(1.0)


def test_nan_in_place_of_a_limit_from_both_sides():
    sinc = lambda x: torch.where(x == 0, torch.ones_like(x), x.sin() / x).sum()  # noqa: E731
    for pick in ("direction", "min_norm"):
        (found,) = clarke.grad(sinc, zeros(1), pick=pick)
        assert found.tolist() == pytest.approx([0.0], abs=1e-6)


def test_where_there_is_nothing_to_return_it_says_so():
    with pytest.raises(clarke.UnsupportedError, match="vouched for"):
        clarke.grad(lambda x: x.sqrt().sum(), zeros(1))
    with pytest.raises(clarke.ClarkeError):
        clarke.grad(lambda x: x.sqrt().sum(), zeros(1), pick="min_norm")
    with pytest.raises(clarke.InputError, match="pick is 'best'"):
        clarke.grad(root, zeros(1), pick="best")
