"""Branches by several comparisons, and other choices that a person sees through."""

import random

import numpy as np
import pytest
import torch
from torch.nn import functional
from torch.nn.functional import relu

import clarke
from clarke import Verdict
from clarke.feasibility import minimum_norm_point


def point(*values, dtype=torch.float64):
    return tuple(torch.tensor(v, dtype=dtype, requires_grad=True) for v in values)


def zero():
    return torch.zeros((), dtype=torch.float64)


def unpooled(x):
    pooled, where = functional.max_pool2d(x.reshape(1, 1, 2, 2), 2, return_indices=True)
    return functional.max_unpool2d(pooled, where, 2).square().sum()


BOULIGAND = {
    "any": (lambda x: torch.where((x > 0).any(), relu(x).sum(), zero()), [0.0, 0.0]),
    "all": (lambda x: torch.where((x > 0).all(), relu(x).min(), zero()), [0.0, 0.0]),
    "count": (lambda x: relu(x).sum() * ((x > 0).sum() > 0), [0.0, 0.0]),
    "two of two": (lambda x: torch.where((x > 0).sum() >= 2, relu(x).amin(), zero()), [0.0] * 2),
    "unpooled tie": (unpooled, [1.0, 1.0, 0.0, 0.5]),
    "median and kthvalue": (lambda x: x.median() * 2 - x.kthvalue(2).values, [1.0, 1.0, 0.0]),
    "rrelu without training": (lambda x: torch.rrelu(x).sum(), [0.0, 1.0]),
    "hinge embedding": (lambda x: functional.hinge_embedding_loss(x, -torch.ones_like(x)), [1.0]),
}


@pytest.mark.parametrize("name", BOULIGAND)
def test_right_by_a_limit(name):
    function, place = BOULIGAND[name]
    report = clarke.check(function, point(place))
    assert report.verdict is Verdict.BOULIGAND
    assert report.certificate.verify()


def test_wrong_among_branches():
    """Both sides of the branch have slope 1 in x; AD's relu(x) - relu(-x) has 0."""

    def loss(x, y):
        s = relu(x) - relu(-x)
        return torch.where((torch.stack([y, x]) > 0).all(), s + relu(y).minimum(relu(x)), s)

    report = clarke.check(loss, point(0.0, 0.0))
    assert report.verdict is Verdict.NOT_CLARKE
    assert float(report.element[0]) in (1.0, 2.0)
    assert report.certificate.verify()


def test_branches_that_do_not_meet():
    """At (t, 0) with t > 0 the first is t and the other 0: a jump on the way to the point."""
    report = clarke.check(lambda x: torch.where((x > 0).all(), x.sum(), zero()), point([0.0, 0.0]))
    assert report.verdict is Verdict.NOT_LIPSCHITZ


@pytest.mark.parametrize(
    ("function", "place", "verdict", "valid"),
    [
        (torch.copysign, (0.0, 0.0), Verdict.NOT_LIPSCHITZ, None),
        (torch.copysign, (1.0, 0.0), Verdict.NOT_LIPSCHITZ, None),
        (torch.copysign, (0.0, 1.0), Verdict.CLARKE, None),
        (lambda x: torch.copysign(x, x), (0.0,), Verdict.NOT_CLARKE, [1.0]),
        (lambda x: torch.copysign(x * x, x), (0.0,), Verdict.SMOOTH, None),
        (lambda x: torch.copysign(x, -0.0 * torch.ones(())), (1.0,), Verdict.SMOOTH, None),
        (lambda x, lo: torch.clamp(x, lo, lo), (1.0, 1.0), Verdict.NOT_CLARKE, [0.0, 1.0]),
        (torch.clamp, (0.0, 1.0, 1.0), Verdict.NOT_CLARKE, [0.0, 0.0, 1.0]),
        (lambda x: torch.ldexp(x, torch.tensor(-1)), (1.0,), Verdict.NOT_CLARKE, [0.5]),
        (lambda x: torch.ldexp(x, torch.tensor(3)), (1.0,), Verdict.SMOOTH, None),
    ],
)
def test_copied_signs_and_meeting_bounds(function, place, verdict, valid):
    report = clarke.check(function, point(*place))
    if verdict is Verdict.NOT_CLARKE and torch.__version__ >= "2.14" and report.correct:
        pytest.skip("mended in torch 2.14")
    assert report.verdict is verdict
    if valid is not None:
        assert [float(e) for e in report.element] == valid
    if report.certificate is not None:
        assert report.certificate.verify()


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.abs().pow(1.5).sum(),
        lambda x: (x.abs() + relu(x)).pow(1.25).sum(),
        lambda x: ((x * x).sum() ** 1.25) * 2,
        lambda x: relu(x).sum() ** 1.5 + (x * x).mean() ** 1.125,
    ],
)
def test_powers_of_what_is_not_negative(function):
    """The slope of t ** p is 0 at 0 for p > 1, and changes as a root does."""
    report = clarke.check(function, point([0.0, 0.0]))
    assert report.verdict is Verdict.SMOOTH
    assert report.certificate.verify()


@pytest.mark.parametrize("function", [lambda x: x**1.5, lambda x: (x - x.detach()) ** 2.5])
def test_a_power_that_has_no_other_side(function):
    report = clarke.check(function, point(0.0))
    assert report.verdict is Verdict.NOT_LIPSCHITZ
    assert "not defined" in report.reason


def test_steep_all_along_an_axis():
    """(|x| ** 0.5 + |y| ** 0.5) ** 2 grows in proportion along every ray from 0."""
    report = clarke.check(lambda x: torch.linalg.vector_norm(x, 0.5), point([0.0, 0.0]))
    assert report.verdict is Verdict.NOT_LIPSCHITZ


@pytest.mark.parametrize(
    ("place", "verdict"),
    [
        ([0.0, 0.0], Verdict.SMOOTH),
        ([1.0, 0.0], Verdict.SMOOTH),
        ([1e-8, 0.0], Verdict.BOULIGAND),
    ],
)
def test_similarity_to_a_vector_shorter_than_eps(place, verdict):
    """The norm is clamped while gradients are off; AD's gradient is right all the same."""
    other = torch.tensor([1.0, 2.0], dtype=torch.float64)
    report = clarke.check(lambda x: functional.cosine_similarity(x, other, dim=0), point(place))
    assert report.verdict is verdict
    assert report.certificate.verify()


def test_a_write_that_makes_the_gradient_wrong_is_not_vouched_for():
    def loss(x):
        y = x * 3
        with torch.no_grad():
            y.clamp_(max=1.0)
        return (y * y).sum()

    assert clarke.check(loss, point([0.1])).verdict is Verdict.SMOOTH
    assert clarke.check(loss, point([2.0])).verdict is Verdict.SURROGATE


@pytest.mark.parametrize("start", [0.0, 1.0])
def test_memory_that_is_written_to_is_no_constant(start):
    def loss(x):
        y = torch.full_like(x, start, requires_grad=False)
        y.sub_(x)
        return y.clamp_min_(0).sum()

    report = clarke.check(loss, point([start]))
    assert report.verdict is Verdict.BOULIGAND


@pytest.mark.parametrize(
    ("function", "place", "dtype"),
    [
        (lambda s: (torch.sigmoid(s) - 0.5) / s, -1e-8, torch.float32),
        (lambda s: (torch.exp(s) - 1) / s, 1e-7, torch.float32),
        (lambda s: (1 - torch.cos(s)) / s**2, 1e-4, torch.float32),
        (lambda s: (torch.exp(s) - 1) / s, 1e-15, torch.float64),
    ],
)
def test_noise_is_no_gradient(function, place, dtype):
    report = clarke.check(function, point(place, dtype=dtype))
    assert report.verdict is Verdict.UNDECIDED
    assert "digits cancel" in report.reason


@pytest.mark.parametrize(
    ("function", "place", "dtype"),
    [
        (lambda s: torch.expm1(s) / s, 1e-7, torch.float32),
        (lambda s: (torch.exp(s) - 1) / s, 1e-2, torch.float32),
        (lambda s: (torch.exp(s) - 1) / s, 1e-3, torch.float64),
        (lambda s: torch.sqrt(s * s + 1e-16), 0.0, torch.float64),
        (lambda s: (s * 3 - s * 3) * 1e6 + s, 0.1, torch.float32),
    ],
)
def test_digits_that_are_left_are_enough(function, place, dtype):
    assert clarke.check(function, point(place, dtype=dtype)).verdict is Verdict.SMOOTH


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("loss", [torch.nn.MSELoss(), torch.nn.HuberLoss()])
def test_a_residual_of_zero_is_no_noise(loss, dtype):
    """A target network that equals the network: all digits cancel, and the gradient is 0."""
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2)).to(
        dtype
    )
    batch = torch.rand(5, 3, dtype=dtype)
    target = net(batch).detach()
    for goal in (target, target * (1 + torch.finfo(dtype).eps)):
        report = clarke.check(lambda goal=goal: loss(net(batch), goal))
        assert report.verdict is Verdict.SMOOTH, str(report)


def guarded(x):
    s = torch.where(x == 0, 1.0, x)
    return torch.where(x == 0, 1.0, torch.sin(s) / s)


def test_a_guard_beside_kinks_has_a_certificate_that_holds():
    report = clarke.check(lambda x: relu(guarded(x[0]) - 1) - relu(x[1]), point([0.0, 0.0]))
    assert report.verdict is Verdict.BOULIGAND
    assert report.certificate.verify()


def test_the_modulus_of_zero_has_a_certificate_that_holds():
    report = clarke.check(lambda x: torch.complex(x[0], x[1]).abs(), point([0.0, 0.0]))
    assert report.verdict is Verdict.CLARKE
    assert report.certificate.verify()


def random_program(rng, n):
    def rows(m):
        return torch.tensor(
            [[rng.choice([-2, -1, 0, 0, 1, 1, 2]) for _ in range(n)] for _ in range(m)],
            dtype=torch.float64,
        )

    a, b, c = rows(rng.randint(1, 3)), rows(1), rows(1)[0]
    compare = rng.choice([torch.gt, torch.ge, torch.lt, torch.le])
    join = rng.choice(
        [
            lambda m: m.any(),
            lambda m: m.all(),
            lambda m: m.sum() >= 2,
            lambda m: m[0] & m[-1],
            lambda m: m.count_nonzero() > 0,
        ]
    )
    chosen = rng.choice(
        [
            lambda v, x: relu(v).sum(),
            lambda v, x: relu(v).min(),
            lambda v, x: (b @ x).sum(),
            lambda v, x: v.abs().sum(),
            lambda v, x: relu(v).max() - relu(-v).min(),
        ]
    )

    def loss(x):
        v = a @ x
        taken = join(compare(v, torch.zeros_like(v)))
        return torch.where(taken, chosen(v, x), zero()) - relu(c @ x)

    return loss


def look_around(loss, n):
    """Gradients beside zero, and the largest jump found on random segments there."""
    generator = torch.Generator().manual_seed(1)
    gradients, jump = [], 0.0
    for i in range(200):
        d = torch.randn(n, dtype=torch.float64, generator=generator)
        if i % 2:
            d = d.sign() * torch.rand(n, dtype=torch.float64, generator=generator) ** 4
        x = d.requires_grad_()  # the program is positively homogeneous
        gradients.append(torch.autograd.grad(loss(x), x)[0].numpy())
    for _ in range(30):
        a, b = torch.randn(2, n, dtype=torch.float64, generator=generator)
        low, high = 0.0, 1.0
        steps = np.linspace(0, 1, 40)
        values = np.array([float(loss(a + (b - a) * t)) for t in steps])
        at = int(np.abs(np.diff(values)).argmax())
        low, high = steps[at], steps[at + 1]
        for _ in range(25):
            middle = (low + high) / 2
            left, own, right = (float(loss(a + (b - a) * t)) for t in (low, middle, high))
            low, high = (low, middle) if abs(own - left) > abs(right - own) else (middle, high)
        jump = max(jump, abs(float(loss(a + (b - a) * high) - loss(a + (b - a) * low))))
    return np.array(gradients), jump


@pytest.mark.parametrize("seed", range(16))
def test_random_branches_against_their_surroundings(seed):
    rng = random.Random(seed)  # noqa: S311 - no secret
    n = rng.randint(1, 3)
    loss = random_program(rng, n)
    nearby, jump = look_around(loss, n)
    report = clarke.check(loss, point([0.0] * n))
    if report.verdict is Verdict.UNDECIDED:
        return
    assert (report.verdict is Verdict.NOT_LIPSCHITZ) == (jump > 1e-3)
    if jump > 1e-3:
        return
    away = nearby - report.gradient[0].numpy()
    distance = np.linalg.norm(minimum_norm_point(away) @ away)
    assert report.correct == (distance < 0.05)
    assert report.certificate.verify()
