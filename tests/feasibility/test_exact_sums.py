"""Sums that floating point computes without rounding are told apart from those that it rounds."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clarke.deadline import Deadline
from clarke.errors import OutOfTimeError
from clarke.feasibility import exact_hull, verify_membership
from clarke.feasibility.exact_hull import _sums_exactly

WEIGHTS = [(1.0,), (0.5, 0.5), (0.25, 0.75), (0.125, 0.5, 0.375), (1 / 3, 2 / 3)]
numbers = st.sampled_from(
    [0.0, -0.0, 1.0, -1.0, 3.0, 0.1, 1e-300, 5e-324, 2.3e-308, 2.0**53, 2.0**-30, 1e300, -7.0]
) | st.integers(-9, 9).map(float)


@given(st.data(), st.sampled_from(WEIGHTS))
@settings(max_examples=400)
def test_what_is_called_exact_is_exact(data, weights):
    columns = data.draw(st.integers(1, 4))
    line = st.lists(numbers, min_size=columns, max_size=columns)
    block = np.array([data.draw(line) for _ in weights])
    target = data.draw(line | st.just((np.array(weights) @ block).tolist()))
    part = np.array(target)
    told = _sums_exactly(np.array(weights), block, part)
    for j in np.flatnonzero(told):
        found = (np.array(weights) @ block)[j] - part[j]
        right = sum(Fraction(w) * Fraction(float(v)) for w, v in zip(weights, block[:, j]))  # noqa: B905
        assert (found == 0) == (right == Fraction(float(part[j])))
    exact = all(
        sum(Fraction(w) * Fraction(float(v)) for w, v in zip(weights, block[:, j]))  # noqa: B905
        == sum(map(Fraction, weights)) * Fraction(float(part[j]))
        for j in range(columns)
    )
    total = sum(map(Fraction, weights))
    near = abs(total - 1) <= Fraction(len(weights), 2**52)
    none = np.zeros(columns)
    assert verify_membership(block, weights, part, allowed=none) == (exact and near)


@pytest.mark.parametrize("weights", [(1.0,), (0.5, 0.5), (0.25, 0.25, 0.5)])
def test_gradients_of_small_numbers_need_no_fractions(weights, monkeypatch):
    block = np.random.default_rng(0).integers(-9, 10, size=(len(weights), 300_000)).astype(float)
    target = np.array(weights) @ block
    made = []
    monkeypatch.setattr(exact_hull, "Fraction", lambda *x: made.append(x) or Fraction(*x))
    assert verify_membership(block, weights, target, allowed=np.zeros(300_000))
    assert len(made) < 20
    target[17] += 0.125
    assert not verify_membership(block, weights, target, allowed=np.zeros(300_000))


def test_exact_arithmetic_asks_the_deadline():
    block = np.random.default_rng(0).normal(size=(3, 100_000))
    weights = (0.2, 0.3, 0.5)
    target, room = np.array(weights) @ block, np.full(100_000, 1e-18)
    clock = iter(range(10**6))
    with pytest.raises(OutOfTimeError, match="adding up 100000 entries exactly"):
        verify_membership(
            block, weights, target, allowed=room, deadline=Deadline(3.0, 1.0, lambda: next(clock))
        )
