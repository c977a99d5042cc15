"""check(..., gradient=g): a gradient from anywhere is judged as autograd's own."""

import numpy as np
import pytest
import torch

import clarke
from clarke import Verdict
from reference.leaves import leaf

F64 = torch.float64


@pytest.mark.parametrize(
    ("slope", "verdict"),
    [
        (-1.0, Verdict.BOULIGAND),
        (1.0, Verdict.BOULIGAND),
        (0.25, Verdict.CLARKE),
        (-0.75, Verdict.CLARKE),
        (1.5, Verdict.NOT_CLARKE),
        (-1.001, Verdict.NOT_CLARKE),
    ],
)
def test_every_slope_of_the_absolute_value(slope, verdict):
    report = clarke.check(
        lambda x: x.abs().sum(), leaf(0.0), gradient=torch.tensor([slope], dtype=F64)
    )
    assert report.verdict is verdict
    assert report.gradient[0].tolist() == [slope]
    assert report.certificate.verify()


@pytest.mark.parametrize(
    ("g", "verdict"), [((2.0, 3.0), Verdict.SMOOTH), ((2.0, 3.1), Verdict.NOT_CLARKE)]
)
def test_away_from_kinks_only_the_gradient_is_right(g, verdict):
    def function(x):
        return x[0] ** 2 + 3 * torch.relu(x[1])

    report = clarke.check(function, leaf(1.0, 1.0), gradient=torch.tensor(g, dtype=F64))
    assert report.verdict is verdict
    if verdict is Verdict.NOT_CLARKE:
        assert report.element[0].tolist() == [2.0, 3.0]


def test_a_gradient_that_autograd_gets_wrong_and_another_right():
    def ramp(x):
        return (torch.relu(x) - torch.relu(-x)).sum()

    assert clarke.check(ramp, leaf(0.0)).verdict is Verdict.NOT_CLARKE
    right = clarke.check(ramp, leaf(0.0), gradient=[np.ones(1)])
    assert right.correct
    with pytest.raises(clarke.WrongGradientError):
        clarke.check(ramp, leaf(0.0), gradient=np.zeros(1), raise_exception=True)


def test_hulls_of_several_kinks_by_brute_force():
    """max of three: the simplex is right, and nothing outside of it."""
    rng = np.random.default_rng(0)
    for _ in range(12):
        g = rng.integers(-1, 3, 3) / 2
        inside = bool((g >= 0).all() and g.sum() == 1)
        report = clarke.check(lambda x: x.amax(), leaf(1.0, 1.0, 1.0), gradient=g)
        assert report.correct is inside, (g, str(report))


@pytest.mark.parametrize(
    ("gradient", "says"),
    [
        ([torch.zeros(1, dtype=F64)] * 2, "has 2 parts, and there are 1 variables"),
        (
            torch.zeros(2, dtype=F64),
            r"Part 0 of `gradient` has shape \(2,\), and its variable \(1,\)",
        ),
        (torch.zeros(1), "Part 0 of `gradient` is torch.float32, and its variable torch.float64"),
        (torch.full((1,), torch.nan, dtype=F64), "Part 0 of `gradient` holds NaN or infinity"),
    ],
)
def test_what_is_no_gradient_of_the_variables_is_refused(gradient, says):
    with pytest.raises(clarke.InputError, match=says):
        clarke.check(lambda x: x.abs().sum(), leaf(0.0), gradient=gradient)
