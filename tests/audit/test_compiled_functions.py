"""Custom Functions under torch.compile, which tells no name: declared ones are known by place."""

import pytest
import torch
from torch._dynamo.utils import counters

import clarke
from clarke import Verdict
from clarke.kinks import default_registry
from reference.functions import square

from .test_compiled_audits import hidden, judged


@pytest.fixture(autouse=True)
def _apart(monkeypatch):
    torch._dynamo.reset()
    counters.clear()
    registry = default_registry()
    # What other tests of this process have declared is no matter here.
    monkeypatch.setattr(registry, "_functions", {})
    monkeypatch.setattr(registry, "_surrogates", set())
    monkeypatch.setattr(registry, "_rules", type(registry._rules)(registry._rules))
    yield
    torch._dynamo.reset()


def helped(x):
    return torch.relu(x)


class Helped(torch.autograd.Function):
    """relu, of which another function is asked."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return helped(x)

    @staticmethod
    def backward(ctx, g):
        return g * (ctx.saved_tensors[0] > 0)


class Rounded(torch.autograd.Function):
    """Straight through."""

    @staticmethod
    def forward(_ctx, x):
        return x.relu()

    @staticmethod
    def backward(_ctx, g):
        return g


class Same(torch.autograd.Function):
    """Computes nothing, and gives gradients another sign."""

    @staticmethod
    def forward(_ctx, x):
        return x

    @staticmethod
    def backward(_ctx, g):
        return -g


class Unseen(torch.autograd.Function):
    """No operation of its own in either direction."""

    @staticmethod
    def forward(_ctx, x):
        return x

    @staticmethod
    def backward(_ctx, g):
        return g


class Inherited(Helped):
    """The forward of another, and a backward of its own."""

    @staticmethod
    def backward(ctx, g):
        return g * (ctx.saved_tensors[0] >= 0)


def audited(function, backend=hidden, before=False):
    x = torch.tensor([1.0, 2.0], requires_grad=True)

    def program(x):
        return (function.apply(x * 3) * torch.tensor([1.0, 2.0])).sum()

    compiled = torch.compile(program, backend=backend)
    if before:
        compiled(x)
    watching = judged(lambda: compiled(x), [x], 1, on_wrong=lambda _: None)
    return watching.steps[0]


@pytest.mark.parametrize(("backend", "before"), [(hidden, False), ("aot_eager", True)])
def test_others_that_were_declared_are_told_apart(backend, before):
    clarke.register_function(Rounded, surrogate=True)
    clarke.register_function(Same, pieces=lambda x: x)
    for function in (square(), Helped, Inherited):
        assert audited(function, backend, before).verdict is Verdict.SMOOTH


@pytest.mark.parametrize("function", [Rounded, Same])
@pytest.mark.parametrize(("backend", "before"), [(hidden, False), ("aot_eager", True)])
def test_a_declared_surrogate_is_one(function, backend, before):
    clarke.register_function(function, surrogate=True)
    step = audited(function, backend, before)
    assert step.verdict is Verdict.SURROGATE
    assert "declared so by its author" in step.reason


def test_what_is_not_declared_is_judged_as_ever():
    clarke.register_function(Helped, surrogate=True)
    assert audited(Same).verdict is Verdict.NOT_CLARKE
    assert audited(Helped).verdict is Verdict.SURROGATE


@pytest.mark.parametrize(("declared", "used"), [(Helped, Inherited), (Inherited, Helped)])
def test_one_that_shares_a_part_with_a_declared_one_is_refused(declared, used):
    clarke.register_function(declared, surrogate=True)
    step = audited(used)
    assert step.verdict is Verdict.UNDECIDED
    assert f"may use {declared.__name__}, a custom autograd.Function that was" in step.reason


def test_one_that_computes_nothing_is_refused_where_any_was_declared():
    assert audited(Unseen).verdict is Verdict.SMOOTH
    clarke.register_function(Rounded, surrogate=True)
    assert audited(Unseen).verdict is Verdict.UNDECIDED


def test_declared_pieces_are_refused_by_name():
    clarke.register_function(Helped, pieces=lambda x: (0 * x, x), split=lambda x: x)
    step = audited(Helped)
    assert step.verdict is Verdict.UNDECIDED
    assert "may use Helped, a custom autograd.Function that was declared" in step.reason
