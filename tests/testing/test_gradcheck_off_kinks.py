"""Where no kink is touched torch's own test has the word, and nothing else is run."""

import pytest
import torch

from clarke.testing import GradcheckError, gradcheck
from clarke.testing import rows as module


def leaf(*values):
    return torch.tensor(values, dtype=torch.float64, requires_grad=True)


class Wrong(torch.autograd.Function):
    """A sine with twice its slope."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return torch.sin(x)

    @staticmethod
    def backward(ctx, grad):
        return 2 * ctx.saved_tensors[0].cos() * grad


def shifted(x):
    """As softmaxes are written: what is subtracted does not change the result."""
    return torch.softmax(x - x.amax().detach(), 0) * torch.relu(x)


@pytest.fixture
def judged(monkeypatch):
    """The calls of `check`."""
    calls = []
    check = module.check
    monkeypatch.setattr(module, "check", lambda *a, **k: calls.append(a) or check(*a, **k))
    return calls


@pytest.mark.parametrize("function", [torch.relu, torch.tanh, shifted, lambda x: x.sort().values])
def test_smooth_points_cost_one_record(judged, function):
    assert gradcheck(function, (leaf(0.3, -1.0, 2.0),))
    assert not judged


@pytest.mark.parametrize("function", [torch.relu, lambda x: x if x[0].item() == 0 else 2 * x])
def test_kinks_and_numbers_that_python_reads_are_judged(judged, function):
    gradcheck(function, (leaf(0.0, -1.0, 2.0),), raise_exception=False)
    assert judged


def test_what_torch_refuses_is_told_by_the_judge(judged):
    with pytest.raises(GradcheckError, match="Wrong at test_gradcheck_off_kinks"):
        gradcheck(Wrong.apply, (leaf(0.3, -1.0, 2.0),))
    assert judged
