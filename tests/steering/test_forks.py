"""Jumps that cancel, jumps that do not, and the indices and counts behind ties."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F  # noqa: N812 - the usual name

import clarke
from clarke.verdict import Verdict
from reference.masks import in_hull

DTYPES = (torch.float64, torch.float32)


def leaf(values, dtype=torch.float64):
    return torch.tensor(values, dtype=dtype, requires_grad=True)


def distance(x):
    return (x - x.round()).abs()


def wave(x):
    return (2 * (x - (x + 0.5).floor())).abs()


# Limits of gradients: all of them, by hand, at one point each.
CONTINUOUS = {
    "distance to the nearest whole number": (lambda x: distance(x).sum(), [0.5], {(1.0,), (-1.0,)}),
    "the same, odd": (lambda x: distance(x).sum(), [1.5], {(1.0,), (-1.0,)}),
    "the same on a number": (lambda x: distance(x).sum(), [2.0], {(1.0,), (-1.0,)}),
    "triangle wave": (lambda x: wave(x).sum(), [0.5], {(2.0,), (-2.0,)}),
    "fractional part in a sine": (
        lambda x: torch.sin(2 * math.pi * (x - x.floor())).sum(),
        [3.0],
        {(2 * math.pi,)},
    ),
    "frac in a cosine": (lambda x: torch.cos(2 * math.pi * x.frac()).sum(), [2.0], {(0.0,)}),
    "shifted copies": (
        lambda x: torch.minimum(x - x.floor(), x.floor() + 1 - x).sum(),
        [1.0],
        {(1.0,), (-1.0,)},
    ),
    "remainder": (lambda x: torch.minimum(x % 1, 1 - x % 1).sum(), [1.0], {(1.0,), (-1.0,)}),
    "fmod": (
        lambda x: torch.minimum(torch.fmod(x, 2), 2 - torch.fmod(x, 2)).sum(),
        [2.0],
        {(1.0,), (-1.0,)},
    ),
    "folded by parity": (
        lambda x: torch.where(x.floor() % 2 == 0, x - x.floor(), x.floor() + 1 - x).sum(),
        [1.0],
        {(1.0,), (-1.0,)},
    ),
    "floor and rest": (lambda x: (x.floor() + (x - x.floor())).sum(), [2.0], {(1.0,)}),
    "a whole number cast": (
        lambda x: (x - x.long()).mul(2 * math.pi).cos().sum(),
        [2.0],
        {(0.0,)},
    ),
    "division": (
        lambda x: distance(x - torch.div(x, 2, rounding_mode="floor") * 2).sum(),
        [2.0],
        {(1.0,), (-1.0,)},
    ),
    "absolute value by a sign": (lambda x: (x.sign() * x).sum(), [0.0], {(1.0,), (-1.0,)}),
    "where it differs from zero": (lambda x: (x * x.bool()).sum(), [0.0], {(1.0,)}),
    "two at once": (
        lambda x: distance(x).sum(),
        [0.5, 1.5],
        {(a, b) for a in (1.0, -1.0) for b in (1.0, -1.0)},
    ),
    "behind a sum": (lambda x: distance(x.sum()), [0.25, 0.25], {(1.0, 1.0), (-1.0, -1.0)}),
    "argsort": (
        lambda x: (x[x.argsort()] * torch.tensor([1.0, 2.0]).to(x)).sum(),
        [1.0, 1.0],
        {(1.0, 2.0), (2.0, 1.0)},
    ),
    "topk indices": (
        lambda x: x[x.topk(2).indices].sum(),
        [1.0, 1.0, 1.0],
        {(1.0, 1.0, 0.0), (1.0, 0.0, 1.0), (0.0, 1.0, 1.0)},
    ),
    "gathered by rows": (
        lambda x: x.reshape(2, 2).gather(1, x.reshape(2, 2).argmax(1, keepdim=True)).sum(),
        [1.0, 1.0, 1.0, 0.0],
        {(1.0, 0.0, 1.0, 0.0), (0.0, 1.0, 1.0, 0.0)},
    ),
    "nonzero": (
        lambda x: x[(x > 0).nonzero()[:, 0]].sum(),
        [0.0, 1.0],
        {(0.0, 1.0), (1.0, 1.0)},
    ),
}

JUMPS = {
    "a fractional part": (lambda x: (x - x.floor()).sum(), [1.0]),
    "a rest": (lambda x: (x % 1).sum(), [1.0]),
    "beside the point": (lambda x: (x[0] - x[0].floor()) * x[1], [1.0, 0.0]),
    "of higher order": (lambda x: x[0].floor() * x[1] ** 2 + x.sum(), [1.0, 0.0]),
    "small": (lambda x: (x + 1e-9 * x.floor()).sum(), [1.0]),
    "one of two": (lambda x: distance(x[0]) + x[1].ceil(), [0.5, 1.0]),
    "index of a tie": (lambda x: torch.arange(2.0).to(x)[x.argsort()][0] + x.sum(), [1.0, 1.0]),
}


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", CONTINUOUS)
def test_jumps_that_cancel(name, dtype):
    function, values, limits = CONTINUOUS[name]
    x = leaf(values, dtype)
    report = clarke.check(function, (x,))
    (gradient,) = torch.autograd.grad(function(x), x)
    right = in_hull(np.array(sorted(limits)), gradient.double().numpy(), 1e-5)
    assert report.correct is right, report
    result = clarke.subdifferential(function, (x,))
    assert result.complete
    rows = result.bouligand().reshape(-1, len(values))
    assert {tuple(r) for r in rows.round(decimals=4).add(0.0).tolist()} == {
        tuple(round(v, 4) for v in g) for g in limits
    }
    (found,) = clarke.grad(function, (x,))
    assert any(torch.allclose(found, torch.tensor(g).to(x), atol=1e-5) for g in limits)


@pytest.mark.parametrize("name", JUMPS)
def test_real_jumps_stay(name):
    function, values = JUMPS[name]
    report = clarke.check(function, (leaf(values),))
    assert report.correct is None, report
    with pytest.raises(clarke.ClarkeError):
        clarke.grad(function, (leaf(values),))


def test_a_wrong_slope_at_a_jump_that_cancels_is_refuted():
    """3 (x - 1/2) beside the distance to the nearest number, written so that autograd loses it."""

    def f(x):
        return distance(x).sum() + 3 * (F.relu(x - 0.5) - F.relu(0.5 - x)).sum()

    report = clarke.check(f, (leaf([0.5]),))
    assert report.verdict is Verdict.NOT_CLARKE
    assert float(report.element[0]) in (2.0, 4.0)
    assert report.certificate.verify()


def test_many_elements_side_by_side():
    x = torch.full((200,), 0.5, dtype=torch.float64, requires_grad=True)
    report = clarke.check(lambda x: (distance(x) * torch.arange(200.0).to(x)).sum(), (x,))
    assert report.verdict is Verdict.BOULIGAND
    assert report.certificate.verify()


CONSTANT = {
    "a sum": lambda w: (w * w.detach().sum().long()).sum(),
    "indices": lambda w: w[(w + 0.25).floor().long() % 2].sum(),
    "int": lambda w: (w * w.int()).sum(),
    "bool": lambda w: (w * w.bool()).sum(),
    "argmax": lambda w: (w * w.argmax().float().long()).sum(),
    "of what floor gives": lambda w: (w * (w.floor() * 3).long().float().int()).sum(),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", CONSTANT)
def test_integers_off_their_steps_are_constants(name, dtype):
    report = clarke.check(CONSTANT[name], (leaf([0.3, 1.2], dtype),))
    assert report.correct is True


STRUCTURE = {
    "signs of zeros": (
        lambda r: (torch.sign(torch.eye(2).to(r) * r) * r).sum(), [[1.0, 2.0], [3.0, 4.0]]
    ),
    "floors of zeros": (
        lambda r: (torch.floor(torch.eye(2).to(r) * r) * r).sum(), [[1.5, 2.0], [3.0, 4.5]]
    ),
    "relu of nothing": (lambda x: F.relu(0 * x).sum() + x.sum(), [1.0, 2.0]),
    "equal to itself": (lambda x: torch.where(x == x.clone(), x, 2 * x).sum(), [1.0, 2.0]),
}  # fmt: skip


@pytest.mark.parametrize("name", STRUCTURE)
def test_zeros_that_stay_zero(name):
    function, values = STRUCTURE[name]
    assert clarke.check(function, (leaf(values),)).verdict is Verdict.SMOOTH


def counted(x):
    keep = x > 0
    if keep.sum() >= 1:
        return (x * keep).sum()
    return 0 * x.sum()


def picked(x):
    keep = x > 0
    return (x * keep).sum() if keep.any() else 0 * x.sum()


def compared(x):
    assert x[0] == x[0].clone()
    return x.sum()


def test_branches_that_cannot_change():
    for function in (counted, picked, compared):
        assert clarke.check(function, (leaf([0.0, 1.0, 2.0]),)).correct is True


def test_branches_that_can_change_do_matter():
    x = leaf([0.0, 0.0, -1.0])
    counting = clarke.check(counted, (x,))  # where both are negative beside, it is zero
    assert counting.verdict is Verdict.BOULIGAND
    assert "is otherwise beside the point" in " ".join(str(counting).split())
    found = clarke.check(picked, (x,))  # on the side that ran all of it is zero
    assert found.verdict is Verdict.BOULIGAND
    assert found.relevant == 2


def test_a_loop_with_assertions():
    x = leaf([0.0, 1.0])
    with clarke.audit() as watch:
        for _ in range(3):
            loss = F.relu(x).sum()
            assert (x >= 0).all()
            loss.backward()
            assert (x.grad >= 0).all()
            x.grad = None
    assert [s.verdict for s in watch.steps] == [Verdict.BOULIGAND] * 3


def test_an_assertion_that_fails_beside_the_point_is_no_error():
    def f(x):
        assert (x >= 0).all()
        return F.relu(x).sum()

    assert clarke.check(f, (leaf([0.0, 1.0]),)).correct is not False
