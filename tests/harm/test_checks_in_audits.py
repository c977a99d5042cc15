"""A check within an audit is no part of the program: what it runs is not recorded."""

import pytest
import torch
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

import clarke
from clarke import Verdict
from clarke.capture import Recorder
from reference.leaves import leaf
from reference.modes import Seeing

RELU = torch.ops.aten.relu.default


def split(x):
    return (torch.relu(x) - torch.relu(-x)).sum()


@pytest.fixture
def recorded(monkeypatch):
    """Operations that an audit's recorder met."""
    met = []
    plainly, generally = Recorder._plainly, Recorder._generally

    def counted_plainly(self, operator, args):
        met.extend([operator.func] if type(self) is Recorder else [])
        return plainly(self, operator, args)

    def counted_generally(self, operator, *rest):
        met.extend([operator.func] if type(self) is Recorder else [])
        return generally(self, operator, *rest)

    monkeypatch.setattr(Recorder, "_plainly", counted_plainly)
    monkeypatch.setattr(Recorder, "_generally", counted_generally)
    return met


def test_what_a_check_runs_is_not_recorded(recorded):
    with clarke.audit(on_wrong=lambda _: None) as audit:
        report = clarke.check(split, leaf(0.0, 1.0))
        assert RELU not in recorded
        loss = split(leaf(0.0))
        assert recorded.count(RELU) == 2  # it goes on
        loss.backward()
    assert report.verdict is Verdict.NOT_CLARKE
    assert [s.verdict for s in audit.steps] == [Verdict.NOT_CLARKE]


def test_between_forward_and_backward_the_step_is_judged_all_the_same():
    w, b = leaf(0.5, -1.0), leaf(0.0)
    with clarke.audit(on_wrong=lambda _: None) as audit:
        loss = (torch.relu(w) - torch.relu(-b)).sum()
        assert clarke.check(split, b).verdict is Verdict.NOT_CLARKE
        assert clarke.check(lambda x: x.abs().sum(), w).verdict is Verdict.SMOOTH
        loss.backward()
    assert [s.verdict for s in audit.steps] == [Verdict.BOULIGAND]


def test_the_modes_are_what_they_were_also_where_the_function_raises():
    def broken(x):
        raise ZeroDivisionError(x)

    with clarke.audit(), Seeing() as mine:
        before = _get_current_dispatch_mode_stack()
        clarke.check(split, leaf(1.0))
        assert mine.seen
        assert _get_current_dispatch_mode_stack() == before
        with pytest.raises(ZeroDivisionError):
            clarke.check(broken, leaf(1.0))
        assert _get_current_dispatch_mode_stack() == before
