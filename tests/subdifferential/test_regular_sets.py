"""Sets without a list: thousands of kinks, proofs, and random programs against exact hulls."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import clarke
from clarke.decide import source
from reference import cases, contains, to_torch
from reference.forgery import altered
from reference.leaves import zeros


def gaussian(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def never_listed(monkeypatch):
    """Small sets are answered as large ones are."""
    monkeypatch.setattr(source, "SET_SMALL", -1)


def test_two_thousand_absolute_values():
    matrix, slope = gaussian(2000, 50), gaussian(50, seed=1)
    for tilt in (0.0, 1000.0):
        found = clarke.subdifferential(
            lambda x, tilt=tilt: (matrix @ x).abs().sum() + tilt * (slope @ x), (zeros(50),)
        )
        assert found.complete
        assert "not listed" in repr(found)
        assert found.contains(found.gradient).inside
        corner = matrix.T @ torch.sign(matrix @ slope) + tilt * slope
        assert found.contains(corner).inside
        outside = found.contains(corner + 0.01 * slope)
        assert outside.inside is False
        assert found.directional(slope) == pytest.approx(float(slope @ corner))
        (smallest,) = found.min_norm()
        answer = found.is_stationary()
        assert answer.stationary is (tilt == 0.0)
        if tilt:
            # The element of smallest norm has the smallest inner product with itself.
            lowest = matrix.T @ torch.sign(-matrix @ smallest) + tilt * slope
            assert float(lowest @ smallest) == pytest.approx(float(smallest @ smallest), rel=1e-6)
            assert answer.slope == pytest.approx(-float(smallest.norm()), rel=1e-6)
        else:
            assert float(smallest.norm()) < 1e-8


def test_hinge_losses_and_a_maximum_of_many():
    data = torch.tensor(np.random.default_rng(0).integers(-2, 3, (1500, 20)).astype(float))
    labels = torch.sign(gaussian(1500))
    hinge = clarke.subdifferential(
        lambda w: torch.relu(-labels * (data @ w)).mean() + 0.1 * w.abs().sum(), (zeros(20),)
    )
    assert hinge.contains(hinge.gradient).verify()
    assert hinge.is_stationary().stationary
    most = clarke.subdifferential(lambda w: (data @ w).amax(), (zeros(20),))
    assert most.contains(data.mean(0)).verify()
    assert most.contains(data[7]).inside
    far = most.contains(3 * data[7])
    assert far.inside is False
    assert far.verify()


def test_concave_sums_fall_from_where_zero_is_inside():
    matrix = gaussian(40, 6)
    found = clarke.subdifferential(lambda x: -(matrix @ x).abs().sum(), (zeros(6),))
    answer = found.is_stationary()
    assert answer.stationary
    assert answer.slope < 0


@pytest.mark.slow
def test_damaged_memberships_do_not_verify():
    matrix = gaussian(60, 4)
    found = clarke.subdifferential(lambda x: (matrix @ x).abs().sum(), (zeros(4),))
    inside = found.contains(found.gradient).certificate
    assert inside.verify()
    proof = inside.argument
    other = clarke.subdifferential(lambda x: x.abs().sum(), (zeros(4),)).contains(zeros(4).detach())
    moved = tuple(g + 0.1 for g in inside.gradient)
    for damage in (
        {"shares": proof.shares[:, ::-1].copy()},
        {"shares": proof.shares + 0.1},
        {"shares": None},
        {"regular": False},
        {"elements": proof.elements + 0.1},
        {"gradient": moved},
        {"program": other.certificate.program},
        {"allowed": proof.allowed + 1.0},
        {"inside": False},
    ):
        assert not altered(inside, **damage).sealed().verify(), damage
    outside = found.contains(100 * torch.ones(4, dtype=torch.float64)).certificate
    assert outside.verify()
    for damage in (
        {"direction": -outside.argument.direction},
        {"direction": None},
        {"distance": 2 * outside.argument.distance},
        {"inside": True},
        {"shares": proof.shares},
        {"regular": False, "inside": True},
    ):
        assert not altered(outside, **damage).sealed().verify(), damage
    bent = clarke.subdifferential(lambda x: x.abs().sum() - 2 * x[:2].sum().abs(), (zeros(4),))
    proof = bent.contains(bent.gradient).certificate
    forged = altered(proof, regular=True, shares=np.ones((1, 10)))
    assert not forged.sealed().verify()


def exact_point(vector):
    return tuple(Fraction(float(v)).limit_denominator(1 << 12) for v in vector)


@pytest.mark.slow
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    case=cases(n_vars=2, max_kinks=4), target=st.tuples(*[st.integers(-6, 6)] * 2), data=st.data()
)
def test_random_programs_against_exact_hulls(never_listed, case, target, data):
    x = torch.tensor([float(p) for p in case.point], dtype=torch.float64, requires_grad=True)
    program = to_torch(case.expr)
    found = clarke.subdifferential(program, (x,))
    if "not listed" not in repr(found):
        return
    hull = case.bouligand
    half = tuple(Fraction(t, 2) for t in target)
    corner = data.draw(st.sampled_from(sorted(hull)))
    for vector in (half, corner, exact_point(found.gradient[0])):
        asked = found.contains(torch.tensor([float(v) for v in vector], dtype=torch.float64))
        assert asked.inside is contains(hull, vector)
        assert asked.verify()
    (smallest,) = found.min_norm()
    assert contains(hull, exact_point(smallest)) or float(smallest.norm()) < 1e-6
    for element in hull:
        inner = sum(float(e) * float(s) for e, s in zip(element, smallest, strict=True))
        assert inner >= float(smallest @ smallest) - 1e-7
    answer = found.is_stationary()
    assert answer.stationary is contains(hull, (0, 0))
    lowest = min(
        min(float(e[0]) * c + float(e[1]) * s for e in hull)
        for c, s in zip(np.cos(np.arange(64)), np.sin(np.arange(64)), strict=True)
    )
    assert answer.descent is None or answer.slope >= lowest - 10
    # Listed after all, it is the same set.
    assert {exact_point(v) for v in found.bouligand().tolist()} == set(hull)
    corners = {v for v in hull if not contains(hull - {v}, v)} if len(hull) > 1 else set(hull)
    assert {exact_point(v) for v in found.vertices().tolist()} == corners


@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
@pytest.mark.parametrize("seed", range(3))
def test_maxima_of_all_sizes_against_their_vertices(never_listed, seed, scale):
    generator = np.random.default_rng(seed)
    rows = torch.tensor(generator.integers(-3, 4, (7, 3)).astype(float)) * scale
    more = torch.tensor(generator.integers(-3, 4, (4, 3)).astype(float))

    def program(x):
        return (rows @ x).amax() + torch.relu(more @ x).sum() + torch.relu((more[:2] @ x).amax())

    found = clarke.subdifferential(program, (zeros(3),))
    assert "not listed" in repr(found)
    listed = clarke.subdifferential(program, (zeros(3),)).found()
    weights = torch.softmax(gaussian(len(listed), seed=seed), 0)
    inside = found.contains(weights @ listed)
    assert inside.inside
    assert inside.verify()
    corners = found.vertices()
    for corner in corners[:4]:
        assert found.contains(corner).inside is True
        beyond = found.contains(corner + 1e-3 * (corner - listed.mean(0)))
        assert beyond.inside is False
        assert beyond.verify()
