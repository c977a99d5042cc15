"""Gradients that are zero but for cancellation, in any precision."""

import pytest
import torch

import clarke
from clarke.decide.confirm import confirm
from clarke.decide.rounding import rounding_noise
from clarke.prepare import prepared
from clarke.steering import Program, analyse, selected_gradient
from clarke.verdict import Verdict

WEIGHTS = torch.randn(100, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
CANCELLING = torch.cat([WEIGHTS, -WEIGHTS.sum().reshape(1)])


def noise_of(function, *inputs):
    with prepared(function, inputs, None) as run:
        program = Program(analyse(run.trace, run.registry), run.slots)
        return rounding_noise(program, selected_gradient(program))


def point(*values, dtype=torch.float64):
    return torch.tensor(values, dtype=dtype, requires_grad=True)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_noise_is_of_the_size_of_the_terms_roundings(dtype):
    weights = CANCELLING.to(dtype)
    (found,) = noise_of(lambda x: (x * weights).sum(), point(1.0, dtype=dtype))
    spacing = torch.finfo(dtype).eps * float(CANCELLING.abs().max())
    assert spacing / 2 < found < 1e4 * spacing


def test_there_is_none_where_nothing_is_rounded():
    assert noise_of(lambda x: torch.relu(x).sum(), point(0.0, 1.0)) == (0.0,)


def test_a_point_of_round_numbers_is_not_taken_for_a_sum_without_roundings():
    eighths = torch.tensor([1.0, 3.0, 5.0, -9.0], dtype=torch.float64) / 8
    (found,) = noise_of(lambda y: (torch.tanh(y[0] * eighths) * y[1]).sum(), point(0.0, 0.5))
    assert 0 < found < 1e-12


def test_what_does_not_fit_into_float32_says_nothing():
    assert noise_of(lambda x: (x * 1e300).sum() * 1e-300, point(1.0, 2.0)) == (0.0,)


def test_gradients_along_a_ray_that_differ_by_noise_confirm():
    arguments = (
        lambda moved: [1e-17 * torch.cos(1e9 * moved[0])],
        [torch.zeros(1, dtype=torch.float64)],
        [torch.ones(1, dtype=torch.float64)],
        [torch.zeros(1, dtype=torch.float64)],
        1e-7,
    )
    assert not confirm(*arguments).confirmed
    assert confirm(*arguments, (1e-16,)).confirmed
    assert not confirm(*arguments, (1e-18,)).confirmed


@pytest.mark.parametrize("start", [0.0, 1.0, -1.0])
def test_a_sum_that_cancels_is_judged_by_its_terms(start):
    def function(x):
        return (torch.relu(x) * CANCELLING).sum() + (torch.relu(x) * CANCELLING.flip(0)).sum()

    report = clarke.check(function, (point(start),))
    assert report.verdict in (Verdict.SMOOTH, Verdict.BOULIGAND)
    assert report.certificate.verify()


def test_a_wrong_gradient_stays_wrong_however_small():
    report = clarke.check(lambda x: ((torch.relu(-x) - torch.relu(x)) * 1e-12).sum(), (point(0.0),))
    assert report.verdict is Verdict.NOT_CLARKE
    both = clarke.check(
        lambda x, y: ((torch.relu(-x) - torch.relu(x)) * 1e-6 + y * 3.7).sum(),
        (point(0.0), point(1.1)),
    )
    assert both.verdict is Verdict.NOT_CLARKE
