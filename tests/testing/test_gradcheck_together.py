"""Many components in one call: what is judged together, and what becomes of the undecided."""

import pytest
import torch
from torch.autograd.gradcheck import GradcheckError

import clarke.testing.rows as rows_module
from clarke.testing import gradcheck
from reference.leaves import leaf


def zeros(count):
    return torch.zeros(count, dtype=torch.float64, requires_grad=True)


def ones(count):
    return torch.ones(count, dtype=torch.float64, requires_grad=True)


@pytest.fixture
def checks(monkeypatch):
    """How many checks there were."""
    made = []

    def counted(*args, **kwargs):
        made.append(1)
        return check(*args, **kwargs)

    check = rows_module.check
    monkeypatch.setattr(rows_module, "check", counted)
    return made


TOGETHER = {
    "relus at zero": (torch.relu, zeros(60), 1),
    "their means": (torch.abs, zeros(60), 1),
    "ties": (lambda x: x.reshape(30, 2).amax(1), ones(60), 1),
    "one side each": (lambda x: (x - x.flip(0)).clamp(min=0), ones(60), 3),
    "few among many": (lambda x: torch.cat([x[:3].relu(), x[3:].sin()]), zeros(60), 2),
}


@pytest.mark.parametrize("name", TOGETHER)
def test_one_proof_serves_all(name, checks):
    function, x, most = TOGETHER[name]
    assert gradcheck(function, (x,))
    assert len(checks) <= most


def test_many_outputs_call_the_function_little_more_often_than_torch(checks):
    x = zeros(400)

    def calls(test):
        made = []
        test(lambda x: made.append(1) or torch.relu(x), (x,), raise_exception=False)
        return len(made)

    assert calls(gradcheck) < 3 * calls(torch.autograd.gradcheck)


WRONG = {
    "the last": (lambda x: torch.cat([x[1:].relu(), (x.relu() - (-x).relu())[:1]]), 39),
    "the first": (lambda x: torch.cat([(x.relu() - (-x).relu())[:1], x[1:].abs()]), 0),
    "one in the middle": (
        lambda x: torch.where(torch.arange(40) == 17, x.relu() - (-x).relu(), x.relu()),
        17,
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_one_among_many_is_named(name):
    function, index = WRONG[name]
    with pytest.raises(GradcheckError, match=f"Output component {index} of 40"):
        gradcheck(function, (zeros(40),))


def test_opposite_errors_do_not_hide_each_other():
    def two(x):
        wrong = x.relu() - (-x).relu()  # 0, and should be 1
        return torch.stack([wrong, -wrong]).reshape(-1)

    with pytest.raises(GradcheckError, match="Output component 0 of 2"):
        gradcheck(two, (zeros(1),))


def undecided(x):
    """A step that a Function declares away, beside an honest sine."""
    return torch.cat([Straight.apply(x), x.sin()])


class Straight(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.round()

    @staticmethod
    def backward(ctx, grad):
        return grad


def rounded(x):
    """The same at a point where forward jumps, which clarke calls a surrogate."""
    return torch.cat([Straight.apply(x), (x - 0.5).relu()])


def test_what_becomes_of_the_undecided():
    at = leaf(0.3)
    with pytest.raises(GradcheckError, match="Jacobian mismatch"):  # no kink: torch has the word
        gradcheck(undecided, (at,))
    corner = leaf(0.5)  # a step, and a kink of nothing
    with pytest.raises(GradcheckError, match="Output component 0 of 2"):
        gradcheck(rounded, (corner,))
    assert gradcheck(rounded, (corner,), undecided="skip")
    assert not gradcheck(undecided, (at,), undecided="torch", raise_exception=False)
    assert gradcheck(undecided, (at,), undecided="skip")
    with pytest.raises(ValueError, match="it takes 'fail', 'torch', 'skip'"):
        gradcheck(undecided, (at,), undecided="maybe")


def test_irrelevant_kinks_never_fail():
    def program(x):
        return torch.stack([x, x]).amax(0) + 0 * x.relu()

    assert gradcheck(program, (zeros(3),))


def test_special_points():
    def signed(x):
        return x.relu() - (-x).relu()

    at = leaf(0.3, -0.2)
    assert gradcheck(signed, (at,))
    with pytest.raises(GradcheckError, match="at another point than the one given"):
        gradcheck(signed, (at,), special=True, seconds=5)
    assert gradcheck(torch.relu, (at,), special=True, seconds=2)
    assert at.tolist() == [0.3, -0.2]
