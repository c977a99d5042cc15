"""Linear rows, hulls and exact elimination under a deadline; what is too large is not begun."""

import numpy as np
import pytest
import scipy.sparse
import torch

import clarke
from clarke.deadline import Deadline
from clarke.decide.extreme import vertex_indices
from clarke.decide.linear import require_room
from clarke.errors import BudgetError, OutOfTimeError
from clarke.feasibility import (
    Outcome,
    convex_weights,
    find_witness,
    minimum_norm_point,
    separating_direction,
)
from clarke.feasibility.hinge import squared_hinge
from clarke.feasibility.margin_lp import largest_margin
from clarke.feasibility.nearest import weights_of_nearest
from clarke.feasibility.outcome import Budget
from clarke.feasibility.rational import exact_multipliers
from clarke.verdict import Verdict

RNG = np.random.default_rng(0)


def over():
    return Deadline(0.0, 1.0, lambda: 1.0)


def endless():
    return Deadline(2.0, 1.0, lambda: 1.0)  # a second is left, for ever


@pytest.mark.parametrize(
    "call",
    [
        lambda d: find_witness(RNG.normal(size=(6, 4)), deadline=d),
        lambda d: find_witness(scipy.sparse.random(3000, 900, 0.01, format="csr"), deadline=d),
        lambda d: minimum_norm_point(RNG.normal(size=(5, 3)), d),
        lambda d: convex_weights(RNG.normal(size=(5, 3)), np.zeros(3), deadline=d),
        lambda d: separating_direction(RNG.normal(size=(5, 3)), np.ones(3), deadline=d),
        lambda d: exact_multipliers(np.array([[1.0, 1], [-1, 0], [0, -1]]), np.ones(3), d),
        lambda d: squared_hinge(
            scipy.sparse.eye_array(3, format="csr"), np.zeros(3), 1e-2, 5, Budget(deadline=d)
        ),
        lambda d: vertex_indices(RNG.normal(size=(9, 7)), 1e-9, d),
    ],
)
def test_each_asks(call):
    call(endless())
    with pytest.raises(OutOfTimeError, match="Time ran out"):
        call(over())


def test_a_linear_program_ends_with_the_time():
    assert largest_margin(np.eye(3), endless()) is not None
    assert largest_margin(RNG.normal(size=(60, 40)), over()) is None


def test_steps_that_cannot_be_interrupted_are_counted():
    points = RNG.normal(size=(300, 200)) + 0.05
    assert weights_of_nearest(points) is not None
    short = Deadline(1.00002, 1.0, lambda: 1.0)
    with pytest.raises(OutOfTimeError, match="the hull of 300 points"):
        weights_of_nearest(points, deadline=short)


def test_a_deadline_changes_no_answer():
    rows = RNG.integers(-3, 4, size=(40, 30)).astype(float)
    plain, timed = find_witness(rows), find_witness(rows, deadline=endless())
    assert plain.outcome is timed.outcome
    assert plain.outcome is not Outcome.INCONCLUSIVE


def test_room_is_counted_before_it_is_taken():
    require_room(10, 10)
    with pytest.raises(BudgetError, match="100,000 rows of 100,000 numbers"):
        require_room(100_000, 100_000)


def test_a_tie_among_very_many_is_refused_by_arithmetic():
    x = torch.zeros(400, dtype=torch.float64, requires_grad=True)
    report = clarke.check(lambda v: 2 * v.max() - v.amax(), (x,))
    assert report.verdict in (Verdict.UNDECIDED, Verdict.CLARKE)
    if report.verdict is Verdict.UNDECIDED and not report.out_of_time:
        assert "400 elements are tied" in report.reason
