"""What reports and errors say, as a user reads it."""

import contextlib
import functools
import warnings

import pytest
import torch
from torch.autograd.gradcheck import GradcheckError

import clarke
from clarke.report.text import tensors_text
from clarke.testing import gradcheck
from reference.leaves import zeros


def test_a_zero_has_no_sign():
    assert tensors_text((torch.tensor([-0.0, 1.0]), torch.tensor(-0.0))) == "[0, 1], 0"


def test_negative_numbers_and_what_is_not_finite_stay():
    shown = torch.tensor([-0.5, -1e-300, float("nan"), -float("inf")], dtype=torch.float64)
    assert tensors_text((shown,)) == "[-0.5, -1e-300, nan, -inf]"


def test_gradients_that_an_audit_does_not_copy_are_said_so():
    assert tensors_text(()) == "(not copied)"


def test_no_place_is_in_pythons_own_modules():
    with contextlib.ExitStack() as stack:
        x = zeros(1)
        found = []
        stack.callback(
            lambda: found.append(clarke.check(functools.partial(torch.relu, x), wrt=[x]))
        )
    (report,) = found
    assert report.kinks[0].file == __file__


def test_gradcheck_of_an_operation_names_the_line_of_the_test():
    with pytest.raises(GradcheckError, match="has no gradient") as error:
        gradcheck(torch.sqrt, (zeros(1),))
    assert "test_messages.py" in str(error.value)
    assert "contextlib" not in str(error.value)


def test_a_failing_gradcheck_shows_the_message_and_not_torchs_source():
    class Half(torch.autograd.Function):
        @staticmethod
        def forward(_ctx, x):
            return x * x

        @staticmethod
        def backward(_ctx, grad):
            return grad

    with pytest.raises(GradcheckError, match="Jacobian mismatch") as error:
        gradcheck(Half.apply, (torch.ones(1, dtype=torch.float64, requires_grad=True),))
    files = {str(entry.path) for entry in error.traceback}
    assert not any("gradcheck.py" in f and "torch" in f for f in files)
    assert [e.name for e in error.traceback.filter(error)][-1].startswith("test_")


@pytest.mark.parametrize("seconds", ["a", 0, -1, float("nan"), [1]])
def test_what_is_no_time_limit_is_refused_by_name(seconds):
    with pytest.raises(clarke.InputError, match="A time limit has to be a positive number"):
        clarke.check(lambda x: x.sum(), (zeros(1),), seconds=seconds)


def test_a_jump_is_told_as_a_number():
    report = clarke.check(lambda x: torch.where(x == 0, x - 1, x).sum(), (zeros(1),))
    assert report.verdict is clarke.Verdict.NOT_LIPSCHITZ
    assert "stay 1 away from its own" in report.reason


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_check_raises_no_warnings_of_torch(dtype):
    # A norm is confirmed by values of the record, which require gradients.
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        clarke.check(lambda x: (x + 1e-3).norm(), (torch.zeros(3, dtype=dtype).requires_grad_(),))
        clarke.check(
            lambda x: x.norm() + x.relu().sum(), (zeros(2).to(dtype).detach().requires_grad_(),)
        )


def test_a_difference_is_told_as_a_number():
    def branching(x):
        return x.sum() * (2 if x.sum().item() > 0 else 1)

    assert "differ from its own by 0.5" in clarke.check(branching, (zeros(1),)).reason


def test_what_a_set_and_a_membership_show_is_what_they_say():
    x = zeros(1)
    found = clarke.subdifferential(lambda x: x.abs().sum(), (x,))
    assert repr(found).startswith("Subdifferential(combinations of pieces=2, complete=True, AD=")
    inside = found.contains(torch.zeros(1, dtype=torch.float64))
    outside = found.contains(torch.full((1,), 3.0, dtype=torch.float64))
    assert str(inside) == "inside: a convex combination of 2 limiting gradient(s)"
    assert str(outside) == "outside: 2 away from the set"


def test_a_warning_does_not_say_twice_that_a_gradient_is_wrong():
    weight = zeros(2)
    with pytest.warns(clarke.WrongGradientWarning) as caught, clarke.audit() as audit:
        (torch.relu(weight) - torch.relu(-weight)).sum().backward()
    assert "is wrong: the gradient is not in the Clarke subdifferential" in str(caught[0].message)
    assert "WRONG" not in str(caught[0].message)
    assert " 100 " in str(audit.summary())  # percent of the elements, not 1e+02
