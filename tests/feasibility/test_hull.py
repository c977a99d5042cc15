"""Nearest points, membership and separation against exact answers."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from clarke.feasibility import (
    convex_weights,
    minimum_norm_point,
    separating_direction,
    verify_membership,
    verify_separation,
)
from reference.hull import contains

clouds = st.integers(1, 4).flatmap(
    lambda n: st.tuples(
        st.lists(st.lists(st.integers(-5, 5), min_size=n, max_size=n), min_size=1, max_size=8),
        st.lists(st.integers(-5, 5) | st.sampled_from([0.5, 0.25]), min_size=n, max_size=n),
    )
)


@given(clouds)
@settings(max_examples=300)
def test_exactly_one_certificate_exists(case):
    points, target = case
    inside = contains(points, target)
    weights = convex_weights(points, target)
    separation = separating_direction(points, target)
    assert (weights is not None) == inside
    assert (separation is not None) == (not inside)
    if weights is not None:
        assert verify_membership(points, weights, target, 1e-9)
        assert np.count_nonzero(weights) <= len(target) + 1
    if separation is not None:
        assert verify_separation(points, target, separation.direction)
        assert 0 < separation.gap <= separation.distance * (1 + 1e-12)
        assert separation.gap == pytest.approx(separation.distance, rel=1e-6)
        assert np.linalg.norm(separation.direction) == pytest.approx(1.0)


@given(clouds, st.integers(-900, 900))
@settings(max_examples=60)
def test_scale_does_not_matter(case, power):
    points, target = np.ldexp(np.array(case[0], float), power), np.ldexp(case[1], power)
    inside = contains(case[0], case[1])
    assert (convex_weights(points, target) is not None) == inside
    separation = separating_direction(points, target)
    assert (separation is not None) == (not inside)
    if separation is not None:
        plain = separating_direction(*case)
        assert np.ldexp(separation.distance, -power) == pytest.approx(plain.distance)


@given(clouds)
@settings(max_examples=100)
def test_minimum_norm_point_is_optimal(case):
    points = np.array(case[0], dtype=float)
    weights = minimum_norm_point(points)
    assert weights.shape == (len(points),)
    assert (weights >= 0).all()
    assert weights.sum() == pytest.approx(1.0)
    x = points.T @ weights
    # Wolfe (1976): x is nearest to zero when <x, p> >= <x, x> for every point.
    assert (points @ x).min() >= x @ x - 1e-9
    if contains(case[0], [0] * points.shape[1]):
        assert np.linalg.norm(x) < 1e-12 * max(1.0, np.abs(points).max())


anything = st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from(
    [0.0, 1.0, 1e308, -1e308, 5e-324, -5e-324, 1e-160, 1e160]
)
pairs = st.lists(anything, min_size=2, max_size=2)


@given(st.lists(pairs, min_size=1, max_size=5), pairs)
@settings(max_examples=200)
@example(
    [[11.0, 1.7976931348623157e308], [0.0, 1.7976931348623157e308]], [0.0, 1.7976931348623157e308]
)
def test_extreme_magnitudes_do_not_crash_or_lie(points, target):
    weights = convex_weights(points, target)
    separation = separating_direction(points, target)
    assert weights is None or verify_membership(points, weights, target, 1e-9)
    assert separation is None or verify_separation(points, target, separation.direction)
    assert minimum_norm_point(points).sum() == pytest.approx(1.0)


def test_segment():
    separation = separating_direction([[2.0, 1.0], [2.0, -1.0]], [5.0, 0.0])
    np.testing.assert_allclose(separation.direction, [1.0, 0.0], atol=1e-15)
    assert separation.gap == pytest.approx(3.0)
    assert separation.distance == pytest.approx(3.0)
    np.testing.assert_allclose(minimum_norm_point([[2.0, 1.0], [2.0, -1.0]]), [0.5, 0.5])


def test_rounding_is_no_separation():
    points = np.array([[0.1, 0.7], [0.3, 0.2]])
    middle = points.mean(axis=0)
    middle[0] = np.nextafter(middle[0], 1.0)
    assert separating_direction(points, middle) is None
    assert convex_weights(points, middle) is not None
    outside = np.array([middle[0] + 1e-6, middle[1]])
    assert convex_weights(points, outside) is None
    assert separating_direction(points, outside) is not None


@pytest.mark.parametrize("n", [500, 20_000])
@pytest.mark.parametrize("rank", [4, 40])
def test_many_dimensions(n, rank):
    """A zonotope's vertices: affinely dependent, as gradients under kinks are."""
    rng = np.random.default_rng(rank)
    signs = np.sign(rng.standard_normal((120, rank)))
    points = signs @ rng.standard_normal((rank, n)) + rng.standard_normal(n)
    weights = rng.dirichlet(np.full(120, 0.1))
    target = weights @ points
    found = convex_weights(points, target)
    assert found is not None
    assert verify_membership(points, found, target, 1e-9)
    away = rng.standard_normal(n)
    away *= 1e-3 / np.linalg.norm(away)
    separation = separating_direction(points, target + away)
    assert convex_weights(points, target + away, tolerance=1e-7) is None
    assert verify_separation(points, target + away, separation.direction)
    assert separation.gap == pytest.approx(separation.distance, rel=1e-3)
    assert separation.distance == pytest.approx(1e-3, rel=0.1)


def test_many_points():
    rng = np.random.default_rng(0)
    points = rng.standard_normal((10_000, 6))
    target = rng.standard_normal(6) * 0.1
    weights = convex_weights(points, target)
    assert np.count_nonzero(weights) <= 7
    far = np.full(6, 4.0)
    assert convex_weights(points, far) is None
    assert separating_direction(points, far).distance > 1.0


@pytest.mark.parametrize(
    "call",
    [
        lambda: minimum_norm_point(np.zeros((0, 2))),
        lambda: minimum_norm_point([[np.nan]]),
        lambda: minimum_norm_point([1.0]),
        lambda: convex_weights([[1.0]], [1.0, 2.0]),
        lambda: convex_weights([[1.0]], [np.inf]),
        lambda: separating_direction([[1.0]], [np.nan]),
    ],
)
def test_wrong_arguments(call):
    with pytest.raises(ValueError, match="must"):
        call()


def test_points_without_dimensions():
    assert convex_weights(np.zeros((2, 0)), np.zeros(0)) is not None
    assert separating_direction(np.zeros((2, 0)), np.zeros(0)) is None
