"""Wherever the time ends, a call ends with UNDECIDED and the name of what it was doing.

The clock here counts how often it is read: every question is a tick. So a limit of k ticks ends at
the k-th question, the same in every run, and all of them can be tried.
"""

import itertools

import pytest
import torch
from torch.nn import functional

import clarke
import clarke.testing
from clarke.deadline import Deadline
from clarke.errors import OutOfTimeError
from clarke.verdict import Verdict

D = torch.float64


class Ticks:
    def __init__(self):
        self.now = 0

    def __call__(self):
        self.now += 1
        return float(self.now)


@pytest.fixture
def limit(monkeypatch):
    """Make every deadline end after some ticks; returns a function that sets how many."""
    granted = [float("inf")]
    clocks = []

    def after(seconds, clock=None):
        ticks = Ticks()
        clocks.append(ticks)
        return Deadline(granted[0], 1.0, ticks)

    monkeypatch.setattr(Deadline, "after", staticmethod(after))

    def grant(ticks):
        granted[0] = float(ticks)
        clocks.clear()
        return clocks

    return grant


def zeros(*shape, dtype=D):
    return torch.zeros(*shape, dtype=dtype, requires_grad=True)


def network(x, w, b):
    h = functional.relu(x @ w + b)
    return (functional.relu(h @ w) - 0.5 * functional.relu(-(h @ w))).sum()


def guarded(x):
    return torch.where(x > 0, x * x, x.abs()).sum()


def held(x):
    return (x.abs() * (x.abs() + 1).detach()).sum()


PROGRAMS = {
    "smooth": (lambda x: (x * x).sum(), lambda: (zeros(3),)),
    "one side": (lambda x: functional.relu(x).sum(), lambda: (zeros(3),)),
    "mixed": (lambda x: x.abs().sum() + x.max(), lambda: (zeros(3),)),
    "wrong": (lambda x: (functional.relu(x) - functional.relu(-x)).sum(), lambda: (zeros(2),)),
    "nested": (network, lambda: (zeros(2, 3), zeros(3, 3), zeros(3))),
    "neighbours": (
        lambda x: (functional.relu(x) + functional.relu(-x)).sum(),
        lambda: (zeros(20),),
    ),
    "many": (
        lambda x: functional.relu(x).sum() + functional.relu(x + x).sum(),
        lambda: (zeros(70),),
    ),
    "infinite": (lambda x: (x.sqrt()).sum(), lambda: (zeros(2),)),
    "norm": (lambda x: x.norm() + x.abs().sum(), lambda: (zeros(2),)),
    "masked": (guarded, lambda: (zeros(2),)),
    "detached": (held, lambda: (zeros(2),)),
    "single": (lambda x: functional.relu(x).sum(), lambda: (zeros(3, dtype=torch.float32),)),
}


def plan(most, ratio=1.7):
    """Numbers of ticks to try: the first few, then further and further apart, and the last."""
    steps = itertools.accumulate(itertools.repeat(ratio), lambda a, b: a * b, initial=3.0)
    early = list(itertools.takewhile(lambda k: k < most, steps))
    return sorted({1, *(int(k) for k in early), most - 1})


def words(call):
    """What a call says that runs out of time; nothing if it does not."""
    try:
        call()
    except OutOfTimeError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("name", PROGRAMS)
def test_check_ends_wherever_time_does(name, limit):
    function, make = PROGRAMS[name]
    inputs = make()
    limit(float("inf"))
    clarke.check(function, inputs)  # what torch loads on first use takes no ticks
    clocks = limit(10**12)
    known = clarke.check(function, inputs)
    most = max(c.now for c in clocks)
    late = 0
    for ticks in plan(most):
        limit(ticks)
        found = clarke.check(function, inputs)
        if found.verdict is Verdict.UNDECIDED:
            assert found.out_of_time or known.verdict is Verdict.UNDECIDED
        else:
            assert found.verdict.correct is known.verdict.correct
        if found.out_of_time:
            late += 1
            # That the gradient is not finite is seen without any judging.
            seen = {Verdict.NONFINITE} if name == "infinite" else set()
            assert found.verdict in {Verdict.UNDECIDED, *seen}
            assert "Time ran out (1 s) while " in found.reason
            assert "while judging" not in found.reason  # every question has a name
            assert found.reason.endswith("smaller part of the program.")
    assert late >= 3
    assert all((a is b) or torch.equal(a, b) for a, b in zip(found.gradient, known.gradient))  # noqa: B905


@pytest.mark.slow
def test_all_rungs_are_named(limit):
    """Over all programs and moments, every rung of the ladder is caught at work."""
    said = ""
    for name in ("smooth", "mixed", "nested", "many", "infinite", "wrong"):
        function, make = PROGRAMS[name]
        inputs = make()
        clocks = limit(10**12)
        clarke.check(function, inputs)
        for ticks in plan(max(c.now for c in clocks), 1.2):
            limit(ticks)
            said += clarke.check(function, inputs).reason
    for rung in (
        "reading the record",
        "finding touched kinks",
        "telling which kinks matter",
        "looking at steps and infinite slopes",
        "tracing values that are not finite",
        "mixing witnesses",
        "looking for a direction that selects the pieces",
        "looking for a bias shift",
        "enumerating all selections",
        "confirming the verdict",
        "holding the verdict",
        "running the program again",
        "running the function again beside the point",
    ):
        assert rung in said, rung


def test_a_proof_is_not_bound_by_the_call_that_found_it(limit):
    function, make = PROGRAMS["wrong"]
    clocks = limit(10**12)
    inputs = make()
    clarke.check(function, inputs)
    limit(max(c.now for c in clocks) + 1)
    report = clarke.check(function, inputs)
    assert report.verdict is Verdict.NOT_CLARKE
    assert report.certificate.verify()
    assert report.certificate.verify()


@pytest.mark.parametrize("name", ["one side", "wrong", "many", "nested"])
def test_an_audit_goes_on_wherever_time_ends(name, limit):
    function, make = PROGRAMS[name]
    inputs = make()
    function(*inputs).backward()
    plain = [x.grad.clone() for x in inputs]
    clocks = limit(10**12)
    settings = clarke.Settings(quick=False)
    for x in inputs:
        x.grad = None
    with clarke.audit(lambda _: None, settings=settings) as watch:
        function(*inputs).backward()
    known = watch.steps[0].verdict
    late = 0
    for ticks in plan(max(c.now for c in clocks)):
        limit(ticks)
        for x in inputs:
            x.grad = None
        with clarke.audit(lambda _: None, settings=settings) as watch:
            function(*inputs).backward()
        (step,) = watch.steps
        assert all(torch.equal(x.grad, g) for x, g in zip(inputs, plain, strict=True))
        assert step.verdict in (known, Verdict.UNDECIDED)
        if step.verdict is Verdict.UNDECIDED:
            late += 1
            assert watch.reports[0].out_of_time
            assert "Time ran out (1 s) while " in step.reason
            assert step.joint is Verdict.UNDECIDED
    assert late >= 3


def test_accumulated_parts_end_in_time_too(limit):
    x = zeros(3)
    clocks = limit(10**12)

    def two():
        x.grad = None
        with clarke.audit(settings=clarke.Settings(quick=False)) as watch:
            functional.relu(x).sum().backward()
            functional.relu(2 * x).sum().backward()
        return watch.steps[-1]

    assert two().joint is Verdict.BOULIGAND
    for ticks in plan(max(c.now for c in clocks)):
        limit(ticks)
        step = two()
        assert step.joint in (Verdict.BOULIGAND, Verdict.UNDECIDED)
        if step.joint is Verdict.UNDECIDED:
            assert "Time ran out" in step.reason + step.joint_reason or step.joint_reason


@pytest.mark.parametrize("name", ["mixed", "wrong", "nested"])
def test_a_set_or_a_gradient_is_not_half_given(name, limit):
    function, make = PROGRAMS[name]
    inputs = make()
    for call in (clarke.subdifferential, clarke.grad):
        limit(float("inf"))
        call(function, inputs)
        clocks = limit(10**12)
        call(function, inputs)
        most = max(c.now for c in clocks)
        limit(most + 1)
        call(function, inputs)
        late = 0
        for ticks in plan(most):
            limit(ticks)
            said = words(lambda: call(function, inputs))  # noqa: B023 - called at once
            late += bool(said)
            assert not said or said.startswith("Time ran out (1 s) while ")
        assert late >= 3


def test_the_methods_of_a_set_end_in_time(limit):
    def function(x):
        return x.abs().sum() + torch.maximum(x[0], x[1])

    limit(float("inf"))
    T = clarke.subdifferential(function, (zeros(2),))
    vector = torch.ones(2, dtype=D)
    for call in (
        lambda: T.contains(vector),
        T.min_norm,
        T.vertices,
        lambda: T.directional(vector),
        T.is_stationary,
    ):
        limit(1)
        with pytest.raises(OutOfTimeError, match="Time ran out"):
            call()
        limit(10**12)
        call()


def test_explain_ends_in_time(limit):
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 1))
    clocks = limit(10**12)
    clarke.explain(model, torch.randn(2, 3))
    most = max(c.now for c in clocks)
    for ticks in plan(most):
        limit(ticks)
        said = words(lambda: clarke.explain(model, torch.randn(2, 3)))
        assert not said or said.startswith("Time ran out (1 s) while ")
    limit(2)
    with pytest.raises(OutOfTimeError):
        clarke.explain(model, torch.randn(2, 3))


def test_gradcheck_fails_what_time_left_undecided(limit):
    limit(float("inf"))
    x = zeros(2)
    assert clarke.testing.gradcheck(functional.relu, (x,))
    for ticks in (1, 5, 50):
        limit(ticks)
        with pytest.raises(clarke.testing.GradcheckError, match="Time ran out"):
            clarke.testing.gradcheck(functional.relu, (x,))
