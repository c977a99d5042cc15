"""What an audit does about NaN and infinity when it is asked to."""

import warnings

import pytest
import torch

import clarke
from clarke import Verdict

F64 = torch.float64


def root(x):
    """Its slope at zero is infinite times zero: NaN, where every vector of length 1 is right."""
    return (x * x).sum().sqrt()


def leaf(*values):
    return torch.tensor(values, dtype=F64, requires_grad=True)


def test_by_default_the_verdict_tells_and_nothing_more():
    x = leaf(0.0, 0.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with clarke.audit(seconds=None) as audit:
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
