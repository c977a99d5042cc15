"""What an audit does about NaN and infinity when it is asked to."""

import warnings

import pytest
import torch

import clarke
from clarke import Verdict
from reference.leaves import leaf

F64 = torch.float64


def root(x):
    """Its slope at zero is infinite times zero: NaN, where every vector of length 1 is right."""
    return (x * x).sum().sqrt()


def test_by_default_the_first_of_a_place_is_told_with_line_and_cure():
    x = leaf(0.0, 0.0)
    audit = clarke.audit(seconds=None)

    def train():
        with audit:
            for _ in range(3):
                root(x).backward()

    with pytest.warns(clarke.WrongGradientWarning) as told:
        train()
    (only,) = told
    line = root.__code__.co_firstlineno + 2
    assert f"sqrt at {__file__}:{line}" in str(only.message)
    assert "Instead: The root of a sum of squares is torch.linalg.vector_norm" in str(only.message)
    shown = str(audit.summary())
    assert f"first     NONFINITE in step 1: sqrt at test_nonfinite_policy.py:{line}" in shown
    assert "instead   The root of a sum of squares" in shown


def test_a_step_with_a_finite_gradient_is_not_called_infinite():
    x = leaf(1.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with clarke.audit(seconds=None) as audit:
            (torch.floor(x) + x).sum().backward()
    assert audit.steps[-1].verdict is not Verdict.NONFINITE


def test_a_parameter_that_is_nan_already_blames_no_operation():
    x = leaf(float("nan"), 1.0)
    report = clarke.check(root, (x,))
    assert report.verdict is Verdict.NONFINITE
    assert "A variable is NaN or infinity before anything is computed" in report.reason
    assert report.culprits == ()


def test_without_an_answer_the_verdict_tells_and_nothing_more():
    x = leaf(0.0, 0.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with clarke.audit(on_nonfinite=None, seconds=None) as audit:
            root(x).backward()
    assert audit.reports[-1].verdict is Verdict.NONFINITE
    assert bool(x.grad.isnan().all())


def test_repair_writes_a_valid_gradient():
    x = leaf(0.0, 0.0)
    with clarke.audit(on_nonfinite="repair", seconds=None) as audit:
        root(x).backward()
        (again,) = torch.autograd.grad(root(x), x)
    assert float(x.grad.norm()) == pytest.approx(1.0)
    assert float(again.norm()) == pytest.approx(1.0)
    assert [s.repaired for s in audit.steps] == [True, True]
    assert audit.summary().repaired == 2


def test_repair_adds_to_what_was_accumulated_before():
    x = leaf(0.0, 0.0)
    x.grad = torch.tensor([10.0, 0.0], dtype=F64)
    with clarke.audit(on_nonfinite="repair", seconds=None):
        root(x).backward()
    assert float((x.grad - torch.tensor([10.0, 0.0])).norm()) == pytest.approx(1.0)


def test_repair_warns_where_there_is_nothing_valid():
    x = leaf(0.0)
    with (
        pytest.warns(clarke.WrongGradientWarning, match="is not finite"),
        clarke.audit(on_nonfinite="repair", seconds=None) as audit,
    ):
        x.sqrt().sum().backward()
    assert not audit.steps[-1].repaired
    assert bool(x.grad.isinf().all())


def test_warn_raise_and_a_function():
    x = leaf(0.0, 0.0)
    with (
        pytest.warns(clarke.WrongGradientWarning, match=r"is not finite: sqrt"),
        clarke.audit(on_nonfinite="warn", seconds=None),
    ):
        root(x).backward()
    x.grad = None
    with (
        pytest.raises(clarke.WrongGradientError, match="is not finite"),
        clarke.audit(on_nonfinite="raise", seconds=None),
    ):
        root(x).backward()
    assert x.grad is None  # as it was before the call
    seen = []
    with clarke.audit(on_nonfinite=seen.append, seconds=None):
        root(x).backward()
        (3 * x).sum().backward()
    assert [r.verdict for r in seen] == [Verdict.NONFINITE]


def test_a_policy_that_there_is_not_is_refused_by_name():
    with pytest.raises(clarke.InputError, match="on_nonfinite is 'mend'"):
        clarke.audit(on_nonfinite="mend")
