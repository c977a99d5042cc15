"""The set itself: membership, smallest element, directional derivatives, descent, pictures."""

import math

import pytest
import torch
from hypothesis import HealthCheck, given, settings

import clarke
from reference import cases, contains, to_torch
from reference.forgery import altered
from reference.leaves import zeros


def vector(*values):
    return torch.tensor(values, dtype=torch.float64)


def test_twenty_absolute_values_without_listing_them():
    size = 20
    found = clarke.subdifferential(lambda x: x.abs().sum(), (zeros(size),))
    inside = found.contains(torch.linspace(-1, 1, size, dtype=torch.float64))
    assert inside
    assert inside.verify()
    outside = found.contains(torch.full((size,), 1.01, dtype=torch.float64))
    assert not outside
    assert outside.verify()
    assert outside.distance == pytest.approx(0.01 * math.sqrt(size))
    assert float(found.min_norm()[0].abs().max()) <= 1e-9
    direction = torch.randn(size, dtype=torch.float64)
    assert found.directional(direction) == pytest.approx(float(direction.abs().sum()))
    with pytest.raises(clarke.BudgetError, match="1048576"):
        found.vertices()


def test_what_is_zero_but_for_cancellation_is_zero():
    weights = torch.randn(100, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    weights = torch.cat([weights, -weights.sum().reshape(1)])  # sums to 1e-15, in some order to 0
    found = clarke.subdifferential(lambda x: (torch.relu(x) * weights).sum(), (zeros(1),))
    for error in (1e-18, -1e-18, 3e-16, -3e-16):
        inside = found.contains(vector(error))
        assert inside.inside
        assert inside.verify()
    # The hull lies on one side of zero. Whoever names a tolerance is taken at their word.
    strict = [found.contains(vector(e), tolerance=0.0) for e in (3e-16, -3e-16)]
    assert any(m.inside is False for m in strict)
    assert not all(
        altered(m.certificate, allowed=0 * m.found.allowed, asked=None).sealed().verify()
        for m in strict
    )
    for far in (1e-9, -1e-9):
        outside = found.contains(vector(far))
        assert outside.inside is False
        assert outside.verify()
    one = clarke.subdifferential(lambda x: torch.relu(x).sum(), (zeros(1),))
    assert one.contains(vector(-1e-15)).inside  # within roundings of 1
    assert one.contains(vector(-1e-9)).inside is False


def test_many_kinks_through_a_point():
    generator = torch.Generator().manual_seed(0)
    A = torch.randn(14, 3, dtype=torch.float64, generator=generator)
    found = clarke.subdifferential(lambda x: (A @ x).abs().sum(), (zeros(3),))
    # Cells of a central arrangement of m planes in general position in space: m(m - 1) + 2.
    assert len(found.bouligand()) == 14 * 13 + 2
    assert len(found.vertices()) == 14 * 13 + 2
    assert found.contains(vector(0, 0, 0))


def test_damaged_memberships_do_not_verify():
    found = clarke.subdifferential(lambda x: x.abs().sum(), (zeros(2),))
    inside = found.contains(vector(0.5, -0.25)).certificate
    assert inside.verify()
    proof = inside.argument
    for damage in (
        {"gradient": tuple(g + 0.1 for g in inside.gradient)},
        {"weights": -proof.weights},
        {"elements": proof.elements + 0.1},
        {"inside": None},
    ):
        assert not altered(inside, **damage).verify()
        assert not altered(inside, **damage).sealed().verify()
    outside = found.contains(vector(2, 0)).certificate
    assert outside.verify()
    for damage in (
        {"direction": -outside.argument.direction},
        {"gradient": (torch.zeros(2, dtype=torch.float64),)},
        {"direction": None},
    ):
        assert not altered(outside, **damage).verify()
        assert not altered(outside, **damage).sealed().verify()


def test_vertices_leave_out_inner_points():
    def program(x):
        return torch.stack([x[0], -x[0], x[1], -x[1], (x[0] + x[1]) / 4]).max(0).values

    found = clarke.subdifferential(program, (zeros(2),))
    assert len(found.vertices()) == 4
    assert not any(v == [0.25, 0.25] for v in found.vertices().tolist())


@pytest.mark.slow
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(case=cases(n_vars=2, max_kinks=5, native=True))
def test_stationarity_and_descent(case):
    """Zero in the set, or a direction in which the function falls; both where they are so."""
    x = torch.tensor([float(p) for p in case.point], dtype=torch.float64, requires_grad=True)
    program = to_torch(case.expr)
    answer = clarke.subdifferential(program, (x,)).is_stationary()
    assert answer.stationary is contains(case.bouligand, [0] * len(case.point))
    if not answer.stationary:
        assert answer.descent is not None
    if answer.descent is not None:
        assert answer.slope < 0
        step = 1e-6
        with torch.no_grad():
            fall = float(program(x + step * answer.descent[0]) - program(x))
        assert fall == pytest.approx(step * answer.slope, rel=1e-6, abs=1e-13)


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(case=cases(n_vars=3, max_kinks=5))
def test_directional_derivatives(case):
    """Also along directions that lie in a kink."""
    x = torch.tensor([float(p) for p in case.point], dtype=torch.float64, requires_grad=True)
    program = to_torch(case.expr)
    found = clarke.subdifferential(program, (x,))
    for d in (vector(1, 0, 0), vector(0, -1, 1), vector(1, 1, 1), vector(-3, 2, 1)):
        step = 2.0**-20
        with torch.no_grad():
            quotient = float(program(x + step * d) - program(x)) / step
        assert found.directional(d) == pytest.approx(quotient, abs=1e-6)


def test_stuck_is_not_stationary_to_first_order():
    """AD's gradient is zero at the origin of relu(-x), and zero is in the set; yet x may grow."""
    found = clarke.subdifferential(
        lambda x: torch.relu(-x).sum() - torch.relu(x).sum(), (zeros(1),)
    )
    assert found.gradient[0].tolist() == [0]
    answer = found.is_stationary()
    assert answer.stationary is False
    assert answer.slope == -1
    saddle = clarke.subdifferential(lambda x: -x.abs().sum(), (zeros(2),)).is_stationary()
    assert saddle.stationary is True
    assert saddle.descent is not None
    assert saddle.slope == pytest.approx(-math.sqrt(2))


def test_several_variables_keep_their_shapes():
    A, b = zeros(2, 2), zeros(2)
    x = vector(1, 2)
    found = clarke.subdifferential(lambda: torch.relu(A @ x + b).sum(), wrt=[A, b])
    smallest = found.min_norm()
    assert [tuple(p.shape) for p in smallest] == [(2, 2), (2,)]
    assert found.bouligand().shape == (4, 6)
    assert found.contains((torch.zeros(2, 2), torch.zeros(2)))
    with pytest.raises(clarke.InputError, match="entries"):
        found.contains(torch.zeros(3))


def test_no_set_where_the_branch_not_taken_gives_nan():
    x = torch.tensor([-1.0], dtype=torch.float64, requires_grad=True)
    with pytest.raises(clarke.UnsupportedError, match="NaN or infinite"):
        clarke.subdifferential(lambda x: torch.where(x > 0, torch.sqrt(x), x).sum(), (x,))


@pytest.mark.parametrize("size", [2, 3])
def test_pictures(size, tmp_path):
    pytest.importorskip("matplotlib")
    found = clarke.subdifferential(lambda x: x.abs().sum() + x.amax(), (zeros(size),))
    path = tmp_path / "set.png"
    figure = found.plot(str(path))
    assert path.stat().st_size > 1000
    axes = figure.axes[0]
    labels = [t.get_text() for t in axes.get_legend().get_texts()]
    assert labels == ["limiting gradients (vertices)", "AD's gradient"]


@pytest.mark.parametrize("program", [lambda x: x.sum(), lambda x: x[0].abs()])
def test_pictures_of_flat_sets(program):
    pytest.importorskip("matplotlib")
    assert clarke.subdifferential(program, (zeros(2),)).plot().axes


def test_no_picture_in_other_dimensions():
    with pytest.raises(clarke.InputError, match="2 or 3"):
        clarke.subdifferential(lambda x: x.abs().sum(), (zeros(4),)).plot()


def test_the_answer_repeats():
    x = zeros(3)

    def program(x):
        return torch.stack([x[0] - x[1], 2 * x[2], x.abs().sum()]).amax(0)

    first = clarke.subdifferential(program, (x,)).bouligand()
    assert torch.equal(first, clarke.subdifferential(program, (x,)).bouligand())


def test_numbers_are_no_vector():
    found = clarke.subdifferential(lambda x: x.abs().sum(), (zeros(2),))
    with pytest.raises(clarke.InputError, match=r"A vector is a tensor"):
        found.contains([0.0, 0.0])
    with pytest.raises(clarke.InputError, match=r"A vector is a tensor"):
        found.directional([1.0, 0.0])
