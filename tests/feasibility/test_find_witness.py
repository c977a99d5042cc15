"""Every answer is right, proved, and never missing where exact arithmetic can decide."""

from fractions import Fraction

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st

from clarke.feasibility import (
    Budget,
    Feasibility,
    Method,
    Outcome,
    find_witness,
    verify_contradiction,
    verify_witness,
)
from reference.hull import strict_direction


def check(rows, result: Feasibility) -> None:
    """The invariants of any answer."""
    dense = rows.toarray() if scipy.sparse.issparse(rows) else np.asarray(rows, dtype=float)
    m, n = dense.shape
    if result.outcome is Outcome.WITNESS:
        assert result.direction is not None
        assert result.direction.shape == (n,)
        assert result.direction.dtype == np.float64
        assert result.multipliers is None
        assert result.exact_multipliers is None
        assert verify_witness(rows, result.direction)
        for row in dense.tolist():
            pairs = zip(row, result.direction.tolist(), strict=True)
            assert sum((Fraction(a) * Fraction(d) for a, d in pairs), Fraction(0)) > 0
        if m:
            assert 1 <= np.abs(result.direction).max() < 2
            scaled = np.ldexp(dense, -np.frexp(np.abs(dense).max(axis=1))[1][:, None])
            margins = scaled @ result.direction / np.linalg.norm(scaled, axis=1)
            expected = margins.min() / np.linalg.norm(result.direction)
            assert result.margin == pytest.approx(expected, rel=1e-6, abs=1e-15)
    if result.outcome is Outcome.CONTRADICTION:
        assert result.direction is None
        assert result.multipliers is not None
        assert result.multipliers.shape == (m,)
        y = result.exact_multipliers
        assert y is not None
        assert verify_contradiction(rows, y)
        assert min(y) >= 0
        assert max(y) > 0
        for column in dense.T.tolist():
            assert sum(w * Fraction(a) for w, a in zip(y, column, strict=True)) == 0
    if result.outcome is Outcome.INCONCLUSIVE:
        assert result.direction is None
        assert result.exact_multipliers is None
        assert result.methods == ()
    else:
        assert result.methods


def forms(rows):
    """The rows as given and in every form that takes another path."""
    dense = np.asarray(rows, dtype=float)
    wide = scipy.sparse.csr_array(dense)
    # Spread over many columns, so that the sparse methods run.
    spread = scipy.sparse.csr_array(
        (wide.data, wide.indices * 70_001, wide.indptr), shape=(len(dense), dense.shape[1] * 70_001)
    )
    return [dense, wide, spread]


# --- known cases ----------------------------------------------------------------------------------

FEASIBLE = {
    "one row": [[3.0, -1.0]],
    "independent": [[1, 2, 0], [1, -1, 0], [0, 1, 5]],
    "duplicate rows": [[1, 2], [1, 2], [2, 4], [-1, -1.5]],
    "bias column": [[5, -3, 1], [-5, 3, 1], [0, -2, 1]],
    "dominated chain": [[1, -9, 9], [0, 1, -9], [0, 0, 1], [2, 5, -7]],
    "a cone": [[1, 1], [1, -0.999], [3, 0]],
    "more rows than columns": [[1, 0, 1], [-1, 0, 1], [0, 1, 1], [0, -1, 1], [1, 1, 1.5]],
}
INFEASIBLE = {
    "the paper's shortcut": [[1, 2], [-1, -2]],
    "opposite, scaled": [[1, 2], [-3, -6]],
    "triangle": [[1, 0], [0, 1], [-1, -1]],
    "zero row": [[1, 2], [0, 0]],
    "no columns": [[], []],
    "behind a pure column": [[1, 4, 0], [0, 1, 2], [0, -1, -2]],
    "two cycles": [[1, -1, 0], [0, 1, -1], [-1, 0, 1], [-2, 0, 2]],
}


@pytest.mark.parametrize("name", FEASIBLE)
def test_feasible(name):
    for rows in forms(FEASIBLE[name]):
        result = find_witness(rows)
        assert result.outcome is Outcome.WITNESS
        check(rows, result) if rows.shape[1] < 1000 else None
        assert verify_witness(rows, result.direction)


@pytest.mark.parametrize("name", INFEASIBLE)
def test_infeasible(name):
    for rows in forms(INFEASIBLE[name]):
        result = find_witness(rows)
        assert result.outcome is Outcome.CONTRADICTION
        check(rows, result) if rows.shape[1] < 1000 else None
        assert verify_contradiction(rows, result.exact_multipliers)


def test_rows_that_cancel_only_in_decimals_prove_nothing():
    rows = [[0.1, 0.2, 0.3], [0.7, -0.1, 0.0], [-0.8, -0.1, -0.3]]
    assert strict_direction(rows, 3) is not None  # as floats, by 1e-17
    result = find_witness(rows)
    assert result.outcome is Outcome.INCONCLUSIVE
    np.testing.assert_allclose(result.multipliers / result.multipliers[0], 1.0)


def test_the_paper_shortcut_is_refuted_in_every_form():
    for rows in forms([[1, 2], [-1, -2]]):
        result = find_witness(rows)
        assert result.outcome is Outcome.CONTRADICTION
        assert result.exact_multipliers == (1, 1)
        np.testing.assert_array_equal(result.multipliers, [1.0, 1.0])


def test_no_rows():
    for rows in (np.zeros((0, 3)), scipy.sparse.csr_array((0, 3))):
        result = find_witness(rows)
        assert result.outcome is Outcome.WITNESS
        assert result.methods == (Method.EMPTY,)
        assert result.direction.shape == (3,)


@pytest.mark.parametrize(
    ("rows", "method"),
    [
        ([[1, 2]], Method.SINGLE_ROW),
        ([[1, 2], [2, 1]], Method.PURE_COLUMNS),
        ([[1, 2, -1], [-1, 1, 1], [1, -1, 1]], Method.INDEPENDENT_ROWS),
        ([[1, 2], [-1, 1], [-0.5, 5], [1, -0.5]], Method.MIN_NORM_POINT),
        ([[0, 0]], Method.ZERO_ROW),
    ],
)
def test_method(rows, method):
    assert find_witness(rows).methods[0] is method


def test_a_margin_that_rounding_could_make_is_no_witness():
    rows = [[1.0, 1e-12], [-1.0, 1e-12]]
    result = find_witness(rows)
    check(rows, result)
    assert result.outcome is Outcome.INCONCLUSIVE
    assert result.margin == pytest.approx(1e-12)
    assert result.multipliers is not None
    loose = find_witness(rows, margin=0.0)
    assert loose.outcome is Outcome.WITNESS
    check(rows, loose)


@pytest.mark.parametrize("gap", [1e-3, 1e-5, 1e-7, 3e-9])
def test_small_margins_are_found(gap):
    # No pure column: rotate the plane in which the margin is the gap.
    c, s = 0.6, 0.8
    rows = np.array([[1.0, gap], [-1.0, gap], [0.5, 3 * gap]]) @ np.array([[c, s], [-s, c]])
    result = find_witness(rows)
    assert result.outcome is Outcome.WITNESS
    assert result.margin == pytest.approx(gap, rel=0.01)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_non_finite_rows_are_refused(bad):
    for rows in ([[1.0, bad]], scipy.sparse.csr_array([[1.0, bad]])):
        with pytest.raises(ValueError, match="finite"):
            find_witness(rows)


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="shape"):
        find_witness([1.0, 2.0])
    with pytest.raises(ValueError, match="margin"):
        find_witness([[1.0]], margin=1.0)
    with pytest.raises(TypeError, match="real"):
        find_witness(np.array([[1j]]))
    with pytest.raises(ValueError, match="float64"):
        find_witness(np.array([[2**53 + 1]]))
    with pytest.raises(ValueError, match=r"Budget\.rounds"):
        Budget(rounds=0)


@pytest.mark.parametrize("dtype", [bool, np.int8, np.int64, np.float16, np.float32])
def test_other_dtypes(dtype):
    rows = np.array([[1, 0], [1, 1]], dtype=dtype)
    assert find_witness(rows).outcome is Outcome.WITNESS
    if dtype is not np.float16:  # SciPy has no such sparse arrays
        assert find_witness(scipy.sparse.coo_array(rows)).outcome is Outcome.WITNESS


def test_repeated_sparse_entries_add_up_and_the_input_is_left_alone():
    data, indices, indptr = np.array([1.0, 2.0, -3.0, 1.0]), np.array([1, 0, 1, 0]), [0, 3, 4]
    rows = scipy.sparse.csr_array((data, indices, np.array(indptr)), shape=(2, 2))
    result = find_witness(rows)
    assert verify_witness(rows, result.direction)
    np.testing.assert_array_equal(rows.data, [1.0, 2.0, -3.0, 1.0])
    np.testing.assert_array_equal(rows.indices, [1, 0, 1, 0])
    cancelling = scipy.sparse.csr_array(([1.0, -1.0], [0, 0], [0, 2]), shape=(1, 1))
    assert find_witness(cancelling).outcome is Outcome.CONTRADICTION
    # 1 + 2**-60 - 1 rounds to zero, yet is positive.
    absorbed = scipy.sparse.csr_array(([1.0, 2.0**-60, -1.0], [0, 0, 0], [0, 3]), shape=(1, 1))
    assert find_witness(absorbed).outcome is Outcome.INCONCLUSIVE


# --- small integer systems, against exact elimination ---------------------------------------------

small_matrices = st.integers(1, 5).flatmap(
    lambda n: st.lists(
        st.lists(st.integers(-3, 3) | st.integers(-9, 9), min_size=n, max_size=n),
        min_size=1,
        max_size=6,
    )
)


@given(small_matrices)
@settings(max_examples=300)
def test_small_integer_systems_are_always_decided(rows):
    expected = strict_direction(rows, len(rows[0]))
    result = find_witness(np.array(rows, dtype=float))
    check(rows, result)
    decided = Outcome.CONTRADICTION if expected is None else Outcome.WITNESS
    assert result.outcome is decided


@given(small_matrices, st.data())
@settings(max_examples=100)
def test_scale_of_the_rows_does_not_matter(rows, data):
    powers = data.draw(
        st.lists(st.integers(-700, 700), min_size=len(rows), max_size=len(rows)), label="powers"
    )
    scaled = np.ldexp(np.array(rows, dtype=float), np.array(powers)[:, None])
    expected = strict_direction(rows, len(rows[0]))
    result = find_witness(scaled)
    check(scaled, result)
    assert result.outcome is (Outcome.CONTRADICTION if expected is None else Outcome.WITNESS)


@given(small_matrices, st.sampled_from([1e200, 1e-200, 1e-310]))
@settings(max_examples=50)
def test_extreme_magnitudes_do_not_crash_or_lie(rows, factor):
    scaled = np.array(rows, dtype=float) * factor
    scaled[::2] /= max(factor, 1e-300)
    result = find_witness(scaled)
    check(scaled, result)


floats = st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from(
    [0.0, 1.0, 1e308, -1e308, 5e-324, -5e-324, 1e-160, 1e160]
)


@given(st.lists(st.lists(floats, min_size=3, max_size=3), min_size=1, max_size=5))
@settings(max_examples=200)
def test_any_floats_do_not_crash_or_lie(rows):
    check(rows, find_witness(rows))


@given(small_matrices)
@settings(max_examples=50)
def test_sparse_methods_agree(rows):
    # 70 001 columns apart, and copies beside each other, so that nothing fits the dense methods.
    n = len(rows[0])
    dense = np.array(rows, dtype=float)
    copies = np.kron(np.eye(40), dense)
    row, col = np.nonzero(copies)
    order = np.random.default_rng(0).permutation(40 * n) * 101
    spread = scipy.sparse.csr_array(
        (copies[row, col], (row, order[col])), shape=(len(copies), 40 * n * 101)
    )
    result = find_witness(spread)
    expected = strict_direction(rows, n)
    assert result.outcome is (Outcome.CONTRADICTION if expected is None else Outcome.WITNESS)
    if expected is None:
        assert verify_contradiction(spread, result.exact_multipliers)
    else:
        assert verify_witness(spread, result.direction)


@given(small_matrices, st.data())
@settings(max_examples=100)
def test_corrupted_certificates_are_rejected(rows, data):
    rows = [row for row in rows if any(row)]
    if not rows:
        return
    dense = np.array(rows, dtype=float)
    result = find_witness(dense)
    i = data.draw(st.integers(0, len(rows) - 1), label="row")
    if result.outcome is Outcome.WITNESS:
        d = result.direction
        assert not verify_witness(dense, -d)
        assert not verify_witness(dense, np.zeros_like(d))
        assert not verify_witness(dense, np.full_like(d, np.nan))
        # Exactly orthogonal to row i: on the boundary, so not strict.
        square = int(dense[i] @ dense[i])
        whole = np.round(d * 1000)
        flat = square * whole - int(dense[i] @ whole) * dense[i]
        assert not verify_witness(dense, flat)
    else:
        y = list(result.exact_multipliers)
        assert not verify_contradiction(dense, [0] * len(y))
        assert not verify_contradiction(dense, [-w for w in y])
        y[i] += Fraction(1, 10**40)
        assert not verify_contradiction(dense, y)


# --- larger systems -------------------------------------------------------------------------------


def random_sparse(rng, m, n, k):
    columns = rng.integers(0, n, (m, k))
    data = rng.integers(-99, 100, (m, k)).astype(float)
    rows = scipy.sparse.csr_array(
        (data.ravel(), columns.ravel(), np.arange(m + 1) * k), shape=(m, n)
    )
    rows.sum_duplicates()
    return rows


def planted(rows, rng, gap):
    """Flip rows to agree with a hidden direction; drop those too close to its boundary."""
    hidden = rng.standard_normal(rows.shape[1])
    values = rows @ hidden
    lengths = np.sqrt((rows * rows).sum(axis=1)) * np.linalg.norm(hidden)
    clear = np.abs(values) > gap * lengths
    return scipy.sparse.csr_array(scipy.sparse.diags_array(np.sign(values)) @ rows)[clear]


@pytest.mark.parametrize(
    ("m", "n", "method"),
    [
        (1000, 1500, Method.INDEPENDENT_ROWS),
        (3000, 1200, Method.SQUARED_HINGE),
        (3000, 100, Method.ACTIVE_SET),
    ],
)
def test_large_planted_feasible(m, n, method):
    rng = np.random.default_rng(m)
    rows = planted(random_sparse(rng, m, n, 60), rng, 1e-3)
    result = find_witness(rows)
    assert result.outcome is Outcome.WITNESS
    assert verify_witness(rows, result.direction)
    assert result.margin > 1e-6
    assert result.methods[-1] is method


@pytest.mark.parametrize("size", [2, 7, 30])
@pytest.mark.parametrize("n", [1200, 20_000])
def test_large_planted_infeasible(size, n):
    rng = np.random.default_rng(size)
    rows = planted(random_sparse(rng, 2000, n, 60), rng, 1e-3)
    weights = rng.integers(1, 5, size).astype(float)
    last = -(scipy.sparse.csr_array(weights[None, :]) @ rows[:size])
    rows = scipy.sparse.csr_array(scipy.sparse.vstack([rows, last]))
    shuffled = rows[rng.permutation(rows.shape[0])]
    result = find_witness(shuffled)
    assert result.outcome is Outcome.CONTRADICTION
    assert verify_contradiction(shuffled, result.exact_multipliers)
    assert Method.RATIONAL_ELIMINATION in result.methods
    assert sum(y > 0 for y in result.exact_multipliers) <= size + 1


def test_many_rows_in_few_columns_without_a_witness():
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((4000, 30))
    result = find_witness(rows)
    assert result.outcome is Outcome.CONTRADICTION
    assert verify_contradiction(rows, result.exact_multipliers)
    assert sum(y > 0 for y in result.exact_multipliers) == 31


def test_opposite_rows_among_many():
    rng = np.random.default_rng(1)
    rows = random_sparse(rng, 2000, 3000, 50)
    pair = scipy.sparse.csr_array(-3.0 * rows[[700]])
    result = find_witness(scipy.sparse.csr_array(scipy.sparse.vstack([rows, pair])))
    assert result.outcome is Outcome.CONTRADICTION
    assert Method.OPPOSITE_ROWS in result.methods
    assert [i for i, y in enumerate(result.exact_multipliers) if y] == [700, 2000]


def test_nearly_dependent_rows_in_separate_channels():
    # Smooth patches: condition numbers near 1e8, which defeat plain gradient methods.
    rng = np.random.default_rng(2)
    m, k, channels = 1200, 80, 8
    channel = rng.integers(0, channels, m)
    smooth = np.cumsum(np.cumsum(rng.standard_normal((m, k)), axis=1), axis=1)
    hidden = rng.standard_normal((channels, k))
    smooth *= np.sign((smooth * hidden[channel]).sum(axis=1))[:, None]
    columns = channel[:, None] * k + np.arange(k)
    rows = scipy.sparse.csr_array(
        (smooth.ravel(), columns.ravel(), np.arange(m + 1) * k), shape=(m, channels * k)
    )
    result = find_witness(rows)
    assert result.outcome is Outcome.WITNESS
    assert verify_witness(rows, result.direction)
    assert Method.COMPONENTS in result.methods


@pytest.mark.slow
@pytest.mark.parametrize("used", [200_000, 4000])
def test_ten_thousand_rows_over_a_million_parameters(used):
    rng = np.random.default_rng(0)
    rows = planted(random_sparse(rng, 10_000, used, 600), rng, 0.0)
    rows = scipy.sparse.csr_array(
        (rows.data, rows.indices * (10**6 // used), rows.indptr), shape=(rows.shape[0], 10**6)
    )
    result = find_witness(rows)
    assert result.outcome is Outcome.WITNESS
    assert verify_witness(rows, result.direction)


def test_a_tiny_budget_is_inconclusive_not_wrong():
    rng = np.random.default_rng(3)
    rows = random_sparse(rng, 1500, 1200, 60)
    tiny = Budget(1, 1, 1, 5, 10, 2, 10)
    result = find_witness(rows, budget=tiny)
    assert result.outcome is Outcome.INCONCLUSIVE
    assert result.multipliers is not None
