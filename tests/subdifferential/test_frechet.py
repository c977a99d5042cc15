"""Frechet subgradients: exact linear systems cell by cell, and functions known on paper."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import clarke
from clarke.decide import source
from reference import cases, to_torch
from reference.affine import cells
from reference.hull import strict_direction
from reference.leaves import zeros


def vector(*entries):
    return torch.tensor(entries, dtype=torch.float64)


def is_frechet(case, entries):
    """No cell has a direction inside of it along which the program falls below the vector's."""
    for cell in cells(case.expr, case.point):
        below = [v - g for g, v in zip(cell.gradient, entries, strict=True)]
        if any(below) and strict_direction([*cell.rows, below], len(entries)) is not None:
            return False
    return True


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(case=cases(n_vars=2, max_kinks=4), target=st.tuples(*[st.integers(-2, 2)] * 2))
def test_random_programs(case, target):
    x = torch.tensor([float(p) for p in case.point], dtype=torch.float64, requires_grad=True)
    program = to_torch(case.expr)
    found = clarke.subdifferential(program, (x,))
    elements = sorted(case.bouligand)
    middle = [sum(column) / len(elements) for column in zip(*elements, strict=True)]
    for entries in (target, *elements[:3], middle):
        told = found.frechet(vector(*[float(e) for e in entries]))
        wanted = is_frechet(case, entries)
        assert told.inside is wanted or (told.inside is None and not found.complete)
        if told.inside:
            assert found.contains(vector(*[float(e) for e in entries])).inside is not False
        if told.inside is False:
            (d,) = told.direction
            assert told.excess == pytest.approx(
                found.directional(d) - float(d @ vector(*[float(e) for e in entries]))
            )
            assert told.excess < 0
            with torch.no_grad():
                rise = (float(program(x + 2.0**-20 * d)) - float(program(x))) * 2**20
            assert rise < float(d @ vector(*[float(e) for e in entries])) + 1e-9


def test_on_paper():
    convex = clarke.subdifferential(lambda x: x.abs().sum(), (zeros(2),))
    assert convex.frechet(vector(1.0, -0.5))
    assert not convex.frechet(vector(1.5, 0.0))
    concave = clarke.subdifferential(lambda x: -x.abs().sum(), (zeros(2),))
    assert not concave.frechet(vector(0.0, 0.0))
    saddle = clarke.subdifferential(lambda x: x[0].abs() - x[1].abs(), (zeros(2),))
    assert not any(saddle.frechet(vector(a, b)) for a in (0.0, 1.0) for b in (0.0, 1.0))
    smooth = clarke.subdifferential(lambda x: (x**2).sum(), (vector(1.0, 2.0).requires_grad_(),))
    assert smooth.frechet(vector(2.0, 4.0))
    assert not smooth.frechet(vector(2.0, 4.5))


def test_convex_sums_without_a_list(monkeypatch):
    monkeypatch.setattr(source, "SET_SMALL", -1)
    found = clarke.subdifferential(lambda x: x.abs().sum() + x.amax(), (zeros(3),))
    assert found.frechet(found.gradient[0])
    out = found.frechet(vector(3.0, 0.0, 0.0))
    assert out.inside is False
    assert out.excess < 0
    assert "not listed" in repr(found)


def test_undecided_where_selections_are_not_enough():
    def cusp(v):
        return torch.relu(v[1] ** 2 - torch.relu(v[0]))

    told = clarke.subdifferential(cusp, (zeros(2),)).frechet(vector(0.0, 0.0))
    with pytest.raises(clarke.UnsupportedError, match="neither proved nor excluded"):
        bool(told)
