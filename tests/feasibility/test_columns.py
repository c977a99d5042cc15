"""Pure columns: which rows they settle, and that earlier ones dominate without overflow."""

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given
from hypothesis import strategies as st

from clarke.feasibility import Method, Outcome, find_witness, verify_witness
from clarke.feasibility.columns import extend, peel
from clarke.feasibility.system import build, load


def system_of(rows):
    return build(load(np.asarray(rows, dtype=float))[0])[0]


def test_rounds_and_core():
    rows = [[1, 2, -2, 0], [0, 1, -1, 3], [0, -1, 1, -1], [0, 5, -1, 1], [-1, 0, 0, 0]]
    peeling = peel(system_of(rows), 64)
    # No column is pure over all rows.
    assert peeling.rounds == ()
    assert peeling.core.tolist() == [0, 1, 2, 3, 4]
    peeling = peel(system_of(rows[:4]), 64)
    assert [r.rows.tolist() for r in peeling.rounds] == [[0]]
    assert peeling.core.tolist() == [1, 2, 3]


def test_earlier_columns_dominate():
    # Column 0 must outweigh what columns 1 and 2 do to row 0, column 1 what column 2 does to row 1.
    rows = [[1, -100, 3], [0, 1, -100], [0, 0, 1]]
    system = system_of(rows)
    peeling = peel(system, 64)
    assert [part.rows.tolist() for part in peeling.rounds] == [[0], [1], [2]]
    assert [part.columns.tolist() for part in peeling.rounds] == [[0], [1], [2]]
    d = extend(system, peeling, np.zeros(3))
    np.testing.assert_allclose(system.matrix @ d, 1.0)
    result = find_witness(rows)
    assert result.methods == (Method.PURE_COLUMNS,)
    assert verify_witness(rows, result.direction)


def staircase(size, factor):
    return np.eye(size) - factor * np.eye(size, k=1)


@pytest.mark.parametrize(("size", "factor"), [(20, 2.0), (60, 3.0), (60, 0.5)])
def test_staircase(size, factor):
    rows = staircase(size, factor)
    result = find_witness(rows, margin=0.0)
    assert result.outcome is Outcome.WITNESS
    assert verify_witness(rows, result.direction)


def test_overflow_is_inconclusive_or_solved_otherwise():
    # The only witnesses have coordinates in ratio 1e300 and beyond.
    rows = staircase(60, 1e10)
    result = find_witness(rows)
    assert result.outcome is Outcome.INCONCLUSIVE
    system = system_of(rows)
    assert extend(system, peel(system, 64), np.zeros(60)) is None


def test_shared_bias_in_a_sparse_layer():
    rng = np.random.default_rng(0)
    m, k, channels = 2000, 40, 16
    channel = rng.integers(0, channels, m)
    columns = channel[:, None] * k + np.arange(k)
    data = np.round(rng.standard_normal((m, k)) * 8) / 8
    data[:, -1] = np.where(channel % 2, 1.0, -1.0)
    rows = scipy.sparse.csr_array(
        (data.ravel(), columns.ravel(), np.arange(m + 1) * k), shape=(m, 100_000)
    )
    result = find_witness(rows)
    assert result.outcome is Outcome.WITNESS
    assert result.methods == (Method.PURE_COLUMNS,)
    assert np.count_nonzero(result.direction) <= channels
    assert verify_witness(rows, result.direction)


@given(
    st.integers(1, 12).flatmap(
        lambda n: st.lists(
            st.lists(st.integers(-4, 4), min_size=n, max_size=n), min_size=1, max_size=12
        )
    )
)
def test_peeling_is_sound(rows):
    rows = [row for row in rows if any(row)]
    if not rows:
        return
    system = system_of(rows)
    peeling = peel(system, 64)
    settled = [r for part in peeling.rounds for r in part.rows.tolist()]
    assert sorted([*settled, *peeling.core.tolist()]) == list(range(len(rows)))
    # Columns chosen in a round are absent from the core and from all later rounds.
    for k, part in enumerate(peeling.rounds):
        later = [r for other in peeling.rounds[k + 1 :] for r in other.rows.tolist()]
        rest = [*later, *peeling.core.tolist()]
        assert not system.matrix[np.ix_(rest, part.columns)].any()
    d = extend(system, peeling, np.zeros(system.shape[1]))
    assert (system.matrix[settled] @ d >= 1 - 1e-9).all()
