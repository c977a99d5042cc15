"""Goldstein's set: every piece that meets a ball, against all sign vectors and against samples."""

import itertools
import math
from fractions import Fraction
from random import Random

import numpy as np
import pytest
import torch

import clarke
from reference.hull import farkas, strict_direction


def at(*values):
    return torch.tensor(values, dtype=torch.float64, requires_grad=True)


def sorted_rows(tensor):
    return sorted(tensor.tolist())


def test_a_kink_on_the_border_of_the_ball_counts():
    def function(x):
        return (x - 1).abs().sum()

    whole = clarke.goldstein(function, (at(0.0),), eps=1.0)
    assert whole.exact
    assert sorted_rows(whole.vertices()) == [[-1.0], [1.0]]
    assert whole.verify()
    below = clarke.goldstein(function, (at(0.0),), eps=math.nextafter(1.0, 0.0))
    assert sorted_rows(below.vertices()) == [[-1.0]]
    assert below.contains(torch.tensor([-1.0])) is True
    assert below.contains(torch.tensor([0.0])) is False


def test_a_tie_at_the_border_of_a_round_ball_is_told_exactly():
    def function(v):
        return torch.relu(3 * v[0] + 4 * v[1] - 5)

    assert len(clarke.goldstein(function, (at(0.0, 0.0),), eps=1.0).elements) == 2
    less = math.nextafter(1.0, 0.0)
    assert len(clarke.goldstein(function, (at(0.0, 0.0),), eps=less).elements) == 1
    # In a cube the plane is nearer: at 5/7.
    assert len(clarke.goldstein(function, (at(0.0, 0.0),), eps=0.72, norm=math.inf).elements) == 2
    assert len(clarke.goldstein(function, (at(0.0, 0.0),), eps=0.71, norm=math.inf).elements) == 1


def all_pieces(rows, ends, factors, eps):
    """The gradients of all sign vectors of sum c |a x - b| whose closed cell meets the cube."""
    n, found = len(rows[0]), set()
    for signs in itertools.product((1, -1), repeat=len(rows)):
        own = [[s * v for v in (*a, -b)] for s, a, b in zip(signs, rows, ends, strict=True)]
        ahead = [*([0] * n), 1]
        if strict_direction([*own, ahead], n + 1) is None:
            continue
        # x = u - eps, u + w = 2 eps, and the rows with slack: all unknowns positive.
        size = len(rows) + n
        columns = []
        for j in range(n):
            unit = [int(k == j) for k in range(n)]
            columns += [tuple([r[j] for r in own] + unit), tuple([0] * len(rows) + unit)]
        columns += [tuple(-int(k == i) for k in range(size)) for i in range(len(rows))]
        right = [eps * sum(r[:-1]) - r[-1] for r in own] + [2 * eps] * n
        if farkas([tuple(map(Fraction, c)) for c in columns], tuple(map(Fraction, right)))[0]:
            terms = zip(factors, signs, rows, strict=True)
            found.add(
                tuple(map(sum, zip(*[[c * s * v for v in a] for c, s, a in terms], strict=True)))
            )
    return found


@pytest.mark.parametrize("seed", range(12))
def test_every_piece_that_meets_a_cube_is_found(seed):
    random = Random(seed)  # noqa: S311 - repeatable, no secret
    n, many = random.choice((1, 2, 2, 3)), random.choice((2, 3, 4))
    rows = [[random.choice((0, 1, -1, 2)) for _ in range(n)] for _ in range(many)]
    rows = [r if any(r) else [1] * n for r in rows]
    ends = [random.choice((0, 1, -1, 2, 3)) for _ in rows]
    factors = [random.choice((1, 2, -1, 4)) for _ in rows]
    eps = random.choice((Fraction(1, 2), Fraction(1), Fraction(3, 2)))
    a, b, c = (torch.tensor(v, dtype=torch.float64) for v in (rows, ends, factors))
    found = clarke.goldstein(
        lambda x: (c * (a @ x - b).abs()).sum(), (at(*[0.0] * n),), eps=float(eps), norm=math.inf
    )
    assert found.exact
    assert {tuple(g) for g in found.elements.tolist()} == all_pieces(rows, ends, factors, eps)
    assert found.verify()


def nested(v):
    x, y = v
    return torch.relu(x.abs() - torch.maximum(y, 0.5 - x)) - (y - torch.relu(x - y)).abs()


@pytest.mark.parametrize("norm", [2, math.inf])
@pytest.mark.parametrize(
    "function",
    [
        nested,
        lambda v: (v[0] - v.clamp(-0.25, 0.5)).abs().sum() + v.max(),
        lambda v: torch.nn.functional.leaky_relu(v - 0.25, 0.5).sum().abs() - v.abs().amax(),
        lambda v: torch.where(v > 0.25, v - 0.25, 0.25 - v).sum().relu(),
    ],
)
def test_no_gradient_of_the_ball_is_missing(function, norm):
    found = clarke.goldstein(function, (at(0.1, 0.2),), eps=0.5, norm=norm)
    assert found.exact
    assert found.verify()
    known = found.elements.numpy()
    generator = np.random.default_rng(0)
    for _ in range(60):
        step = generator.uniform(-0.5, 0.5, 2)
        if np.linalg.norm(step, ord=norm) > 0.5:
            continue
        x = torch.from_numpy(np.array([0.1, 0.2]) + step).requires_grad_()
        (own,) = torch.autograd.grad(function(x), x)
        assert (np.abs(known - own.numpy()).max(axis=1) < 1e-12).any()


def test_near_stationarity_says_yes_and_no_with_what_shows_it():
    """Beside the valley of |x| + 10 |y - |x||, no gradient at the point is small."""

    def valley(v):
        return v[0].abs() + 10 * (v[1] - v[0].abs()).abs()

    x = at(0.01, 0.02)
    assert torch.autograd.grad(valley(x), x)[0].norm() > 10
    wide = clarke.goldstein(valley, (x,), eps=0.05)
    told = wide.near_stationary(0.01)
    assert told
    assert abs(told.weights.sum() - 1) < 1e-12
    assert np.linalg.norm(told.weights @ told.elements) <= 0.01
    assert (np.linalg.norm(told.points - [0.01, 0.02], axis=1) <= 0.05 + 1e-12).all()
    narrow = clarke.goldstein(valley, (x,), eps=0.001)
    told = narrow.near_stationary(1.0)
    assert told.answer is False
    assert told.bound > 1.0
    assert narrow.near_stationary(told.norm)
    # The smallest element is a direction of descent for all of the ball.
    (short,) = narrow.min_norm()
    step = 0.001 * short / short.norm()
    assert valley(x - step) <= valley(x) - 0.001 * told.bound * (1 - 1e-9)


def test_curved_programs_are_known_from_below():
    def curved(v):
        return v.tanh().abs().sum() + (v**2).sum()

    found = clarke.goldstein(curved, (at(0.01, 0.02),), eps=0.05)
    assert not found.exact
    assert "bends" in found.why
    assert found.verify()
    assert found.near_stationary(0.3).answer is True
    far = clarke.goldstein(curved, (at(1.0, 2.0),), eps=0.05)
    assert far.near_stationary(0.3).answer is None
    with pytest.raises(clarke.UnsupportedError, match="undecided"):
        bool(far.near_stationary(0.3))
    with pytest.raises(clarke.UnsupportedError, match="from below"):
        far.vertices()
    assert far.contains(torch.zeros(2)) is None


def test_what_cannot_be_answered_is_refused():
    with pytest.raises(clarke.UnsupportedError, match="read into Python"):
        clarke.goldstein(lambda v: v.sum() if v.sum() > 0 else v.abs().sum(), (at(1.0),), eps=0.1)
    with pytest.raises(clarke.InputError, match="radius"):
        clarke.goldstein(lambda v: v.sum(), (at(1.0),), eps=0.0)
    with pytest.raises(clarke.InputError, match="round"):
        clarke.goldstein(lambda v: v.sum(), (at(1.0),), eps=1.0, norm=1)
    with pytest.raises(clarke.InputError, match="entries"):
        clarke.goldstein(lambda v: v.sum(), (at(1.0),), eps=1.0).contains(torch.zeros(2))
