"""Programs that an attacker found: once judged wrongly, or with a proof that did not verify."""

import pytest
import torch

import clarke
from clarke import Verdict
from reference.leaves import leaf as point


def guarded(function):
    def quotient(x):
        safe = torch.where(x == 0, 1.0, x)
        return torch.where(x == 0, 1.0, function(safe) / safe)

    return quotient


def divided(x):
    """The divided difference of exp, with AD's one-sided branch where both are equal."""
    a, b = x
    gap = torch.where(a == b, 1.0, a - b)
    return torch.where(a == b, a.exp(), (a.exp() - b.exp()) / gap)


def logarithmic_mean(x):
    a, b = x
    gap = torch.where(a == b, 1.0, a.log() - b.log())
    return torch.where(a == b, 0.5 * (a + b), (a - b) / gap)


def slope_at_one():
    """Of expm1(x) / x at 1."""
    return 1.0


WRONG_GUARDS = {
    # AD's own gradient is a ray along which the guard holds, and nowhere around it
    "beside a regular entry": (
        lambda x: guarded(torch.expm1)(x).sum(),
        (0.0, 1.0),
        (0.5, slope_at_one()),
    ),
    "two guards and a regular entry": (
        lambda x: (guarded(torch.expm1)(x) + 0.5 * x).sum(),
        (0.0, 0.0, 1.0),
        (1.0, 1.0, slope_at_one() + 0.5),
    ),
    "a product of guards": (
        lambda x: guarded(torch.expm1)(x).prod(),
        (0.0, 0.0),
        (0.5, 0.5),
    ),
    # quotients of differences are rounding beside the surface, and nothing jumps there
    "a divided difference": (divided, (0.0, 0.0), (0.5, 0.5)),
}


@pytest.mark.parametrize("name", WRONG_GUARDS)
def test_guards_that_are_wrong(name):
    function, at, right = WRONG_GUARDS[name]
    found = clarke.check(function, (point(*at),), seconds=120)
    assert found.verdict is Verdict.NOT_CLARKE
    torch.testing.assert_close(
        found.element[0], torch.tensor(right, dtype=torch.float64), rtol=1e-5, atol=1e-5
    )
    assert found.certificate.verify(seconds=120)


def test_a_guard_on_a_line_that_is_right():
    found = clarke.check(logarithmic_mean, (point(2.0, 2.0),), seconds=120)
    assert found.verdict is Verdict.SMOOTH
    assert found.certificate.verify(seconds=120)


def test_a_ray_on_which_a_guard_holds_proves_nothing():
    """Whatever is said of a wrong gradient, it is not that a limit along such a ray is right."""

    def function(x):
        y = guarded(torch.expm1)(x[0]) + x[1]
        return y + torch.relu(x[2]) - torch.relu(-x[2])

    assert clarke.check(function, (point(0.0, 1.0, 0.0),), seconds=120).correct is not True


def test_a_mask_cast_to_numbers_verifies():
    def function(x):
        return ((x >= 0).to(x.dtype) * x).sum() + ((x < 0).to(x.dtype) * x).sum()

    found = clarke.check(function, (point(0.0, 2.0),))
    assert found.correct
    assert found.certificate.verify(seconds=60)


DECLARED = {
    # One variable, and the detached value has memory of its own
    "divided by its norm": lambda x: (x / x.norm().detach()).sum(),
    "weighed by its sum": lambda x: (x * x.sum().detach()).sum(),
    # The function is zero everywhere; with the detached value held constant it is x - c
    "a difference from itself": lambda x: (
        torch.relu(x - x.detach()).sum() - torch.relu(x.detach() - x).sum()
    ),
}


@pytest.mark.parametrize("name", DECLARED)
@pytest.mark.parametrize("quick", [True, False])
def test_one_answer_to_what_is_detached(name, quick):
    function = DECLARED[name]
    x = point(1.0, 2.0)
    assert clarke.check(function, (x,)).verdict is Verdict.SURROGATE
    with clarke.audit(settings=clarke.Settings(quick=quick), seconds=20) as audit:
        function(x).backward()
    assert audit.steps[0].verdict is Verdict.SURROGATE
    with pytest.raises(clarke.UnsupportedError, match="declares a derivative"):
        clarke.grad(function, (x,))
