"""What an audit does about wrong gradients, and about failures of its own."""

import importlib
import warnings

import pytest
import torch

import clarke
from clarke import OnWrong, Verdict
from clarke.decide import Settings


def wrong(w):
    """The identity, whose gradient AD says is 0 at 0."""
    return torch.relu(w) - torch.relu(-w)


def zero():
    return torch.zeros((), requires_grad=True)


def test_warns_at_the_users_line():
    w = zero()
    with clarke.audit() as watch, pytest.warns(clarke.WrongGradientWarning) as caught:
        wrong(w).backward()  # here
    (warning,) = caught
    assert warning.filename == __file__
    assert warning.lineno == watch.steps[0].location.line
    assert "is wrong" in str(warning.message)
    assert w.grad == 0  # left as AD computed it


def test_warns_once_for_each_line():
    w = zero()
    with clarke.audit(OnWrong.WARN), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for _ in range(3):
            wrong(w).backward()
        wrong(w).backward()
    assert len(caught) == 2


def test_raises_before_anything_is_written():
    w, v = zero(), torch.tensor(1.0, requires_grad=True)
    v.grad = torch.tensor(7.0)
    before = v.grad
    with clarke.audit("raise") as watch:
        loss = wrong(w) + v
        with pytest.raises(clarke.WrongGradientError) as error:
            loss.backward()
    assert w.grad is None
    assert v.grad is before
    assert v.grad == 7
    assert error.value.report.verdict is Verdict.NOT_CLARKE
    assert "test_audit_policies.py" in str(error.value)
    assert watch.steps[0].verdict is Verdict.NOT_CLARKE
    with clarke.audit(on_wrong=OnWrong.RAISE), pytest.raises(clarke.WrongGradientError):
        torch.autograd.grad(wrong(w), w)


def test_repairs_what_backward_accumulates():
    w, v = zero(), zero()
    v.grad = torch.tensor(5.0)
    with clarke.audit("repair") as watch, warnings.catch_warnings():
        warnings.simplefilter("error")
        wrong(w).backward()
        (wrong(v) * 2).backward()
    assert w.grad == 1
    assert v.grad == 7
    assert [s.repaired for s in watch.steps] == [True, True]
    assert watch.summary().repaired == 2


def test_repairs_what_grad_returns():
    w, u, v = zero(), torch.ones((), requires_grad=True), zero()
    with clarke.audit("repair") as watch:
        found = torch.autograd.grad(wrong(w) * u + 3 * v, [v, w, w])
        (again,) = torch.autograd.grad(wrong(w) * u, w, create_graph=True)
    assert [g.item() for g in found] == [3, 1, 1]
    assert again == 1
    assert again.requires_grad
    assert all(s.repaired for s in watch.steps)


def test_repairs_a_training_that_would_be_stuck():
    def train(watch):
        w = zero()
        optimizer = torch.optim.SGD([w], 0.5)
        with watch:
            for _ in range(3):
                optimizer.zero_grad()
                wrong(w).backward()
                optimizer.step()
        return w.item()

    with pytest.warns(clarke.WrongGradientWarning):
        assert train(clarke.audit()) == 0
    assert train(clarke.audit("repair")) == -1.5


def test_calls_a_function_with_the_report():
    seen = []
    w = zero()
    with clarke.audit(seen.append), warnings.catch_warnings():
        warnings.simplefilter("error")
        (w * 2).backward()
        wrong(w).backward()
    (report,) = seen
    assert report.verdict is Verdict.NOT_CLARKE
    assert report.gradient[0] == 0
    assert report.element[0] == 1


@pytest.mark.parametrize("policy", ["warn", "raise", "repair"])
def test_undecided_and_other_verdicts_trigger_nothing(policy):
    w = zero()
    with clarke.audit(policy, on_nonfinite=None) as watch, warnings.catch_warnings():
        warnings.simplefilter("error")
        (torch.zeros(()) * w + torch.sqrt(w)).backward()
        (torch.round(w) + w).backward()
    assert w.grad is not None
    assert all(s.correct is None or s.correct for s in watch.steps)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"on_wrong": "stop"}, '"warn", "raise", "repair"'),
        ({"on_wrong": None}, "clarke.OnWrong"),
        ({"every": 0}, "every is 0"),
        ({"every": 1.5}, "whole number"),
        ({"sample": 0}, "sample is 0"),
        ({"sample": 2}, "probability"),
        ({"confirm_every": -1}, "confirm_every"),
    ],
)
def test_bad_arguments(arguments, text):
    with pytest.raises(clarke.InputError, match=text):
        clarke.audit(**arguments)


def test_nested_audits_are_refused():
    with clarke.audit() as outer:
        with pytest.raises(clarke.InputError, match="cannot be nested"), clarke.audit():
            pass
        with pytest.raises(clarke.InputError, match="already running"), outer:
            pass
        (zero() * 2).backward()
    assert outer.steps[0].verdict is Verdict.SMOOTH
    with outer:  # one after the other is fine
        (zero() * 2).backward()
    assert len(outer.steps) == 2


def test_inference_mode_around_the_audit_is_refused():
    with (
        torch.inference_mode(),
        pytest.raises(clarke.InputError, match="inference_mode"),
        clarke.audit(),
    ):
        pass


def test_a_failure_of_clarke_leaves_the_training_alone(monkeypatch):
    def fail(*_args, **_kwargs):
        raise ZeroDivisionError("on purpose")

    monkeypatch.setattr(importlib.import_module("clarke.audit.judge"), "decide", fail)
    w = zero()

    def train():
        for _ in range(2):
            (w * 3).backward()

    with (
        clarke.audit("raise", settings=Settings(quick=False)) as watch,
        pytest.warns(clarke.AuditWarning) as caught,
    ):
        train()
    assert w.grad == 6
    assert len(caught) == 1
    assert caught[0].filename == __file__
    for step in watch.steps:
        assert step.verdict is Verdict.UNDECIDED
        assert "ZeroDivisionError: on purpose" in step.reason


def test_a_failure_in_preparing_leaves_the_training_alone(monkeypatch):
    def fail(*_args, **_kwargs):
        raise ZeroDivisionError("on purpose")

    monkeypatch.setattr(importlib.import_module("clarke.audit.judge"), "collect_trace", fail)
    w = zero()
    with clarke.audit("raise") as watch, pytest.warns(clarke.AuditWarning):
        (w * 3).backward()
    assert w.grad == 3
    assert watch.steps[0].verdict is Verdict.UNDECIDED


def test_the_users_own_errors_pass_through():
    w = zero()
    with clarke.audit() as watch:
        loss = (w * w).sum()
        loss.backward()
        with pytest.raises(RuntimeError, match="second time"):
            loss.backward()
        with pytest.raises(RuntimeError, match="does not require grad"):
            torch.zeros(()).backward()
        (w * 2).backward()
    assert [s.verdict for s in watch.steps] == [Verdict.SMOOTH, Verdict.SMOOTH]
    assert w._backward_hooks is None


def test_what_a_subscriber_raises_reaches_the_loop():
    def stop(step, report):
        raise StopIteration

    with clarke.audit() as watch:
        watch.subscribe(stop)
        with pytest.raises(StopIteration):
            (zero() * 2).backward()
