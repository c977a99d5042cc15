"""Leaves that change between forward and backward: what counts is whether autograd saved them."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - as everybody names it

import clarke
from clarke import Verdict


def judged(step, leaf, steps=2):
    with clarke.audit(lambda _: None, seconds=20) as audit:
        for _ in range(steps):
            step()
            leaf.grad = None
    return {s.verdict for s in audit.steps}


@pytest.mark.parametrize("hidden", [True, False])
def test_a_bias_that_is_set_before_backward_is_judged_as_it_was_read(hidden):
    net, x = nn.Linear(3, 2), torch.randn(4, 3)

    def step():
        loss = net(x).square().sum()
        with torch.no_grad():
            (net.bias.data if hidden else net.bias).zero_()
        loss.backward()

    assert judged(step, net.bias) == {Verdict.SMOOTH}


def test_the_gradient_is_held_against_the_kinks_of_the_values_that_were_read():
    """At 0, where it was read, the gradient of x as relu(x) - relu(-x) is wrong; at 1 it is not."""
    w, u = torch.zeros(1, requires_grad=True), torch.ones(1, requires_grad=True)
    found = []

    def step(start, then):
        w.data.fill_(start)
        shifted = w + 0 * u  # a sum saves nothing of what it adds
        loss = (torch.relu(shifted) - torch.relu(-shifted)).sum()
        w.data.fill_(then)
        loss.backward()
        found.append(w.grad.item())
        w.grad = None

    with clarke.audit(lambda _: None, seconds=20) as audit:
        step(0.0, 1.0)
        step(1.0, 0.0)
    assert found == [0.0, 1.0]
    assert [s.verdict for s in audit.steps] == [Verdict.NOT_CLARKE, Verdict.SMOOTH]


def test_a_codebook_that_chose_and_then_moved():
    book, encode, x = nn.Parameter(torch.randn(5, 3)), nn.Linear(4, 3), torch.randn(8, 4)

    def step():
        z = encode(x)
        nearest = torch.cdist(z, book).argmin(1)
        loss = F.mse_loss(book[nearest], torch.ones(8, 3))
        book.data.mul_(0.99).add_(0.01)
        loss.backward()

    assert judged(step, book) == {Verdict.SMOOTH}


class Squared(torch.autograd.Function):
    @staticmethod
    def forward(ctx, w):
        ctx.kept = w
        return w * w

    @staticmethod
    def backward(ctx, gradient):
        return 2 * ctx.kept * gradient


@pytest.mark.parametrize("function", [lambda w: w * w, Squared.apply], ids=["product", "own"])
def test_what_autograd_saved_may_be_other_values(function):
    w = torch.ones(2, requires_grad=True)

    def step():
        loss = function(w).sum()
        w.data.add_(1)
        loss.backward()

    assert judged(step, w) == {Verdict.UNDECIDED}
