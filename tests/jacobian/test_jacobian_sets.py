"""clarke.jacobians: the whole B-subdifferential of small maps, against brute force."""

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import clarke
from reference.leaves import zeros

F64 = torch.float64


def as_set(matrices):
    return {tuple(np.round(np.asarray(m).reshape(-1), 9) + 0.0) for m in matrices}


def by_brute_force(function, count=2000):
    """The Jacobians all around zero in the plane, of a map that is the same at every distance."""
    angles = (torch.arange(count, dtype=F64) + 0.37) * (2 * torch.pi / count)
    around = torch.stack([angles.cos(), angles.sin()], 1)
    return torch.func.vmap(torch.func.jacrev(function))(around).numpy()


@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    kind=st.integers(0, 5),
    entries=st.lists(st.integers(-2, 2), min_size=24, max_size=24),
)
def test_piecewise_linear_maps(kind, entries):
    numbers = torch.tensor(entries, dtype=F64)
    first, second, third = numbers[:6].view(3, 2), numbers[6:12].view(3, 2), numbers[12:].view(4, 3)

    def function(x):
        a, b = first @ x, second @ x
        hidden = (
            torch.relu(a),
            torch.maximum(a, b),
            a.sort().values[[0, 2]].repeat(2)[:3],
            torch.relu(torch.relu(a) - b.abs()),
            torch.where(a > b, a, b) - b * (b > 0),
            torch.cat([a.abs().sum()[None], b.amax()[None], torch.relu(b)[:1]]),
        )[kind]
        return third @ hidden

    listed = clarke.jacobians(function, zeros(2))
    assert listed.shape[1:] == (4, 2)
    sampled = as_set(by_brute_force(function))
    # Cells of small whole rows are wide enough for one of 2000 directions to lie in each.
    assert as_set(listed) == sampled


def test_rows_share_their_pieces():
    listed = clarke.jacobians(lambda x: torch.cat([x.abs(), torch.maximum(x, -x)]), zeros(1))
    assert as_set(listed) == {(1.0, 1.0), (-1.0, -1.0)}


def test_curved_maps_and_several_outputs():
    def function(x):
        u = torch.stack([x[0] + x[1] ** 2, x[1] - x[0] * x[1]])
        return u.abs(), torch.exp(torch.relu(u[0]))

    listed = clarke.jacobians(function, zeros(2))
    wanted = {(a, 0.0, 0.0, b, (a + 1) / 2, 0.0) for a in (-1.0, 1.0) for b in (-1.0, 1.0)}
    assert as_set(listed) == wanted


def test_a_smooth_map_has_one():
    point = torch.tensor([1.0, 2.0], dtype=F64, requires_grad=True)
    listed = clarke.jacobians(lambda x: torch.stack([x.prod(), x.sum()]), point)
    assert listed.tolist() == [[[2.0, 1.0], [1.0, 1.0]]]


def test_too_many():
    with pytest.raises(clarke.BudgetError, match="too many selections of pieces"):
        clarke.jacobians(torch.relu, zeros(13))


def test_known_from_below():
    def cusp(x):
        return torch.stack([torch.relu(x[1] ** 2 - torch.relu(x[0])), x[0]])

    with pytest.raises(clarke.UnsupportedError, match="neither proved nor excluded"):
        clarke.jacobians(cusp, zeros(2))
