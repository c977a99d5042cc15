"""The finders one by one: each does what its docstring says, so that the ladder has rungs."""

from fractions import Fraction

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given
from hypothesis import strategies as st

from clarke.feasibility.hinge import _step_length, squared_hinge
from clarke.feasibility.margin_lp import largest_margin
from clarke.feasibility.nearest import from_gram, nearest_candidates, weights_of_nearest
from clarke.feasibility.outcome import Budget
from clarke.feasibility.parallel import merge_parallel
from clarke.feasibility.rational import as_floats, coprime, exact_multipliers
from clarke.feasibility.system import build, components, load

small = st.integers(-4, 4).map(float)
pairs = st.lists(st.tuples(small, small), min_size=1, max_size=8)


@given(pairs)
def test_step_length_minimises_exactly(case):
    slack, change = np.array(case).T

    def value(t):
        return float((np.maximum(slack - t * change, 0.0) ** 2).sum())

    step = _step_length(slack, change)
    violated = np.maximum(slack, 0.0)
    assert (step > 0) == (violated @ change > 0)  # exactly when the direction descends
    grid = np.linspace(0.0, 20.0, 4001)
    assert value(step) <= min(value(t) for t in grid) + 1e-9


def unit(rows):
    return scipy.sparse.csr_array(rows / np.linalg.norm(rows, axis=1)[:, None])


def test_hinge_ends_at_a_witness_or_at_a_contradiction():
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((200, 20))
    infeasible = squared_hinge(unit(rows), np.zeros(20), 1e-9, 100, Budget())
    y = infeasible.multipliers
    assert not infeasible.solved
    assert (y >= 0).all()
    assert np.linalg.norm(unit(rows).T @ y) <= 1e-8 * np.linalg.norm(y)
    rows *= np.sign(rows @ rng.standard_normal(20))[:, None]
    feasible = squared_hinge(unit(rows), np.zeros(20), 1e-9, 100, Budget())
    assert feasible.solved
    assert (unit(rows) @ feasible.direction > 0).all()


def test_linear_program_gives_both_sides():
    u, _ = largest_margin(np.array([[1.0, 1.0], [1.0, -1.0]]))
    assert u == pytest.approx([1.0, 0.0])
    _, y = largest_margin(np.array([[1.0, 2.0], [-2.0, -4.0], [0.0, 1.0]]))
    assert y[:2] / y[1] == pytest.approx([2.0, 1.0])
    assert y[2] == pytest.approx(0.0)


def test_exact_multipliers():
    block = np.array([[0.5, 0.25], [-0.75, 0.5], [0.25, -0.875]])
    approximate = weights_of_nearest(block)
    y = exact_multipliers(block, approximate)
    for column in block.T.tolist():
        assert sum(w * Fraction(a) for w, a in zip(y, column, strict=True)) == 0
    assert coprime(y) == [17, 16, 14]
    assert exact_multipliers(np.eye(2), np.ones(2)) is None  # independent
    assert exact_multipliers(np.array([[1.0], [2.0]]), np.ones(2)) is None  # wrong sign
    # Two independent relations at once: the free multipliers are taken from the weights.
    square = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    assert coprime(exact_multipliers(square, np.full(4, 0.25))) == [1, 1, 1, 1]


def test_integers_and_floats():
    assert coprime([Fraction(1, 6), Fraction(1, 4)]) == [2, 3]
    np.testing.assert_array_equal(as_floats([3, 2**53 - 1]), [3.0, 2.0**53 - 1])
    np.testing.assert_array_equal(as_floats([2**2000, 2**1999, 0]), [1.0, 0.5, 0.0])


def test_parallel_and_opposite_rows():
    rows = np.array([[1, 3], [3, 7], [2, 6], [-3, -7], [9, 21], [1, 0]])
    kept, opposite = merge_parallel(build(load(rows)[0])[0])
    assert len(kept) == 4
    assert [len({0, 2} & set(kept)), len({1, 4} & set(kept)), 3 in kept, 5 in kept] == [1] * 4
    assert len(opposite) == 1
    assert set(opposite[0]) in ({1, 3}, {4, 3})


def test_components():
    rows = scipy.sparse.csr_array(
        np.array([[1, 0, 0, 0, 2.0], [0, 1, 0, 0, 0], [0, 1, 1, 0, 0], [0, 0, 0, 0, 3]])
    )
    assert components(build(rows)[0]).tolist() in ([0, 1, 1, 0], [1, 0, 0, 1])


@pytest.mark.parametrize("rank", [3, 50])
def test_gram_and_direct_coordinates_agree(rank):
    rng = np.random.default_rng(rank)
    narrow = rng.standard_normal((60, rank)) + 0.3
    embedding = np.linalg.qr(rng.standard_normal((5000, rank)))[0].T
    lengths = [
        np.linalg.norm(next(iter(nearest_candidates(points, np.zeros(points.shape[1])))) @ points)
        for points in (narrow, narrow @ embedding)
    ]
    assert lengths[1] == pytest.approx(lengths[0], abs=1e-12)
    gram = narrow @ narrow.T
    found = from_gram(gram)
    np.testing.assert_allclose(found @ found.T, gram, atol=1e-10 * np.abs(gram).max())
