"""The exact checkers agree with plain fractions, on floats chosen to defeat rounding."""

from fractions import Fraction

import numpy as np
import pytest
import scipy.sparse
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from clarke.feasibility import (
    verify_contradiction,
    verify_membership,
    verify_separation,
    verify_witness,
)

floats = st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from(
    [0.0, 1.0, -1.0, 1e308, -1e308, 5e-324, -5e-324, 1e-160, 2.0**53 + 2, 0.1, -0.3]
)


def matrices(entries, max_rows=4):
    return st.integers(1, 4).flatmap(
        lambda n: st.tuples(
            st.lists(st.lists(entries, min_size=n, max_size=n), min_size=1, max_size=max_rows),
            st.lists(entries, min_size=n, max_size=n),
        )
    )


def dot(a, b):
    return sum((Fraction(x) * Fraction(y) for x, y in zip(a, b, strict=True)), Fraction(0))


@given(matrices(floats))
@settings(max_examples=300)
def test_witness(case):
    rows, d = case
    expected = all(dot(row, d) > 0 for row in rows)
    assert verify_witness(np.array(rows), np.array(d)) == expected
    assert verify_witness(scipy.sparse.csr_array(np.array(rows)), np.array(d)) == expected


@given(matrices(st.integers(-3, 3).map(float)), st.integers(-60, 60))
def test_witness_near_the_boundary(case, power):
    # Σ aᵢdᵢ is 0 or 2**-power beside terms of order 2**60: rounding alone would say anything.
    rows, d = case
    big = [[*row, 2.0**60, -(2.0**60), 2.0**-power] for row in rows]
    assert verify_witness(np.array(big), np.array([*d, 1.0, 1.0, 0.0])) == all(
        dot(row, d) > 0 for row in rows
    )
    nothing = np.zeros(len(d))
    assert verify_witness(np.array(big), np.r_[nothing, 1.0, 1.0, 1.0])
    assert not verify_witness(np.array(big), np.r_[nothing, 1.0, 1.0, 0.0])
    assert not verify_witness(np.array(big), np.r_[nothing, 1.0, 1.0, -1.0])


def test_repeated_entries_add_up_without_rounding():
    rows = scipy.sparse.csr_array(
        (np.array([1e16, 1.0, -1e16]), np.array([0, 0, 0]), np.array([0, 3])), shape=(1, 1)
    )
    assert verify_witness(rows, [1.0])
    assert not verify_contradiction(rows, [1])
    np.testing.assert_array_equal(rows.data, [1e16, 1.0, -1e16])


def test_flushed_subnormals_change_nothing():
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor does not flush")
    try:
        # 1e-300 - 1e-310 * 1e300 < 0, but with the subnormal entry flushed it is positive.
        assert not verify_witness([[1.0, -1e-310]], [1e-300, 1e300])
        assert verify_witness([[1.0, 1e-310]], [-1e-300, 1e300])
        assert not verify_separation([[0.0, 1e-310]], [1.0, 0.0], [1e-300, 1e300])
    finally:
        torch.set_flush_denormal(False)


@given(
    st.lists(st.lists(floats, min_size=3, max_size=3), min_size=1, max_size=4).flatmap(
        lambda rows: st.tuples(
            st.just(rows),
            st.lists(
                st.fractions(0, 9) | st.integers(-1, 9), min_size=len(rows), max_size=len(rows)
            ),
        )
    )
)
def test_contradiction(case):
    rows, y = case
    sums = [dot(column, y) for column in zip(*rows, strict=True)]
    expected = any(y) and min(y) >= 0 and not any(sums)
    assert verify_contradiction(np.array(rows), y) == expected
    # The same rows with their exact negatives do cancel.
    both = np.array([*rows, *[[-x for x in row] for row in rows]])
    weights = [abs(w) for w in y] * 2
    assert verify_contradiction(both, weights) == any(y)
    assert verify_contradiction(scipy.sparse.csr_array(both), weights) == any(y)


def test_multipliers_as_floats():
    rows = np.array([[0.1, 0.2], [-0.3, -0.6]])
    assert not verify_contradiction(rows, [3.0, 1.0])  # 3 * 0.1 != 0.3 in binary
    assert verify_contradiction(rows, [0.3, 0.1])
    assert verify_contradiction(rows, np.array([0.3, 0.1]))
    assert not verify_contradiction(rows, [np.nan, 1.0])
    assert not verify_contradiction(rows, [np.inf, np.inf])


@pytest.mark.parametrize(
    "call",
    [
        lambda: verify_witness([[1.0, np.nan]], [1.0, 1.0]),
        lambda: verify_witness([[1.0, 2.0]], [1.0]),
        lambda: verify_witness([1.0, 2.0], [1.0, 1.0]),
        lambda: verify_witness(np.array([[2**53 + 1]]), [1.0]),
        lambda: verify_witness(np.array([[1j]]), [1.0]),
        lambda: verify_contradiction([[1.0]], [1, 1]),
        lambda: verify_contradiction(scipy.sparse.csr_array([[np.inf]]), [1]),
        lambda: verify_membership([[1.0]], [1.0], [np.nan], 0.1),
        lambda: verify_membership([[1.0]], [1.0], [1.0], np.inf),
        lambda: verify_membership([[1.0]], [1.0], [1.0], -0.1),
        lambda: verify_separation([[np.nan]], [1.0], [1.0]),
    ],
)
def test_wrong_arguments(call):
    with pytest.raises(ValueError):  # noqa: PT011 - which argument is in the parameter above
        call()


# --- hulls ----------------------------------------------------------------------------------------


@given(matrices(floats), st.data())
def test_separation(case, data):
    points, target = case
    d = data.draw(st.lists(floats, min_size=len(target), max_size=len(target)), label="d")
    expected = all(dot(d, target) > dot(d, point) for point in points)
    assert verify_separation(points, target, d) == expected


dyadic = st.integers(-64, 64).map(lambda i: i / 8)


@given(matrices(dyadic), st.data())
def test_membership_of_an_exact_combination(case, data):
    points, _ = case
    parts = data.draw(
        st.lists(st.integers(0, 7), min_size=len(points), max_size=len(points)), label="parts"
    )
    parts[0] += 64 - sum(parts)  # weights in 64ths
    weights = [p / 64 for p in parts]
    target = [float(dot(column, weights)) for column in zip(*points, strict=True)]
    assert verify_membership(points, weights, target, 0.0)
    assert verify_membership(points, weights, target, 1e-12)
    used = [point for point, w in zip(points, weights, strict=True) if w]
    largest = max(abs(x) for row in [*used, target] for x in row)
    moved = [target[0] + 1.0, *target[1:]]
    allowed = 1.0 / max(largest, abs(moved[0]))
    assert verify_membership(points, weights, moved, allowed * 1.001)
    assert not verify_membership(points, weights, moved, allowed * 0.999)


def test_membership_refuses_what_is_no_convex_combination():
    points = [[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]
    assert verify_membership(points, [0.5, 0.25, 0.25], [0.25, 0.25], 0.0)
    assert not verify_membership(points, [1.5, -0.25, -0.25], [-0.25, -0.25], 0.0)
    assert not verify_membership(points, [0.0, 0.0, 0.0], [0.0, 0.0], 0.0)
    assert not verify_membership(points, [0.6, 0.25, 0.25], [0.25, 0.25], 0.0)
    assert not verify_membership(points, [np.nan, 0.5, 0.5], [0.5, 0.5], 1.0)
    assert not verify_membership(np.zeros((0, 2)), [], [0.0, 0.0], 1.0)
    # Weights that sum to 1 only up to rounding are normalised exactly.
    assert verify_membership([[3.0]] * 10, [0.1] * 10, [3.0], 0.0)


def test_membership_far_from_one():
    points = np.array([[1e300, 2 * 2.0**-999], [-1e300, 6 * 2.0**-999]])
    assert verify_membership(points, [0.5, 0.5], [0.0, 4 * 2.0**-999], 0.0)
    assert not verify_membership(points, [0.5, 0.5], [0.0, 5 * 2.0**-999], 0.0)
    assert verify_membership(points, [0.5, 0.5], [0.0, 5 * 2.0**-999], 1e-9)
