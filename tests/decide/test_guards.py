"""Guards: what a function is beside a comparison decides, not the branch held at one point."""

import os
import random

import pytest
import torch
from torch.nn import functional as F  # noqa: N812 - the usual name

import clarke
from clarke import Verdict
from reference.forgery import altered
from reference.guards import BRANCHES, Guarded, random_guarded, truth

DTYPES = [torch.float64, torch.float32]
EXAMPLES = int(os.environ.get("CLARKE_FUZZ", "2000"))


def leaf(values, dtype=torch.float64):
    return torch.tensor(values, dtype=dtype, requires_grad=True)


def quotient(function, guard, fill=1.0):
    def guarded(x):
        held = guard(x)
        safe = torch.where(held, torch.ones_like(x), x)
        return torch.where(held, torch.full_like(x, fill), function(safe) / safe).sum()

    return guarded


def at_zero(x):
    return x == 0


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_double_where_is_right_or_wrong_as_its_branch_is(dtype):
    right = clarke.check(quotient(torch.sin, at_zero), (leaf(0.0, dtype),))
    assert right.verdict is Verdict.SMOOTH
    assert right.certificate.verify()
    wrong = clarke.check(quotient(torch.expm1, at_zero), (leaf(0.0, dtype),))
    assert wrong.verdict is Verdict.NOT_CLARKE
    assert wrong.gradient[0].item() == 0
    assert wrong.element[0].item() == pytest.approx(0.5, abs=1e-7)
    assert wrong.certificate.verify()
    assert "eq at" in wrong.reason


def test_a_proof_by_limits_that_is_changed_fails():
    proof = clarke.check(quotient(torch.expm1, at_zero), (leaf(0.0),)).certificate
    for change in (
        {"limit": proof.argument.limit + 0.25},
        {"gradient": (torch.tensor(0.5, dtype=torch.float64),)},
        {"equal": True},
        {"witnesses": ()},
        {"program": clarke.check(quotient(torch.sin, at_zero), (leaf(0.0),)).certificate.program},
    ):
        for forged in (altered(proof, **change), altered(proof, **change).sealed()):
            assert not forged.verify(), change


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("epsilon", [1e-3, 1e-6, 1e-8, 1e-12])
def test_a_guarded_interval_is_smooth_inside_and_steps_at_its_border(epsilon, dtype):
    f = quotient(torch.expm1, lambda x: x.abs() < epsilon)
    inside = clarke.check(f, (leaf(epsilon / 2, dtype),))
    assert inside.verdict is Verdict.SMOOTH
    report = clarke.check(f, (leaf(epsilon, dtype),))  # by half of epsilon
    assert report.verdict is Verdict.NOT_LIPSCHITZ
    assert f"{epsilon / 2:.2g}" in report.reason


def test_a_step_below_rounding_is_none():
    report = clarke.check(quotient(torch.sin, lambda x: x.abs() < 1e-8), (leaf(1e-8),))
    assert report.correct is not False  # of 2e-17, beside values around 1
    assert report.verdict is not Verdict.NOT_LIPSCHITZ


def norm_of(dim_guard):
    def f(v):
        square = (v * v).sum()
        held = dim_guard(square)
        root = torch.where(held, torch.ones_like(square), square).sqrt()
        return torch.where(held, torch.ones_like(root), torch.sin(root) / root) + v.sum()

    return f


def test_a_guarded_norm():
    report = clarke.check(norm_of(lambda n: n == 0), (leaf([0.0, 0.0]),))
    assert report.verdict is Verdict.SMOOTH
    assert report.gradient[0].tolist() == [1, 1]

    def norm(v):
        square = (v * v).sum()
        root = torch.where(square == 0, torch.ones_like(square), square).sqrt()
        return torch.where(square == 0, torch.zeros_like(root), root)

    ball = clarke.check(norm, (leaf([0.0, 0.0]),))
    assert ball.verdict is Verdict.CLARKE
    assert ball.certificate.verify()


def test_divided_differences():
    """The slope of the exponential between a and b, by its value where they are equal."""

    def slope(v):
        a, b = v
        held = a == b
        gap = torch.where(held, torch.ones_like(a), a - b)
        return torch.where(held, a.exp(), b.exp() * torch.expm1(gap) / gap)

    report = clarke.check(slope, (leaf([0.5, 0.5]),))
    assert report.verdict is Verdict.NOT_CLARKE  # AD has (e^a, 0)
    expected = [torch.tensor(0.5).exp().item() / 2] * 2
    assert report.element[0].tolist() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("f", "at"),
    [
        (lambda p: torch.where(p > 0, p * torch.where(p > 0, p, 1 + p).log(), 0 * p).sum(), 0.0),
        (lambda x: torch.where(x < 1, torch.acos(torch.where(x < 1, x, 0 * x)), 0 * x).sum(), 1.0),
        (lambda a: torch.where(a > -1, torch.log1p(a), 0 * a), -1.0),
        (lambda a: torch.where(a > 0, torch.logit(a), 0 * a), 0.0),
        (lambda a: torch.where(a < 1, torch.erfinv(a), 0 * a), 1.0),
        (lambda a: torch.where(a > 0, torch.digamma(a), 0 * a), 0.0),
        (lambda a: torch.where(a > 0, torch.lgamma(a), 0 * a), 0.0),
        (lambda a: torch.where(a > 0, torch.exp(1 / a), 0 * a), 0.0),
        (lambda a: torch.where(a > 0, torch.sqrt(a), 0 * a), 0.0),
    ],
    ids=["p log p", "acos", "log1p", "logit", "erfinv", "digamma", "lgamma", "exp(1/x)", "sqrt"],
)
def test_a_guard_does_not_make_a_pole_or_a_root_lipschitz(f, at, dtype):
    report = clarke.check(f, (leaf(at, dtype),))
    assert report.verdict is Verdict.NOT_LIPSCHITZ
    assert report.element is None


def test_a_guarded_angle():
    def angle(v, power):
        held = (v == 0).all()
        safe = torch.where(held, torch.ones_like(v), v)
        turned = (safe * safe).sum() ** power * torch.atan2(safe[0], safe[1])
        return torch.where(held, torch.zeros_like(turned), turned)

    report = clarke.check(lambda v: angle(v, 0), (leaf([0.0, 0.0]),))
    assert report.verdict is Verdict.NOT_LIPSCHITZ
    # Along every ray it comes back to 0, but it jumps across the negative axis beside the point.
    assert clarke.check(lambda v: angle(v, 1), (leaf([0.0, 0.0]),)).correct is None


@pytest.mark.parametrize(
    "f",
    [
        lambda v: (v * v).sum() * (v[0] > 0),
        lambda v: torch.where(v[0] == 0, v[1] ** 2, 0 * v[0]),
        lambda v: torch.where(
            v[0] == 0, 0 * v[0], v[1] * torch.where(v[0] == 0, 1 + v[0], v[0].abs()).sqrt()
        ),
    ],
    ids=["half plane", "line", "root beside"],
)
def test_what_jumps_or_is_steep_beside_the_point_is_not_called_right(f):
    assert clarke.check(f, (leaf([0.0, 0.0]),)).correct is None


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_valid_value_beside_nan(dtype):
    def far(x):
        return x[0] ** 3 + torch.where(x[1] <= 10, torch.exp(x[1]), 1 + 0 * x[0])

    report = clarke.check(far, (leaf([1.0, 1e6], dtype),))
    assert report.verdict is Verdict.NONFINITE
    assert report.element[0].tolist() == [3, 0]

    def nearly_tied(x):
        return torch.maximum(x[0], x[1]) + (x[2] ** 2).sqrt()

    report = clarke.check(nearly_tied, (leaf([1 + 2e-7, 1.0, 0.0], dtype),))
    first, second, third = report.element[0].tolist()
    assert (first, second, abs(third)) == (1, 0, 1)
    for function, value in ((torch.sin, 0.0), (torch.expm1, 0.5)):
        f = quotient_by_one_where(function)
        report = clarke.check(f, (leaf(0.0, dtype),))
        assert report.verdict is Verdict.NONFINITE
        assert report.element[0].item() == pytest.approx(value, abs=1e-7)


@pytest.mark.parametrize("gap", [1e-9, 1e-13, 2.0**-52])
def test_a_kink_that_is_not_touched_is_not_touched_however_near(gap):
    def f(x):
        return torch.maximum(x[0], x[1]) + (x[2] ** 2).sqrt()

    report = clarke.check(f, (leaf([1 + gap, 1.0, 0.0]),))
    assert report.element is None or report.element[0].tolist()[:2] == [1, 0]


def quotient_by_one_where(function):
    return lambda x: torch.where(x == 0, torch.ones_like(x), function(x) / x)


def test_quotients_that_cancel_are_looked_at_where_they_are_not_rounding():
    def f(x, off):
        held = x == 0
        safe = torch.where(held, torch.ones_like(x), x)
        return torch.where(held, off - 0.5 + x, (torch.cos(safe) - 1) / safe**2)

    report = clarke.check(lambda x: f(x, 0.0), (leaf(0.0),))
    assert report.verdict is Verdict.NOT_CLARKE  # AD has the slope 1 of what stands in for it
    assert report.element[0].item() == pytest.approx(0, abs=1e-6)
    # A step that is seen farther out only, since nearer values are rounding.
    assert clarke.check(lambda x: f(x, 1e-6), (leaf(0.0),)).verdict is Verdict.NOT_LIPSCHITZ


SMALL = {
    "log 1e-8": (lambda p: (p * torch.log(p + 1e-8)).sum(), [0.0]),
    "log 1e-12": (lambda p: (p * torch.log(p + 1e-12)).sum(), [0.0, 1.0]),
    "log 1e-20": (lambda p: (p * torch.log(p + 1e-20)).sum(), [0.0, 0.25]),
    "sqrt 1e-16": (lambda x: torch.sqrt(x * x + 1e-16).sum(), [0.0]),
    "sqrt 1e-24": (lambda x: torch.sqrt((x * x).sum() + 1e-24), [0.0, 0.0]),
    "normalize": (lambda x: F.normalize(x, dim=0)[0], [0.0, 0.0]),
    "normalize all": (lambda x: F.normalize(x, dim=0).sum(), [0.0, 0.0, 0.0]),
    "rsqrt": (lambda x: (x * torch.rsqrt(x * x + 1e-12)).sum(), [0.0]),
    "division": (lambda x: (x / (x.abs() + 1e-12)).sum(), [0.0]),
    "layer_norm": (lambda x: F.layer_norm(x, (3,))[0], [0.0, 0.0, 0.0]),
    "tanh": (lambda x: torch.tanh(1e10 * x).sum(), [0.0]),
    "acos of clamped": (lambda x: torch.acos(x.clamp(-1 + 1e-7, 1 - 1e-7)).sum(), [1.0]),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", SMALL)
def test_guards_by_a_small_number_are_smooth(name, dtype):
    f, at = SMALL[name]
    report = clarke.check(f, (leaf(at, dtype),))
    assert report.verdict is Verdict.SMOOTH
    if name == "normalize":
        assert report.gradient[0][0].item() == pytest.approx(1e12)


def test_a_kink_beside_a_small_number_is_still_seen():
    """At steps that are lost beside 1 the kink stays touched, and would confirm anything."""

    def f(x):
        return torch.relu((x + 1) - 1) - torch.relu(1 - (x + 1)) + torch.sqrt(x * x + 1e-16)

    report = clarke.check(f, (leaf(0.0),))
    assert report.verdict is Verdict.NOT_CLARKE
    assert report.element[0].item() == pytest.approx(1)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("beta", "threshold", "step"), [(1, 20, "2.1e-09"), (2, 20, "1e-09"), (1, 3, "0.049")]
)
def test_softplus_steps_at_its_threshold(beta, threshold, step, dtype):
    x = leaf(threshold / beta, dtype)
    report = clarke.check(lambda x: F.softplus(x, beta, threshold), (x,))
    assert report.verdict is Verdict.NOT_LIPSCHITZ
    assert step in report.reason
    assert report.culprits[0].operation == "softplus"
    beside = leaf(0.9 * threshold / beta, dtype)
    assert clarke.check(lambda x: F.softplus(x, beta, threshold), (beside,)).correct is True


def contradiction(program: Guarded, dtype: torch.dtype) -> str:
    """What a report says that is not so; empty if nothing."""
    x = leaf([program.at], dtype)
    report, known = clarke.check(program, (x,)), truth(program)
    verdict = report.verdict
    lipschitz = not known.seen and known.slopes is not None

    def inside(tensors):
        room = 1e-5 * (abs(program.scale) + max(map(abs, known.slopes)))
        return known.slopes[0] - room <= float(tensors[0]) <= known.slopes[1] + room

    if verdict.correct:
        # A difference of 1e-11 of what a mask picks from counts as rounding in find_relevant().
        # At a point that float32 has rounded the gradient itself may be nothing but rounding.
        smooth = lipschitz or known.jump < 1e-11 * abs(program.scale)
        blurred = dtype == torch.float32 and program.at != 0
        holds = smooth and (blurred or known.slopes is None or inside(report.gradient))
    elif verdict is Verdict.NOT_CLARKE:
        holds = lipschitz and not inside(report.gradient) and inside(report.element)
    elif verdict is Verdict.NOT_LIPSCHITZ:
        holds = known.jump > 1e-40 or known.slopes is None
    elif verdict is Verdict.NONFINITE and report.element is not None:
        holds = lipschitz and inside(report.element)
    else:
        holds = True
    return "" if holds else f"{verdict.name} {report.element}: {report.reason} {known}"


def fuzzed(seed: int) -> None:
    rng = random.Random(seed)  # noqa: S311 - no secret
    program, dtype = random_guarded(rng), rng.choice(DTYPES)
    assert not contradiction(program, dtype), (seed, program, dtype)


@pytest.mark.parametrize("seed", range(40))
def test_random_guards_against_exact_limits(seed):
    fuzzed(seed)


@pytest.mark.fuzz
def test_many_random_guards_against_exact_limits():
    for seed in range(10_000, 10_000 + EXAMPLES):
        fuzzed(seed)


@pytest.mark.parametrize("branch", BRANCHES)
def test_every_branch_under_the_plain_double_where_is_decided(branch):
    """The commonest guard, with the right value in place."""
    program = Guarded(branch, "==", 1e-6, True, 0.0, 0.0, 1.0, 0.0, 0.0)
    assert not contradiction(program, torch.float64)
    report = clarke.check(program, (leaf([0.0]),))
    assert report.verdict is not Verdict.UNDECIDED
