"""Positive verdicts against the function's own values."""

import torch

import clarke
from clarke.verdict import Verdict
from reference.leaves import leaf


def test_a_tensor_that_was_given_other_data():
    def program(x):
        y = x * 1
        y.data = y.data * 2
        return y.sum()  # 2 x, of which AD knows 1 x

    report = clarke.check(program, (leaf(1.0),))
    assert report.gradient[0] == 1
    assert report.verdict is Verdict.UNDECIDED
    assert "out of clarke's sight" in report.reason


def test_a_derivative_that_is_declared_by_an_option():
    # Autograd divides the gradient of a row by the number of times that it was read.
    def program(x):
        rows = torch.nn.functional.embedding(
            torch.tensor([0, 0, 1]), x.reshape(2, 1), scale_grad_by_freq=True
        )
        return rows.sum()

    report = clarke.check(program, (leaf(1.0, 2.0),))
    assert report.verdict is Verdict.SURROGATE


def test_fast_and_large_functions_are_not_doubted():
    assert clarke.check(lambda x: torch.sin(1e6 * x).sum(), (leaf(0.3),)).verdict is Verdict.SMOOTH
    assert clarke.check(lambda x: (x + 1e9).sum() ** 2, (leaf(0.3),)).verdict is Verdict.SMOOTH
    near = leaf(1e-7, 0.0)  # one kink touched, one very close
    assert clarke.check(lambda x: torch.relu(x).sum(), (near,)).verdict is Verdict.BOULIGAND
