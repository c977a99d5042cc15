"""Scales, types and shapes at the edges; rows that nearly agree."""

import pytest
import torch
from torch.nn import functional as F  # noqa: N812

import clarke
from clarke import Verdict
from clarke.decide.limits import Limits
from reference.leaves import zeros


@pytest.mark.parametrize("factor", [1e-30, 1e-8, 1.0, 1e8, 1e30])
def test_scale_changes_no_verdict(factor):
    wrong = clarke.check(lambda x: factor * (F.relu(x) - F.relu(-x)).sum(), (zeros(2),))
    assert wrong.verdict is Verdict.NOT_CLARKE
    assert wrong.element[0].tolist() == [factor, factor]
    right = clarke.check(lambda x: factor * (x.abs() - F.relu(x)).sum(), (zeros(2),))
    assert right.correct
    found = clarke.subdifferential(lambda x: factor * x.abs().sum(), (zeros(2),))
    assert sorted(found.vertices().tolist()) == [
        [-factor, -factor],
        [-factor, factor],
        [factor, -factor],
        [factor, factor],
    ]
    assert not found.contains(torch.full((2,), 1.001 * factor, dtype=torch.float64))
    assert found.contains(torch.full((2,), 0.999 * factor, dtype=torch.float64))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_floating_point_types(dtype):
    report = clarke.check(lambda x: (F.relu(x) - F.relu(-x)).sum(), (zeros(2, dtype=dtype),))
    assert report.verdict is Verdict.NOT_CLARKE
    assert clarke.check(lambda x: x.abs().sum(), (zeros(2, dtype=dtype),)).correct
    (taken,) = clarke.grad(lambda x: x.abs().sum(), (zeros(2, dtype=dtype),))
    assert taken.dtype == dtype
    assert taken.abs().tolist() == [1, 1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_member_rounded_to_a_narrow_type(dtype):
    x = zeros(3, dtype=dtype)
    report = clarke.check(lambda x: x.amax(), (x,))
    assert report.verdict is Verdict.CLARKE


def test_scalars_without_dimensions():
    x = torch.tensor(0.0, dtype=torch.float64, requires_grad=True)
    found = clarke.subdifferential(torch.abs, x)
    assert found.vertices().shape == (2, 1)
    assert found.min_norm()[0].shape == ()
    assert found.directional(torch.tensor(-2.0, dtype=torch.float64)) == 2
    assert clarke.grad(torch.abs, x)[0].shape == ()


def test_smooth_programs_have_one_element():
    x = torch.ones(2, dtype=torch.float64, requires_grad=True)
    found = clarke.subdifferential(lambda x: (x**2).sum(), (x,))
    assert found.vertices().tolist() == [[2, 2]]
    assert found.complete
    assert clarke.grad(lambda x: (x**2).sum(), (x,))[0].tolist() == [2, 2]


def test_kinks_that_do_not_reach_the_variable():
    x, y = zeros(1), zeros(1)

    def program():
        return (x * 3 + y.abs()).sum()

    assert clarke.subdifferential(program, wrt=[x]).vertices().tolist() == [[3]]
    assert clarke.check(program, wrt=[x]).verdict is Verdict.SMOOTH


def test_repeated_rows_count_once():
    x = zeros(2)
    found = clarke.subdifferential(lambda x: sum(F.relu(x[0] + x[1]) for _ in range(30)), (x,))
    assert found.bouligand().tolist() in ([[0, 0], [30, 30]], [[30, 30], [0, 0]])


def opposed(slant):
    return lambda x: F.relu(x[0] + x[1]) - F.relu(-x[0] - (1 + slant) * x[1])


def test_rows_that_differ_by_rounding_are_one_row():
    """1e-14 apart is what another order of summation leaves: the two kinks must agree."""
    report = clarke.check(opposed(1e-14), (zeros(2),))
    assert report.verdict is Verdict.NOT_CLARKE


def test_rows_that_differ_by_more_are_two():
    """1e-9 apart is no rounding: between the two kinks there is a thin cone with gradient 0."""
    assert clarke.check(opposed(1e-9), (zeros(2),)).correct is not False
    wide = clarke.check(opposed(1e-3), (zeros(2),))
    assert wide.verdict is Verdict.BOULIGAND
    assert len(clarke.subdifferential(opposed(1e-3), (zeros(2),)).bouligand()) == 4


def test_a_function_that_jumps_beside_the_point_is_not_called_right():
    """y (x > 0) is continuous at the origin, but Lipschitz in no neighbourhood of it."""
    for program in (
        lambda v: v[1] * (v[0] > 0),
        lambda v: torch.where(v[0] > 0, v[1], 0 * v[1]),
        lambda v: v[1] * torch.sign(v[0]),
    ):
        report = clarke.check(program, (zeros(2),))
        assert report.correct is None
        with pytest.raises(clarke.BudgetError, match="step"):
            clarke.subdifferential(program, (zeros(2),))


def test_a_mask_of_something_fixed_is_no_kink():
    x, a = zeros(1), zeros(1)

    def program():
        return (x * (a >= 0)).sum()

    report = clarke.check(program, wrt=[x])
    assert report.verdict is Verdict.SMOOTH


def test_kinks_behind_a_mask_are_not_taken_for_idle():
    """With AD's answer of the mask, nothing behind it has a slope; on the other side it has."""

    def program(x):
        t = torch.where(x > 0, x, 0 * x)
        return -(F.threshold(-t, 0, 0) - torch.clamp(-t, min=0)) - torch.clamp(t, min=0)

    x = torch.zeros((), dtype=torch.float64, requires_grad=True)
    found = clarke.subdifferential(program, (x,))
    assert sorted(found.bouligand().tolist()) == [[-1], [0]]


def test_sixty_five_outputs_fail_cleanly():
    x = zeros(65)
    with pytest.raises(clarke.InputError, match="shape"):
        clarke.subdifferential(lambda x: x.abs(), (x,))
    found = clarke.subdifferential(lambda x: x.abs().sum(), (zeros(300),), limits=Limits(kinks=64))
    assert found.contains(zeros(300).detach())  # convex: asked without a list
    with pytest.raises(clarke.BudgetError, match="kinks"):
        found.vertices()
