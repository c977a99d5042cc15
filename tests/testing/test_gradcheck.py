"""The drop-in agrees with torch's gradcheck away from kinks and with the mathematics at them."""

import inspect

import pytest
import torch
from torch.autograd.gradcheck import GradcheckError

from clarke.testing import gradcheck
from reference.leaves import leaf


class _Doubles(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return 2 * x

    @staticmethod
    def backward(ctx, grad):
        return 2 * grad


class _DoublesWrongly(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return 2 * x

    @staticmethod
    def backward(ctx, grad):
        return 3 * grad


def test_signature_is_torchs():
    ours = dict(inspect.signature(gradcheck).parameters)
    for own in ("seconds", "undecided", "special"):
        assert ours.pop(own).kind is inspect.Parameter.KEYWORD_ONLY
    theirs = inspect.signature(torch.autograd.gradcheck).parameters
    assert list(ours) == list(theirs)
    assert [(p.kind, p.default) for p in ours.values()] == [
        (p.kind, p.default) for p in theirs.values()
    ]


VALID = {
    "relu at 0": (torch.relu, (0.0,)),
    "relu, some elements at 0": (torch.relu, (0.0, 1.0, -2.0, 0.0)),
    "amin, four tied": (lambda x: x.amin(), (1.0, 1.0, 1.0, 1.0)),
    "max over a tie": (lambda x: x.max(0).values, (2.0, 2.0, 1.0)),
    "clamp at its bound": (lambda x: x.clamp(min=0), (0.0, 3.0)),
    "relu6 at both ends": (torch.nn.functional.relu6, (0.0, 6.0)),
    "leaky relu at 0": (torch.nn.functional.leaky_relu, (0.0,)),
    "a kink among smooth rows": (lambda x: torch.cat([x.relu(), x.sin()]), (0.0, 1.0)),
    "maximum of two inputs": (lambda x: torch.maximum(x[0], x[1]), (1.0, 1.0)),
    "max pooling of a tie": (
        lambda x: torch.nn.functional.max_pool1d(x.reshape(1, 1, -1), 2),
        (1.0, 1.0, 0.0, 3.0),
    ),
}


@pytest.mark.parametrize(("func", "values"), VALID.values(), ids=VALID.keys())
def test_valid_gradients_at_kinks_pass(func, values):
    assert gradcheck(func, leaf(*values))


def test_torchs_own_fails_where_ours_passes():
    for name in ("relu at 0", "amin, four tied", "max over a tie"):
        func, values = VALID[name]
        assert not torch.autograd.gradcheck(func, leaf(*values), raise_exception=False)


WRONG = {
    "relu(x) - relu(-x)": (lambda x: x.relu() - (-x).relu(), (0.0,)),
    "wrong in one row of three": (
        lambda x: torch.stack([x[0].relu(), x[0].relu() - (-x[0]).relu(), x[1]]),
        (0.0, 1.0),
    ),
    "two hardsigmoids": (
        lambda x: torch.nn.functional.hardsigmoid(3 + x) + torch.nn.functional.hardsigmoid(x - 3),
        (0.0,),
    ),
}


@pytest.mark.parametrize(("func", "values"), WRONG.values(), ids=WRONG.keys())
def test_wrong_gradients_at_kinks_fail_and_say_where(func, values):
    with pytest.raises(GradcheckError, match=r"Output component \d of \d[\s\S]*test_gradcheck"):
        gradcheck(func, leaf(*values))
    assert gradcheck(func, leaf(*values), raise_exception=False) is False


def test_passing_finite_differences_do_not_excuse_a_wrong_gradient():
    # The least of three has central differences 1/2 each at a tie, but its generalized gradients
    # add up to 1. The second term is identically 0; AD makes 1/6 each of it, and 1/3 of the first.
    def func(x):
        return x.amin() + (x - x.relu() + (-x).relu()).sum() / 6

    x = leaf(0.0, 0.0, 0.0)
    assert torch.autograd.gradcheck(func, x)
    with pytest.raises(GradcheckError):
        gradcheck(func, x)


SMOOTH = {
    "product": lambda x, y: x * y.sin(),
    "several outputs": lambda x, y: (x @ y, x.exp()),
    "away from the kink": lambda x, y: (x + 10).relu() * y,
    "custom Function": lambda x, y: _Doubles.apply(x) * y,
    "tie without effect": lambda x, y: torch.stack([x, x]).amax(0) * y,
    "an unused input": lambda x, y: x.exp(),
}


@pytest.mark.parametrize("func", SMOOTH.values(), ids=SMOOTH.keys())
def test_smooth_functions_pass_as_with_torch(func):
    inputs = (leaf(0.3, -1.2, 0.7), leaf(1.1, 0.4, -0.6))
    assert torch.autograd.gradcheck(func, inputs)
    assert gradcheck(func, inputs)
    assert gradcheck(func, inputs, fast_mode=True, check_forward_ad=func is SMOOTH["product"])


def test_wrong_formulas_fail_as_with_torch():
    x = leaf(0.3, -1.2)
    with pytest.raises(GradcheckError, match="Jacobian mismatch"):
        gradcheck(_DoublesWrongly.apply, x)
    with pytest.raises(GradcheckError):
        gradcheck(lambda x: torch.cat([x.relu(), _DoublesWrongly.apply(x)]), leaf(0.0, 1.0))


def test_a_wrong_smooth_row_is_not_hidden_by_a_valid_kink():
    def func(x):
        return torch.stack([x[0].relu(), (x * x.detach()).sum()])  # second row: half the gradient

    with pytest.raises(GradcheckError):
        gradcheck(func, leaf(0.0, 2.0))


def test_random_smooth_programs_agree_with_torch():
    torch.manual_seed(1)
    for _ in range(5):
        a, x = torch.randn(4, 3, dtype=torch.float64), torch.randn(3, dtype=torch.float64)
        x.requires_grad_()

        def func(x, a=a):
            return (a @ x).relu() + (a @ x).abs()

        assert torch.autograd.gradcheck(func, x)
        assert gradcheck(func, x)


def test_calls_that_make_no_sense_are_torchs_errors():
    with pytest.raises(ValueError, match=r"requires? gradient"):
        gradcheck(torch.sin, torch.zeros(2, dtype=torch.float64))


def test_inputs_that_were_computed_are_taken():
    x = leaf(0.0, 1.0) * 1.0
    assert gradcheck(torch.relu, x)


def test_integer_arguments_and_repeated_inputs():
    x = leaf(0.0, 2.0)
    assert gradcheck(lambda x, k: x.relu().roll(k), (x, 1))
    assert gradcheck(lambda x, y: x.relu() + y, (x, leaf(1.0, 1.0)))


def test_inputs_are_left_as_they_were():
    x = leaf(0.0, 1.0)
    gradcheck(torch.relu, x)
    assert x.grad is None
    assert x.tolist() == [0.0, 1.0]


def test_a_component_alone_is_shown_with_its_own_gradient():
    with pytest.raises(GradcheckError) as caught:
        gradcheck(lambda x: torch.relu(x) - torch.relu(-x), (leaf(0.0, 0.0),))
    assert "valid     [1, 0]" in str(caught.value)
