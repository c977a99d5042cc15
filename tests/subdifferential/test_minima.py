"""Local minima by first order, and the abs-normal form, against values beside the point."""

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings

import clarke
from reference import cases, to_torch
from reference.leaves import zeros


def gaussian(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def answer(function, size=2):
    return clarke.subdifferential(function, (zeros(size),)).is_local_minimum()


def test_known_minima():
    sharp = answer(lambda x: x.abs().sum())
    assert (sharp.minimum, sharp.strict) == (True, True)
    valley = answer(lambda x: x[0].abs() + 0 * x[1])
    assert (valley.minimum, valley.strict) == (True, False)
    saddle = answer(lambda x: x[0].abs() - x[1].abs())
    assert saddle.minimum is False
    assert saddle.slope == pytest.approx(-1)
    assert answer(lambda x: torch.relu(x).sum()).minimum is True
    assert answer(lambda x: (x[0] - x[1]).abs() + 2 * x.sum().abs()).strict is True


def test_many_kinks():
    matrix = gaussian(500, 20)
    best = answer(lambda x: (matrix @ x).abs().sum(), 20)
    assert (best.minimum, best.strict) == (True, True)
    tilted = answer(lambda x: (matrix @ x).abs().sum() + 1e4 * x[0], 20)
    assert tilted.minimum is False
    assert tilted.slope < 0


@pytest.mark.slow
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(case=cases(n_vars=2, max_kinks=4))
def test_random_piecewise_linear_programs(case):
    x = torch.tensor([float(p) for p in case.point], dtype=torch.float64, requires_grad=True)
    program = to_torch(case.expr)
    found = clarke.subdifferential(program, (x,))
    if not found.complete:
        return
    told = found.is_local_minimum()
    angles = np.concatenate([np.arange(0, 6.3, 0.05), np.arctan2(*np.mgrid[-6:7, -6:7])[0]])
    with torch.no_grad():
        here = float(program(x))
        steps = [2.0**-20 * torch.tensor([np.cos(a), np.sin(a)]) for a in angles]
        rises = [float(program(x + s)) - here for s in steps]
    if told.minimum:
        assert min(rises) >= -1e-12
    if told.strict:
        assert min(rises) > 0
    if told.minimum is False:
        assert told.descent is not None
        with torch.no_grad():
            assert float(program(x + 2.0**-20 * told.descent[0])) < here
    assert told.minimum is not None


@pytest.mark.slow
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(case=cases(n_vars=3, max_kinks=4))
def test_abs_normal_forms_there_and_back(case):
    x = torch.tensor([float(p) for p in case.point], dtype=torch.float64, requires_grad=True)
    program = to_torch(case.expr)
    found = clarke.subdifferential(program, (x,))
    try:
        form = found.abs_normal_form()
    except clarke.UnsupportedError as error:
        assert "maxima of two" in str(error)  # noqa: PT017 - only some programs have one
        return
    assert form.L.shape == (len(form.c), len(form.c))
    assert np.array_equal(form.L, np.tril(form.L, -1))
    for seed in range(8):
        step = 2.0**-20 * gaussian(3, seed=seed)
        with torch.no_grad():
            wanted = float(program(x + step))
        assert form.value(step.numpy()) == pytest.approx(wanted, abs=1e-12)
        assert float(form(step)) == pytest.approx(wanted, abs=1e-12)
    again = clarke.subdifferential(form, (zeros(3),))
    if found.complete and again.complete:
        mine = {tuple(np.round(v, 6)) for v in (found.vertices().numpy() + 0.0)}
        assert {tuple(np.round(v, 6)) for v in (again.vertices().numpy() + 0.0)} == mine


def test_maxima_of_several_are_refused():
    found = clarke.subdifferential(lambda x: x.amax(), (zeros(3),))
    with pytest.raises(clarke.UnsupportedError, match="maxima of two"):
        found.abs_normal_form()


@pytest.mark.parametrize("powers", [(-10, 10), (-400, 300)])
def test_units_of_variables_change_no_answer(powers):
    """A flat valley, with variables measured in units far apart."""
    units = torch.tensor([2.0**p for p in powers], dtype=torch.float64)

    def valley(x):
        a, b = x * units
        middle = torch.stack([b - a, -a, 3 * a - 2 * b]).median()
        return torch.maximum(torch.nn.functional.leaky_relu(b - a, 0.25), a - 3 * b) - middle

    assert (answer(valley, 2).minimum, answer(valley, 2).strict) == (True, False)
    sharp = answer(lambda x: valley(x) + (x * units).abs().sum(), 2)
    assert (sharp.minimum, sharp.strict, sharp.order) == (True, True, 1)
    falling = answer(lambda x: valley(x) - x[0] * units[0], 2)
    assert falling.minimum is False
    assert falling.slope < 0


def test_units_of_variables_hide_no_descent():
    """The function falls in a cell that is thin but for the units of the variables."""
    units = torch.tensor([2.0**-26, 2.0**26], dtype=torch.float64)

    def saddle(x):
        a, b = x * units
        low = torch.minimum(torch.minimum(2 * a - 3 * b, -3 * a - b), 2 * b - 2 * a)
        return torch.relu(3 * a + b).abs() + (a + 2 * b) * (a + 2 * b > 0) - 2 * low

    found = clarke.subdifferential(saddle, (zeros(2),))
    down = found.is_stationary().descent[0]
    assert found.directional(down) < 0
    assert found.frechet(torch.zeros(2)).inside is False
    assert found.frechet(100 * units).inside is False
