"""Gradients that are zero but for cancellation, in any precision."""

import pytest
import torch

import clarke
from clarke.decide.confirm import confirm
from clarke.decide.rounding import Rounding
from clarke.prepare import prepared
from clarke.steering import Program, analyse, selected_gradient
from clarke.verdict import Verdict
from reference.functions import square
from reference.leaves import leaf as point

WEIGHTS = torch.randn(100, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
CANCELLING = torch.cat([WEIGHTS, -WEIGHTS.sum().reshape(1)])


def bounds_of(function, *inputs):
    with prepared(function, inputs, None) as run:
        program = Program(analyse(run.trace, run.registry), run.slots)
        return Rounding(program, selected_gradient(program)).bounds


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_bounds_are_of_the_size_of_the_terms_roundings(dtype):
    weights = CANCELLING.to(dtype)
    (found,) = bounds_of(lambda x: (x * weights).sum(), point(1.0, dtype=dtype))
    spacing = torch.finfo(dtype).eps * float(CANCELLING.abs().max())
    assert spacing / 2 < float(found) < 1e4 * spacing


def test_a_small_entry_has_a_small_bound_beside_a_large_one():
    weights = torch.tensor([1e8, 1.0, 1e-8], dtype=torch.float64)
    (found,) = bounds_of(lambda x: (x * weights).sum(), point(1.0, 2.0, 3.0))
    assert (found / weights).tolist() == pytest.approx([1e-14] * 3, rel=0.9)


def test_a_point_of_round_numbers_is_not_taken_for_a_sum_without_roundings():
    eighths = torch.tensor([1.0, 3.0, 5.0, -9.0], dtype=torch.float64) / 8
    (found,) = bounds_of(lambda y: (torch.tanh(y[0] * eighths) * y[1]).sum(), point(0.0, 0.5))
    assert 0 < float(found[0]) < 1e-12


def test_what_does_not_fit_into_a_type_is_no_obstacle():
    (found,) = bounds_of(lambda x: (x * 1e300).sum() * 1e-300, point(1.0, 2.0))
    assert float(found.max()) < 1e-13


def test_what_leads_out_of_the_domain_is_tried_with_smaller_errors():
    (found,) = bounds_of(lambda x: torch.sqrt((1e9 + x) - 1e9).sum(), point(1e-5))
    assert 0 < float(found) < float("inf")


def test_gradients_along_a_ray_that_differ_by_noise_confirm():
    arguments = (
        lambda moved: [1e-17 * torch.cos(1e9 * moved[0])],
        [torch.zeros(1, dtype=torch.float64)],
        [torch.ones(1, dtype=torch.float64)],
        [torch.zeros(1, dtype=torch.float64)],
        1e-7,
    )
    assert not confirm(*arguments).confirmed
    assert confirm(*arguments, (torch.tensor([1e-16]),)).confirmed
    assert not confirm(*arguments, (torch.tensor([1e-18]),)).confirmed


LARGE = 1.7e9  # float32 cannot tell LARGE + w from LARGE


def lost_in_float32(w):
    return torch.log((LARGE + w) - (LARGE - 1) + 1e-12)


def steep(x):
    return torch.exp(x - 1e5)


@pytest.mark.parametrize(("function", "start"), [(lost_in_float32, 0.5), (steep, 1e5)])
def test_what_float32_cannot_follow_is_not_taken_for_rounding(function, start):
    (found,) = bounds_of(lambda x: function(x).sum(), point(start))
    assert float(found) < 1e-3
    one = clarke.subdifferential(lambda x: function(x).sum(), (point(start),))
    for wrong in (-1000.0, 3.0, 0.5):
        assert one.contains(torch.tensor([wrong], dtype=torch.float64)).inside is False
    assert one.contains(one.gradient[0])


@pytest.mark.parametrize(("function", "start"), [(lost_in_float32, 0.5), (steep, 1e5)])
def test_beside_it_hidden_branches_and_wrong_functions_are_still_found(function, start):
    wrong = square(1.5)
    clarke.register_function(wrong, pieces=lambda x: x * x)
    report = clarke.check(
        lambda x: (function(x[0]) + wrong.apply(x[1])).sum(), (point(start, 0.5),)
    )
    assert report.verdict is Verdict.NOT_CLARKE

    def branch(x):
        hidden = x[1] if x.detach().numpy()[1] != 0 else 2 * x[1]
        return function(x[0]) + hidden

    assert clarke.check(branch, (point(start, 0.0),)).verdict is Verdict.UNDECIDED


def test_membership_is_judged_in_the_type_of_the_set_not_of_the_program():
    def function(x):
        return (x * 0.1).exp().sum() + 0 * x.bfloat16().sum().double()

    found = clarke.subdifferential(function, (point(0.7),))
    own = 0.1 * torch.exp(torch.tensor([0.07], dtype=torch.float64))
    assert found.contains(own)
    for wrong in (0.1078, 0.108, 0.11):
        assert found.contains(torch.tensor([wrong], dtype=torch.float64)).inside is False


def test_membership_is_still_judged_after_the_point_was_changed():
    far = torch.tensor([50.0], dtype=torch.float64)
    x = point(1.0)
    found = clarke.subdifferential(lambda x: (x**2).sum(), (x,))
    with torch.no_grad():
        x -= 0.1
    assert found.contains(far).inside is False
    x.data.fill_(1e9)
    assert found.contains(far).inside is False
    assert found.contains(torch.tensor([2.0], dtype=torch.float64))
    found.is_stationary()


def test_a_clean_variable_is_not_hidden_by_a_noisy_one():
    def function(x, y):
        return (x * CANCELLING).sum() + (y * 1e-30).sum()

    found = clarke.subdifferential(function, (point(1.0), point(1.0)))
    parts = [torch.tensor([v], dtype=torch.float64) for v in (1e-18, 1e-20, 1e-30)]
    assert found.contains([parts[0], parts[2]])
    off = found.contains([parts[0], parts[1]])
    assert off.inside is False
    assert off.verify()


def test_the_error_shown_is_that_without_noise():
    outcome = confirm(
        lambda moved: [1e-17 * torch.cos(1e9 * moved[0]), torch.ones(1) * (1 + moved[0])],
        [torch.ones(1, dtype=torch.float64)],
        [torch.ones(1, dtype=torch.float64)],
        [torch.zeros(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)],
        1e-7,
        (torch.tensor([1e-16]), torch.tensor([0.0])),
    )
    assert not outcome.confirmed
    assert outcome.error > 0.5


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
