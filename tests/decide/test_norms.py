"""Norms at zero among other kinks: a ball of slopes in every branch of the rest."""

import math
import random

import numpy as np
import pytest
import torch
from torch.nn.functional import relu

import clarke
from clarke import Verdict
from clarke.feasibility import minimum_norm_point
from reference.forgery import altered
from reference.leaves import leaf as point

RIGHT = (Verdict.SMOOTH, Verdict.BOULIGAND, Verdict.CLARKE)


def box(p, size=1.0):
    q = p.abs() - size
    outside = torch.maximum(q, torch.zeros_like(q)).norm()
    return outside + torch.minimum(q.max(), torch.zeros((), dtype=p.dtype))


def rounded(p):
    return box(p, 0.75) - 0.25


def hypot_box(p):
    q = p.abs() - 1
    return torch.linalg.vector_norm(relu(q[None]), dim=1).sum() + torch.minimum(
        q.amax(), torch.zeros((), dtype=p.dtype)
    )


def capsule(p):
    a, b = torch.tensor([[-1.0, 0.0], [1.0, 0.0]], dtype=p.dtype)
    along = ((p - a) @ (b - a) / ((b - a) @ (b - a))).clamp(0, 1)
    return (p - a - (b - a) * along).norm() - 0.5


@pytest.mark.parametrize(
    ("distance", "place", "away"),
    [
        (box, (1.0, 0.25), 0.5),
        (box, (-1.0, 0.25), 0.5),
        (box, (0.25, 1.0), 0.5),
        (box, (1.0, 0.25, 0.5), 0.5),
        (rounded, (0.75, 0.25), 0.5),
        (hypot_box, (1.0, 0.25), 0.5),
        # AD mixes all faces, and the set is the hull of an arc of unit vectors.
        (box, (1.0, 1.0), 0.5 / math.sqrt(2)),
        (box, (1.0, 1.0, 0.5), 0.5 / math.sqrt(2)),
        (box, (1.0, 1.0, 1.0), 0.5 / math.sqrt(3)),
    ],
)
def test_signed_distance_of_a_box(distance, place, away):
    report = clarke.check(distance, (point(*place),))
    assert report.verdict is Verdict.NOT_CLARKE
    assert report.certificate.argument.distance == pytest.approx(away, rel=1e-6)
    assert float(report.element[0].norm()) == pytest.approx(1, rel=1e-6)
    assert report.certificate.verify()


@pytest.mark.parametrize(
    ("size", "place"),
    [(1.0, (1.0, 0.25)), (0.3, (0.3, 0.1)), (0.7, (0.1, 0.7, 0.2)), (0.7, (0.7, 0.7))],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_type_that_ran_says_what_is_zero(size, place, dtype):
    """In float64 the argument of the norm is 1e-8, and the norm has a slope."""
    x = torch.tensor(place, dtype=dtype, requires_grad=True)
    report = clarke.check(lambda p: box(p, size), (x,))
    assert report.verdict is Verdict.NOT_CLARKE
    assert report.certificate.verify()


@pytest.mark.parametrize("place", [(1.0, 0.25), (1.0, 1.0), (1.0, 1.0, 0.5)])
def test_a_right_slope_of_a_box(place):
    """A unit vector outward is a limit of gradients, and the mean of two is a mean."""
    x = point(*place)
    outward = torch.zeros_like(x)
    outward[0] = 1.0
    report = clarke.check(box, (x,), gradient=(outward,))
    assert report.verdict in RIGHT
    assert report.certificate.verify()


@pytest.mark.parametrize("place", [(0.5, 0.0), (1.0, 0.0), (-1.0, 0.0)])
def test_capsule_on_its_axis(place):
    report = clarke.check(capsule, (point(*place),))
    assert report.verdict is Verdict.CLARKE
    assert report.certificate.verify()
    wrong = torch.tensor([0.0, 1.25], dtype=torch.float64)
    report = clarke.check(capsule, (point(*place),), gradient=(wrong,))
    assert report.verdict is Verdict.NOT_CLARKE
    assert report.certificate.verify()


@pytest.mark.parametrize("at_the_end", [0.5, -0.5])
def test_one_end_of_a_capsule_has_half_a_disc(at_the_end):
    """At the end beyond the segment gradients point outward or across, never inward."""
    g = torch.tensor([at_the_end, 0.0], dtype=torch.float64)
    report = clarke.check(capsule, (point(1.0, 0.0),), gradient=(g,))
    assert report.verdict is (Verdict.CLARKE if at_the_end > 0 else Verdict.NOT_CLARKE)
    assert report.certificate.verify()


def along_a_line(x):
    return torch.stack([x, 2 * x]).norm() - math.sqrt(5) * (relu(x) + relu(-x)) + x


def test_a_norm_of_one_line_is_an_absolute_value():
    """The norm is sqrt(5)|x|, which the ReLUs take away: the function is x."""
    x = torch.zeros((), dtype=torch.float64, requires_grad=True)
    assert clarke.check(along_a_line, (x,)).correct
    report = clarke.check(along_a_line, (x,), gradient=(torch.tensor(0.5, dtype=torch.float64),))
    assert report.verdict is Verdict.NOT_CLARKE
    assert float(report.element[0]) == pytest.approx(1)


@pytest.mark.parametrize(
    "norm",
    [
        lambda v: v.norm(),
        lambda v: torch.linalg.vector_norm(v[None], dim=1, keepdim=True).sum(),
        lambda v: torch.cdist(v[None], torch.zeros_like(v)[None]).sum(),
        lambda v: torch.dist(v, torch.zeros_like(v)),
        lambda v: torch.cat([v, -v]).std() * math.sqrt((2 * len(v) - 1) / 2),
        lambda v: torch.complex(v[0], v[1]).abs(),
    ],
)
def test_every_kind_of_norm(norm):
    """Two ReLUs under a norm: limits are the unit vectors of a quadrant, and 0."""

    def loss(x):
        return norm(relu(x)) + relu(-x).sum()

    inside = torch.tensor([0.25, 0.25], dtype=torch.float64)
    outside = torch.tensor([0.75, 0.75], dtype=torch.float64)
    for gradient, right in ((inside, True), (outside, False)):
        report = clarke.check(loss, (point(0.0, 0.0),), gradient=(gradient,))
        assert report.correct is right, (gradient, report)


def test_a_forged_distance_is_rejected():
    proof = clarke.check(box, (point(1.0, 0.25),)).certificate
    for forged in (
        altered(proof, gap=proof.argument.gap * 2),
        altered(proof, distance=proof.argument.distance * 2),
        altered(proof, direction=-proof.argument.direction),
        altered(proof, gradient=(torch.tensor([1.0, 0.0], dtype=torch.float64),)),
    ):
        assert not forged.verify()
        assert not forged.sealed().verify()


def random_program(rng, n):
    def rows(m):
        return torch.tensor(
            [[rng.choice([-2, -1, 0, 0, 1, 1, 2]) for _ in range(n)] for _ in range(m)],
            dtype=torch.float64,
        )

    a, b = rows(rng.randint(1, 3)), rows(1)
    inner = rng.choice([relu, torch.abs, lambda v: v, lambda v: torch.maximum(v, -2 * v)])
    factor = rng.choice([1.0, -1.0, 2.0])
    others = [(rows(1)[0], rng.choice([1.0, -1.0, 0.5])) for _ in range(rng.randint(1, 2))]

    def loss(x):
        total = factor * (inner(a @ x) - relu(b @ x)).norm()
        return total + sum(c * relu(row @ x) for row, c in others)

    return loss


def beside(loss, n, count=300):
    generator = torch.Generator().manual_seed(1)
    found = []
    for i in range(count):
        d = torch.randn(n, dtype=torch.float64, generator=generator)
        if i % 2:
            d = d.sign() * torch.rand(n, dtype=torch.float64, generator=generator) ** 4
        x = (1e-6 * d).requires_grad_()
        found.append(torch.autograd.grad(loss(x), x)[0])
    return torch.stack(found)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(12))
def test_against_gradients_beside_the_point(seed):
    rng = random.Random(seed)  # noqa: S311 - no secret
    n = rng.randint(1, 3)
    loss, x = random_program(rng, n), point(*[0.0] * n)
    nearby = beside(loss, n)
    middle = nearby[:5].mean(0)
    assert clarke.check(loss, (x,), gradient=(middle,)).correct is not False
    far = middle + torch.tensor([rng.choice([-1.0, 0.5, 3.0]) for _ in range(n)])
    distance = np.linalg.norm(_nearest(nearby - far))
    report = clarke.check(loss, (x,), gradient=(far,))
    if report.verdict is Verdict.NOT_CLARKE:
        assert distance > 1e-6
        assert np.linalg.norm(_nearest(nearby - report.element[0])) < 0.3
    elif report.correct:
        assert distance < 0.2


def _nearest(points):
    return minimum_norm_point(points.numpy()) @ points.numpy()
