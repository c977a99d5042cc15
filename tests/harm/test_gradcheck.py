"""gradcheck in the place of torch's, and functions that do not take every point."""

import pytest
import torch

import clarke
from clarke import Verdict
from clarke.testing import GradcheckError, gradcheck


def zeros():
    return torch.zeros(2, dtype=torch.float64, requires_grad=True)


def test_in_the_place_of_torchs(monkeypatch):
    monkeypatch.setattr(torch.autograd, "gradcheck", gradcheck)
    x = torch.tensor([0.0, 0.5], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(torch.sin, (x,))
    assert torch.autograd.gradcheck(torch.relu, (x,))


@pytest.mark.parametrize("exponent", [2, 3.0])
def test_powers_in_place(exponent):
    x = torch.tensor([0.0, 1.5], dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda x: x.clone().pow_(exponent), (x,))
    assert clarke.check(lambda x: x.clone().pow_(exponent).sum(), (x,)).verdict is Verdict.SMOOTH
    root = clarke.check(lambda x: x.clone().pow_(0.5).sum(), (x,))
    assert root.verdict is clarke.check(lambda x: x.pow(0.5).sum(), (x,)).verdict


def test_an_input_that_is_none():
    x = torch.tensor([0.0, 1.0], dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda x, _: torch.relu(x), (x, None))


@pytest.mark.parametrize("kind", [ValueError, TypeError, RuntimeError, AssertionError, KeyError])
def test_a_function_that_checks_its_input(kind):
    def picky(x):
        if bool((x.detach() != 0).any()):
            raise kind("zeros only")
        return torch.relu(x)

    x = zeros()
    report = clarke.check(lambda x: picky(x).sum(), (x,))
    assert report.verdict in (Verdict.UNDECIDED, Verdict.BOULIGAND)
    with pytest.raises(GradcheckError):
        gradcheck(picky, (x,))
    assert x.tolist() == [0.0, 0.0]


def test_a_function_whose_result_changes_its_size():
    x = zeros()
    with pytest.raises(GradcheckError):
        gradcheck(lambda x: x[x >= 0].relu(), (x,))
    assert clarke.check(lambda x: x[x >= 0].relu().sum(), (x,)).verdict is not Verdict.NOT_CLARKE
