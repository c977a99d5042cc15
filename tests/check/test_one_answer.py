"""A derivative declared by detaching gets the same answer from every part of clarke."""

import pytest
import torch
from torch import nn
from torch.autograd.gradcheck import GradcheckError
from torch.nn.functional import gumbel_softmax

import clarke
from clarke import Settings, Verdict
from clarke.testing import gradcheck


def no_gradient(x):
    with torch.no_grad():
        rounded = x.round()
    return (x + (rounded - x).detach()).sum()


def all_without_gradient(x):
    with torch.no_grad():
        gap = x.round() - x
    return (x + gap).sum()


DECLARED = {
    "straight through": lambda x: (x + (x.round() - x).detach()).sum(),
    "data": lambda x: (x + (x.round() - x).data).sum(),
    "the other way": lambda x: (x.round().detach() + x - x.detach()).sum(),
    "after the detach": lambda x: (x + 1.0 * (x.round() - x).detach()).sum(),
    "sign": lambda x: (x.tanh() + (x.sign() - x.tanh()).detach()).sum(),
    "held factor": lambda x: (x * x.detach()).sum(),
    "gumbel": lambda x: (gumbel_softmax(x, hard=True) * torch.tensor([1.0, 3.0])).sum(),
    "no_grad": no_gradient,
    "all in no_grad": all_without_gradient,
}
PLAIN = {
    "nothing left": lambda x: (x + (x - x).detach()).sum(),
    "shifted logsumexp": lambda x: x.max().detach() + (x - x.max().detach()).exp().sum().log(),
    "a constant step": lambda x: (x * (x.detach() > 0)).sum(),
}


def answers(function, dtype):
    x = torch.tensor([0.3, 1.7], dtype=dtype, requires_grad=True)
    yield "check", clarke.check(function, (x,)).verdict
    for name, settings in (("quick", None), ("full", Settings(quick=False))):
        with clarke.audit(settings=settings) as audit:
            function(x).backward()
        yield name, audit.steps[0].verdict
    for judge in (clarke.grad, clarke.subdifferential):
        try:
            judge(function, (x,))
        except clarke.UnsupportedError as error:
            assert "declares a derivative of its own" in str(error)  # noqa: PT017 - else: no error
            yield judge.__name__, Verdict.SURROGATE
        else:
            yield judge.__name__, Verdict.SMOOTH


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", DECLARED)
def test_a_declared_derivative(name, dtype):
    found = dict(answers(DECLARED[name], dtype))
    assert found == dict.fromkeys(found, Verdict.SURROGATE)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", PLAIN)
def test_detached_values_that_change_nothing(name, dtype):
    found = dict(answers(PLAIN[name], dtype))
    assert found == dict.fromkeys(found, Verdict.SMOOTH)


def test_gradcheck_refuses_it_as_torch_does():
    x = torch.tensor([0.3], dtype=torch.float64, requires_grad=True)
    for judge in (gradcheck, torch.autograd.gradcheck):
        with pytest.raises(GradcheckError):
            judge(DECLARED["straight through"], (x,))


def test_explain_claims_nothing():
    class Rounded(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(2, 3)

        def forward(self, x):
            h = self.linear(x)
            return h + (h.round() - h).detach()

    found = clarke.explain(Rounded(), torch.zeros(4, 2))
    assert not found.always_correct
    assert "a detached value is used" in str(found)


def test_a_running_mean_of_detached_losses_keeps_no_history():
    w = torch.ones(2, dtype=torch.float64, requires_grad=True)
    mean = torch.zeros((), dtype=torch.float64)
    with clarke.audit() as audit:
        for _ in range(5):
            loss = (w * w).sum()
            mean = 0.9 * mean + 0.1 * loss.detach()
            loss.backward()
        assert len(audit._recorder._histories) == 0
    assert all(s.verdict is Verdict.SMOOTH for s in audit.steps)


def test_an_evaluation_without_gradients_holds_no_batch():
    network = nn.Linear(2, 1)
    with clarke.audit() as audit, torch.no_grad():
        outputs = [network(torch.ones(3, 2)).relu() for _ in range(4)]
        assert len(audit._recorder._histories) == 0
    assert len(outputs) == 4
