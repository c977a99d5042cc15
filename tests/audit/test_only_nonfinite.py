"""Audits that look for NaN and infinity alone: nothing is recorded before there is one."""

import warnings

import pytest
import torch

import clarke
from clarke import Verdict


def train(steps, bad, **options):
    """A few steps of a layer, the gradient of some of which is NaN; those change nothing."""
    torch.manual_seed(0)
    layer = torch.nn.Linear(2, 2)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    with warnings.catch_warnings(record=True) as told, clarke.audit(**options) as audit:
        warnings.simplefilter("always")
        for step in range(1, steps + 1):
            x = torch.randn(4, 2) * (step not in bad)
            optimizer.zero_grad()
            (layer(x) - layer.bias).square().sum().sqrt().backward()
            if all(bool(p.grad.isfinite().all()) for p in layer.parameters()):
                optimizer.step()
    told = [str(w.message) for w in told if issubclass(w.category, clarke.WrongGradientWarning)]
    return audit, told, [p.detach().clone() for p in layer.parameters()]


def test_the_first_is_told_and_the_next_is_judged():
    audit, told, after = train(6, (3, 4), only_nonfinite=True, seconds=None)
    verdicts = [s.verdict for s in audit.steps]
    assert verdicts == [None, None, Verdict.NONFINITE, Verdict.NONFINITE, None, None]
    third, fourth = audit.steps[2:4]
    assert third.reason.startswith("2 of 2 tensors have a gradient with NaN or infinity.")
    assert "every=2" in third.reason
    assert not third.kinks
    assert fourth.culprits[0].operation == "sqrt"
    assert "vector_norm" in fourth.cures[0]
    assert third.location == fourth.location
    assert "is not finite: 2 of 2 tensors" in told[0]
    _, _, plain = train(6, (3, 4), every=100)
    assert all(torch.equal(a, b) for a, b in zip(after, plain, strict=True))


def test_a_variable_that_joins_is_looked_at():
    x, y = (torch.ones((), requires_grad=True) for _ in range(2))

    def program():
        with clarke.audit(only_nonfinite=True):
            for step in range(3):
                (x * 2 if step < 2 else x * 2 + (y * 0).sqrt()).backward()

    with pytest.warns(clarke.WrongGradientWarning, match="1 of 2 tensors"):
        program()


def test_nothing_but_the_call_is_watched_meanwhile():
    with clarke.audit(only_nonfinite=True) as audit:
        assert not torch.utils._python_dispatch._get_current_dispatch_mode_stack()
        x = torch.zeros(1, requires_grad=True)
        (torch.relu(x) - torch.relu(-x)).sum().backward()  # wrong, which is not asked
        (grad,) = torch.autograd.grad(x.abs().sum(), x)
    assert [s.verdict for s in audit.steps] == [None, None]
    assert audit.steps[0].reason == "Its gradient is finite; nothing else was looked at."
    assert grad.item() == 0


def test_raising():
    def program():
        with clarke.audit(only_nonfinite=True, on_nonfinite="raise"):
            for value in (1.0, 0.0):
                torch.tensor(value, requires_grad=True).sqrt().backward()

    with pytest.raises(clarke.WrongGradientError, match="every=1 "):
        program()


@pytest.mark.parametrize("answer", ["repair", clarke.OnWrong.REPAIR, None])
def test_what_cannot_be_done_without_a_record_is_refused(answer):
    with pytest.raises(clarke.InputError, match="records nothing"):
        clarke.audit(only_nonfinite=True, on_nonfinite=answer)
