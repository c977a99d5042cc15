"""Custom backwards that differentiate: `torch.autograd.grad` on the leaves of the call itself."""

from __future__ import annotations

import functools

import pytest
import torch
from torch import nn

import clarke
from clarke import Verdict

pytestmark = pytest.mark.filterwarnings("ignore")


class Through(torch.autograd.Function):
    """A network whose backward runs it again, as an adjoint does, and may scale what it finds."""

    @staticmethod
    def forward(ctx, net, scale, x, *parameters):
        ctx.net, ctx.scale, ctx.parameters = net, scale, parameters
        ctx.save_for_backward(x)
        with torch.no_grad():
            return net(x)

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        with torch.enable_grad():
            at = x.detach().requires_grad_()
            found = torch.autograd.grad(ctx.net(at), (at, *ctx.parameters), grad)
        return None, None, found[0], *(ctx.scale * g for g in found[1:])


def network(dtype):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).to(dtype)


def audited(net, scale=1.0, given=None):
    dtype = next(net.parameters()).dtype
    x = torch.linspace(-1.0, 1.0, 15, dtype=dtype).reshape(5, 3).requires_grad_()
    with clarke.audit() as audit:
        out = Through.apply(given or net, scale, x, *net.parameters())
        (out**2).sum().backward()
    return audit.steps[0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("given", ["module", "method", "partial"])
def test_a_backward_that_differentiates_its_own_parameters_is_right(dtype, given):
    net = network(dtype)
    ways = {"module": net, "method": net.forward, "partial": functools.partial(net)}
    assert audited(net, given=ways[given]).verdict is Verdict.SMOOTH


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("given", ["module", "method", "partial"])
@pytest.mark.parametrize("scale", [0.5, 2.0])
def test_one_that_scales_them_is_wrong(dtype, scale, given):
    net = network(dtype)
    ways = {"module": net, "method": net.forward, "partial": functools.partial(net)}
    step = audited(net, scale, given=ways[given])
    assert step.verdict is Verdict.NOT_CLARKE
    assert "Through" in step.reason


@pytest.mark.parametrize("calls", [1, 2, 3])
def test_hooks_that_differentiate_the_leaf_do_not_count(calls):
    w = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64, requires_grad=True)
    with clarke.audit() as audit:
        y = w**3

        def look(_):
            with torch.enable_grad():
                for _ in range(calls):
                    torch.autograd.grad((w**2).sum(), w)

        y.register_hook(look)
        y.sum().backward()
    assert audit.steps[0].verdict is Verdict.SMOOTH
    assert torch.equal(w.grad, 3 * w.detach() ** 2)


def test_a_reentrant_checkpoint_still_counts():
    net = network(torch.float64)
    x = torch.ones(2, 3, dtype=torch.float64, requires_grad=True)
    with clarke.audit() as audit:
        torch.utils.checkpoint.checkpoint(net, x, use_reentrant=True).sum().backward()
    assert audit.steps[0].verdict is Verdict.SMOOTH
