"""Local minima by second order, against exact rationals and values beside the point."""

import os
from fractions import Fraction
from itertools import pairwise, product

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import clarke
from reference.leaves import zeros


def answer(function, size=2):
    told = clarke.subdifferential(function, (zeros(size),)).is_local_minimum()
    return told.minimum, told.strict, told.order


F = torch.nn.functional
FUZZ = int(os.environ.get("CLARKE_FUZZ", "0"))

KNOWN = [
    (lambda x: x[0].abs() + x[1] ** 2, (True, True, 2)),
    (lambda x: x[0].abs() - x[1] ** 2, (False, False, 2)),
    (lambda x: (x[0] - x[1]) ** 2, (True, False, 2)),
    (lambda x: x[0] ** 2 - x[1] ** 2, (False, False, 2)),
    (lambda x: x[0].abs() - torch.cos(x[1]), (True, True, 2)),
    (lambda x: x[0].abs() + x[0] * x[1], (True, False, 2)),
    # The critical cone is a quadrant: copositive there, though not positive semidefinite.
    (lambda x: torch.relu(-x).sum() + x[0] * x[1], (True, False, 2)),
    (lambda x: torch.relu(-x).sum() - x[0] * x[1], (False, False, 2)),
    (lambda x: torch.relu(-x).sum() + (x * x).sum() + 5 * x[0] * x[1], (True, True, 2)),
    # No kink that changes the gradient, and curvature that changes across one.
    (lambda x: (x * x.abs()).sum(), (False, False, 2)),
    (lambda x: (torch.relu(x) ** 2).sum(), (True, False, 2)),
    (lambda x: (torch.relu(x) ** 2 + 2 * torch.relu(-x) ** 2).sum(), (True, True, 2)),
    (lambda x: x[0].abs() + 1e-8 * x[1] ** 2, (True, True, 2)),
    # Where second order does not tell, nothing is said.
    (lambda x: x[0].abs() + x[1] ** 3, (None, None, None)),
    (lambda x: x[0].abs() + x[1] ** 4, (None, None, None)),
    (lambda x: (x[0] - x[1] ** 2).abs() + x[1] ** 2, (None, None, None)),
    # Second derivatives that jump where no rule of clarke's looks: torch returns one of them.
    (lambda x: (F.elu(x) - x).sum(), (None, None, None)),
    (lambda x: F.huber_loss(x + 1, 0 * x, reduction="sum") - x.sum(), (None, None, None)),
]


@pytest.mark.parametrize(("function", "wanted"), KNOWN)
def test_known(function, wanted):
    assert answer(function) == wanted


@pytest.mark.parametrize("slope", [1e-10, 1e-12])
def test_curvature_does_not_hide_a_slight_slope(slope):
    kinked = answer(lambda x: x[0].abs() + slope * x[1] + x[1] ** 2)
    smooth = answer(lambda x: x[0] ** 2 + slope * x[1] + x[1] ** 2)
    assert kinked[0] is not True
    assert smooth[0] is not True


def test_a_direction_of_negative_curvature():
    def function(x):
        return x[0].abs() * x[1] + x[1] ** 2

    told = clarke.subdifferential(function, (zeros(2),)).is_local_minimum()
    assert told.minimum is False
    assert told.slope == 0
    assert told.curvature < 0
    down = told.descent[0]
    assert float(function(1e-3 * down)) == pytest.approx(1e-6 * told.curvature / 2)


def test_a_sparse_regression_at_its_solution():
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(60, 40, dtype=torch.float64, generator=generator)
    assert answer(lambda x: x.abs().sum() + (matrix @ x).square().sum(), 40) == (True, True, 1)

    def half(x):  # weights of the penalty only where the loss falls as fast: a face of slopes zero
        return x[:20].abs().sum() - x[:20].sum() + (matrix @ x).square().sum()

    assert answer(half, 40) == (True, True, 2)

    def saddle(x):
        return x[:3].abs().sum() - x[:3].sum() + x.square().sum() - 3 * x[4] ** 2

    assert answer(saddle, 5)[0] is False


# ---------------------------------------------------------------- against exact rationals

small = st.integers(-3, 3)
vectors = st.tuples(small, small)


@st.composite
def piecewise_quadratic(draw, size):
    """Terms c|a x|, c (b x) relu(a x) and a quadratic form: kinks all go through zero."""
    rows = st.tuples(*[small] * size)
    return (
        draw(st.lists(st.tuples(small, rows), max_size=3)),
        draw(st.lists(st.tuples(small, rows, rows), max_size=2)),
        draw(st.lists(st.tuples(small, rows, rows), max_size=3)),
    )


def parts(terms, x, relu=lambda v: max(v, 0)):
    """The summands of degree one and of degree two."""
    kinks, curved, forms = terms

    def dot(a):
        return sum(p * v for p, v in zip(a, x, strict=True))

    first = sum(c * (relu(dot(a)) + relu(-dot(a))) for c, a in kinks)
    second = sum(c * dot(b) * relu(dot(a)) for c, a, b in curved)
    return first, second + sum(c * dot(a) * dot(b) for c, a, b in forms)


def in_torch(terms):
    def function(x):
        first, second = parts(terms, x, torch.relu)
        return first + second + 0 * x.sum()

    return function


def half_plane(v):
    return v[1] < 0 or (v[1] == 0 and v[0] < 0)


def around(vectors):
    """Directions in the plane by their angle, exactly, and the first again."""

    def steep(v):
        upper = v if not half_plane(v) else (-v[0], -v[1])
        return half_plane(v), Fraction(-upper[0], abs(upper[0]) + abs(upper[1]))

    by_angle = {steep(v): v for v in vectors}
    found = [by_angle[key] for key in sorted(by_angle)]
    return [*found, found[0]]


def exactly(terms):
    """Whether zero is a minimum, and a strict one: sector by sector between the kinks."""
    kinks, curved, _ = terms
    normals = [(1, 0), (0, 1), *(a for _, a in kinks if any(a)), *(a for _, a, _ in curved)]
    rays = [s for a, b in normals if (a, b) != (0, 0) for s in ((-b, a), (b, -a))]
    least, strict = True, True
    for u, v in pairwise(around(rays)):
        (one, a), (other, c) = parts(terms, u), parts(terms, v)
        if one < 0 or other < 0:
            return False, False
        for slope, own in ((one, a), (other, c)):
            if slope == 0:
                least, strict = least and own >= 0, strict and own > 0
        if one == other == 0:
            b = parts(terms, (u[0] + v[0], u[1] + v[1]))[1] - a - c
            least = least and (b >= 0 or b * b <= 4 * a * c)
            strict = strict and (b >= 0 or b * b < 4 * a * c)
    return least, least and strict


@pytest.mark.slow
@settings(max_examples=FUZZ or 12, deadline=None, suppress_health_check=list(HealthCheck))
@given(terms=piecewise_quadratic(2))
def test_planes_against_exact_sectors(terms):
    found = clarke.subdifferential(in_torch(terms), (zeros(2),))
    told = found.is_local_minimum()
    assert (told.minimum, told.strict) == exactly(terms), terms


@settings(max_examples=FUZZ or 6, deadline=None, suppress_health_check=list(HealthCheck))
@given(terms=piecewise_quadratic(3))
def test_space_against_values(terms):
    told = clarke.subdifferential(in_torch(terms), (zeros(3),)).is_local_minimum()
    assert told.minimum is not None
    signs = [parts(terms, d) for d in product(range(-4, 5), repeat=3) if any(d)]
    if told.minimum:
        assert min(signs) >= (0, 0)
    if told.strict:
        assert all(s > (0, 0) for s in signs)
    if told.minimum is False:
        # On a ray a multiple of the slope is added to one of the curvature.
        first, second = parts(terms, told.descent[0].tolist())
        assert first < -1e-9 or (abs(first) < 1e-9 and second < 0)
