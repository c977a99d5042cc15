"""Sets around norms of zero: balls, sums of them with other kinks, maxima, and differences."""

import math

import numpy as np
import pytest
import torch

import clarke
from reference.forgery import altered
from reference.leaves import zeros
from reference.proofs import CHECKED, own

MATRIX = torch.tensor([[1.0, 2.0, 0.0], [0.0, -1.0, 1.0]], dtype=torch.float64)


def norm_of_rows(x):
    return x.view(3, 2).norm(dim=1)


CONVEX = {
    "a norm": (lambda x: x.norm(), 3),
    "a vector norm": (torch.linalg.vector_norm, 3),
    "Frobenius": (lambda x: torch.linalg.matrix_norm(x.view(2, 3)), 6),
    "a hypotenuse": (lambda x: torch.hypot(x[0], x[1]) + x[2].abs(), 3),
    "a modulus": (lambda x: torch.complex(x[0], x[1]).abs(), 2),
    "one line": (lambda x: x[:1].norm() + (2 * x[:2]).norm(), 2),
    "norms of multiples": (lambda x: (MATRIX @ x).norm() + x.norm() - 0.5 * x[1], 3),
    "beside kinks": (lambda x: x.norm() + 2 * x[0].abs() + torch.relu(x).sum(), 3),
    "group lasso": (lambda x: norm_of_rows(x).sum() + 0.5 * x.abs().sum(), 6),
    "distances": (lambda x: torch.cdist(x.view(3, 2)[:1], x.view(3, 2)[1:]).sum(), 6),
    "pairs": (lambda x: torch.pdist(x.view(3, 2)).sum(), 6),
    "the largest": (lambda x: torch.maximum(x[:2].norm(), x[2:].norm()), 4),
    "the larger of kinds": (lambda x: torch.maximum((MATRIX @ x).norm(), x[2].abs()), 3),
    "curved": (lambda x: torch.linalg.vector_norm(torch.sin(x)) + (x * x).sum(), 3),
}
BOTH_WAYS = {
    "less a kink": (lambda x: x.norm() - x[0].abs(), 3),
    "a norm of kinks": (lambda x: torch.relu(x).norm(), 3),
    "less a multiple": (lambda x: x.norm() - (2 * x).norm() + x[0].abs(), 3),
    "signs by group": (
        lambda x: norm_of_rows(x) @ torch.tensor([1.0, -1.0, 2.0]).double() - x[0].abs(),
        6,
    ),
}


def beside(function, size, count=60, seed=0):
    """Gradients at random points beside zero."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(count):
        x = 1e-7 * torch.randn(size, dtype=torch.float64, generator=generator)
        x.requires_grad_()
        found += torch.autograd.grad(function(x), x)
    return torch.stack(found)


def slope(function, direction):
    step = 1e-7
    return float(function(step * direction) - function(0 * direction)) / step


QUICK = ("a norm", "beside kinks", "the largest", "less a kink")
SLOWER = [
    pytest.param(n, marks=() if n in QUICK else pytest.mark.slow) for n in (*CONVEX, *BOTH_WAYS)
]


@pytest.mark.parametrize("name", SLOWER)
def test_answers_against_gradients_beside_the_point(name):
    function, size = {**CONVEX, **BOTH_WAYS}[name]
    found = clarke.subdifferential(function, (zeros(size),))
    near = beside(function, size)
    # The limit along a ray to the last digits, where the function is no curve.
    for one in near[:3]:
        told = found.contains(one, tolerance=1e-6)
        assert told.inside is not False
        if name in CONVEX:
            assert told.inside
            assert told.verify()
    mean = found.contains(near[:40].mean(0), tolerance=1e-6)
    assert mean.inside
    assert mean.verify()
    far = found.contains(3 * near[near.norm(dim=1).argmax()] + 1)
    assert far.inside is False
    assert far.verify()
    separated = torch.from_numpy(far.direction) @ (3 * near[near.norm(dim=1).argmax()] + 1)
    assert float((near @ torch.from_numpy(far.direction)).max()) < float(separated)
    direction = near[0] + 0.3
    assert found.directional(direction) == pytest.approx(slope(function, direction), abs=1e-5)
    assert found.certificate("directional", direction).defects() == ()


@pytest.mark.parametrize("name", SLOWER[: len(CONVEX)])
def test_smallest_elements_and_minima(name):
    function, size = CONVEX[name]
    tilt = torch.linspace(1.0, 3.0, size, dtype=torch.float64)
    for factor in (0.0, 4.0):
        found = clarke.subdifferential(
            lambda x, f=factor: function(x) + f * (tilt @ x), (zeros(size),)
        )
        (smallest,) = found.min_norm()
        near = beside(function, size) + factor * tilt
        least = float(smallest @ smallest)
        assert float((near @ smallest).min()) >= least - 1e-5 * (1 + least)
        assert found.certificate("min_norm").verify()
        answer = found.is_stationary()
        assert answer.certificate.verify()
        minimum = found.is_local_minimum()
        if answer.stationary:
            assert least < 1e-12
            assert minimum.minimum
        else:
            (down,) = answer.descent
            assert slope(lambda x, f=factor: function(x) + f * (tilt @ x), down) < -0.1
            assert minimum.minimum is False


def test_a_ball_to_the_last_digit():
    found = clarke.subdifferential(lambda x: x.norm(), (zeros(3),))
    unit = torch.tensor([2.0, -1.0, 2.0], dtype=torch.float64) / 3
    assert found.contains(unit).inside
    assert found.contains(unit * (1 + 1e-12)).inside is False
    assert found.contains(unit * (1 + 1e-12)).verify()
    minimum = found.is_local_minimum()
    assert (minimum.minimum, minimum.strict, minimum.order) == (True, True, 1)
    valley = clarke.subdifferential(lambda x: x[:2].norm(), (zeros(3),)).is_local_minimum()
    assert valley.strict is False


@pytest.mark.parametrize("scale", [1e-8, 1e8])
def test_scales(scale):
    units = torch.tensor([1.0, scale, 1.0], dtype=torch.float64)
    found = clarke.subdifferential(lambda x: (units * x).norm() + x[2].abs(), (zeros(3),))
    for share, inside in ((0.999999, True), (1.000001, False)):
        vector = share * units * torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64)
        told = found.contains(vector)
        assert told.inside is inside
        assert told.verify()


def test_a_thousand_groups():
    found = clarke.subdifferential(lambda x: x.view(500, 2).norm(dim=1).sum(), (zeros(1000),))
    inside = torch.full((1000,), 0.5, dtype=torch.float64)
    assert found.contains(inside).inside
    assert found.contains(2 * inside).inside is False
    assert found.directional(inside) == pytest.approx(500 * math.sqrt(0.5))


def test_norms_that_cancel_leave_one_gradient():
    found = clarke.subdifferential(lambda x: x.norm() - x.norm() + x[0], (zeros(3),))
    assert found.min_norm()[0].tolist() == [1.0, 0.0, 0.0]
    assert found.contains(torch.tensor([1.0, 0.1, 0.0], dtype=torch.float64)).inside is False


def test_the_half_disc_of_a_difference():
    found = clarke.subdifferential(lambda x: x.norm() - x[0].abs(), (zeros(2),))
    for vector, inside in (
        ([1.0, 1.0], True),
        ([-1.0, -1.0], True),
        ([0.0, 0.9], True),
        ([1.1, 0.0], False),
    ):
        # At x[0] > 0 the slopes are u - (1, 0) with u[0] >= 0: a quarter on either side.
        told = found.contains(torch.tensor(vector, dtype=torch.float64))
        assert told.inside is inside
        assert told.verify()
    concave = clarke.subdifferential(lambda x: -x.norm(), (zeros(2),))
    assert concave.is_local_minimum().minimum is False
    assert concave.frechet(zeros(2).detach()).inside is False
    assert concave.is_stationary().stationary


@pytest.mark.parametrize("name", ["beside kinks", "less a kink"])
def test_files_and_forgeries(name, tmp_path):
    function, size = {**CONVEX, **BOTH_WAYS}[name]
    found = clarke.subdifferential(function, (zeros(size),))
    near = beside(function, size)[:20]
    for vector in (near.mean(0), 3 * near[0] + 1):
        told = found.contains(vector)
        path = clarke.save_certificate(told.certificate, tmp_path / "ball.clarke")
        assert own(path) == (CHECKED, "")
        argument = told.certificate.argument
        for field in ("elements", "weights", "shares", "directions", "direction"):
            value = getattr(argument, field)
            if value is None or not value.size:
                continue
            other = value.copy()
            other.flat[0] += 0.25
            forged = altered(told.certificate, **{field: other})
            assert not forged.verify(), field


def test_lists_are_refused_in_a_sentence():
    found = clarke.subdifferential(lambda x: x.norm() + x[0].abs(), (zeros(3),))
    for ask in (found.vertices, found.bouligand, found.found, found.count, found.stream):
        with pytest.raises(clarke.UnsupportedError, match=r"is a norm of zero: .* no list holds"):
            ask()
    assert "vertices not listed" in str(found)


def test_norms_on_which_other_kinks_depend_are_refused():
    with pytest.raises(clarke.BudgetError, match="depends on a norm at zero"):
        clarke.subdifferential(lambda x: torch.relu(x[:2].norm() - x[2:].norm()), (zeros(4),))


@pytest.mark.parametrize("count", [3, pytest.param(200, marks=pytest.mark.slow)])
def test_random_sums(count):
    """Convex sums of norms and kinks against their support function, written down by hand."""
    for seed in range(count):
        random = np.random.default_rng(seed)
        size = int(random.integers(2, 5))
        balls = [torch.tensor(random.integers(-2, 3, (2, size)).astype(float)) for _ in range(2)]
        lines = torch.tensor(random.integers(-2, 3, (2, size)).astype(float))

        def function(x, balls=balls, lines=lines):
            return sum((a @ x).norm() for a in balls) + (lines @ x).abs().sum()

        found = clarke.subdifferential(function, (zeros(size),))
        direction = torch.tensor(random.standard_normal(size))
        # The element farthest along a direction, and one just beyond it.
        parts = [a.T @ (a @ direction) / max(float((a @ direction).norm()), 1e-300) for a in balls]
        corner = sum(parts) + lines.T @ torch.sign(lines @ direction)
        assert found.contains(corner, tolerance=1e-7).inside
        beyond = found.contains(corner + 1e-6 * direction)
        assert beyond.inside is False
        assert beyond.verify()
        assert found.directional(direction) == pytest.approx(float(corner @ direction))
