"""In float32 finite differences fail for right gradients: the type is blamed, not the gradient."""

import pytest
import torch

from clarke.testing import GradcheckError, gradcheck

pytestmark = pytest.mark.filterwarnings("ignore:Input #0 requires gradient")


@pytest.mark.parametrize(
    "function",
    [lambda x: x.sin().exp().sum(), lambda x: (torch.relu(x) * x.exp()).sum()],
    ids=["smooth", "at a kink"],
)
def test_the_type_is_blamed(function):
    narrow = torch.tensor([0.0, 0.3, 1.0], requires_grad=True)
    with pytest.raises(GradcheckError, match=r"in float32 have too few digits.*float64"):
        gradcheck(function, (narrow,))
    assert gradcheck(function, (narrow.detach().double().requires_grad_(),))


def test_a_proof_is_none_of_the_types_fault():
    zero = torch.zeros(2, requires_grad=True)
    with pytest.raises(GradcheckError, match="has a wrong gradient, at a kink: both relus"):
        gradcheck(lambda x: (torch.relu(x) - torch.relu(-x)).sum(), (zero,))


def test_in_float64_the_gradient_is_blamed():
    class Twice(torch.autograd.Function):
        @staticmethod
        def forward(_ctx, x):
            return x.sin()

        @staticmethod
        def backward(_ctx, grad):
            return 2 * grad

    x = torch.tensor([0.3], dtype=torch.float64, requires_grad=True)
    with pytest.raises(GradcheckError) as failed:
        gradcheck(Twice.apply, (x,))
    assert "too few digits" not in str(failed.value)
