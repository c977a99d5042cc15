"""Full column rank: certificates hold, and are not given where the rank is deficient."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clarke.theorems import FullRank, full_column_rank


def rank(rows):
    """Exact rank by elimination in rationals."""
    rows = [[Fraction(v) for v in row] for row in rows]
    found = 0
    for column in range(len(rows[0]) if rows else 0):
        pivot = next((i for i in range(found, len(rows)) if rows[i][column]), None)
        if pivot is None:
            continue
        rows[found], rows[pivot] = rows[pivot], rows[found]
        for i in range(found + 1, len(rows)):
            factor = rows[i][column] / rows[found][column]
            rows[i] = [a - factor * b for a, b in zip(rows[i], rows[found], strict=True)]
        found += 1
    return found


@st.composite
def matrices(draw):
    m, n = draw(st.integers(1, 6)), draw(st.integers(1, 5))
    return [[float(draw(st.integers(-2, 2))) for _ in range(n)] for _ in range(m)]


@given(matrices())
def test_small_matrices_are_decided_exactly(rows):
    certificate = full_column_rank(rows)
    assert (certificate is not None) == (rank(rows) == len(rows[0]))
    if certificate is not None:
        assert certificate.verify(rows)


def test_large_matrices_and_bad_scales():
    generator = np.random.default_rng(0)
    x = generator.normal(size=(256, 128)) * np.logspace(-6, 6, 128)
    certificate = full_column_rank(x)
    assert certificate is not None
    assert certificate.inverse is not None
    assert certificate.verify(x)
    x[:, 5] = x[:, 6]
    assert full_column_rank(x) is None
    assert not certificate.verify(x)


def test_nearly_equal_columns():
    x = np.ones((3, 2))
    x[0, 1] += 2.0**-52
    certificate = full_column_rank(x)
    assert certificate is not None
    assert certificate.verify(x)


@pytest.mark.parametrize(
    "certificate",
    [
        FullRank(np.array([0, 0]), np.eye(2)),
        FullRank(np.array([0, 1]), np.zeros((2, 2))),
        FullRank(np.array([0, 1]), np.eye(3)),
        FullRank(np.array([0]), None),
    ],
)
def test_false_certificates_are_refused(certificate):
    assert not certificate.verify(np.eye(2))
    assert not certificate.sealed(np.eye(2)).verify(np.eye(2))


def test_a_singular_matrix_is_refused_whatever_the_inverse():
    singular = np.array([[1.0, 2.0], [2.0, 4.0]])
    assert not FullRank(np.array([0, 1]), None).verify(singular)
    assert not FullRank(np.array([0, 1]), np.array([[1e8, -5e7], [-5e7, 3e7]])).verify(singular)
    assert full_column_rank(np.array([[np.nan], [1.0]])) is None
    assert full_column_rank(np.zeros((3, 1))) is None
