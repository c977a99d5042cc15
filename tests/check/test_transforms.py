"""Functions that use torch.func inside: judged like any other."""

import pytest
import torch
from torch import autograd
from torch.func import functionalize, grad, hessian, jacfwd, jacrev, jvp, linearize, vjp, vmap

import clarke
from clarke import Verdict


def ones():
    return torch.ones(3, dtype=torch.float64)


def squared(x):
    return torch.relu(x) ** 2


def both(x):
    return torch.relu(x) - torch.relu(-x)


class Rounded(autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x):
        return x.round()

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass

    @staticmethod
    def backward(ctx, gradient):
        return gradient


class Squared(autograd.Function):
    generate_vmap_rule = True
    factor = 2

    @staticmethod
    def forward(x):
        return x * x

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(inputs[0])

    @staticmethod
    def backward(ctx, gradient):
        return 2 * gradient * ctx.saved_tensors[0]


class Wrong(Squared):
    @staticmethod
    def backward(ctx, gradient):
        return 3 * gradient * ctx.saved_tensors[0]


ROWS = {
    "grad": (grad(lambda x: (x**3).sum()), 1, Verdict.SMOOTH),
    "grad at a kink": (grad(lambda x: squared(x).sum()), 0, Verdict.BOULIGAND),
    "grad of a sum of both sides": (
        grad(lambda x: (squared(x) - squared(-x)).sum()),  # 2 |w|
        0,
        Verdict.CLARKE,
    ),
    "grad that jumps": (grad(lambda x: both(x).sum()), 0, Verdict.NOT_LIPSCHITZ),
    "grad of grad": (
        grad(lambda x: grad(lambda y: (y**3).sum())(x).sum()),
        1,
        Verdict.SMOOTH,
    ),
    "vmap": (
        lambda w: vmap(lambda x: both(x * w))(torch.stack([ones()] * 2)),
        0,
        Verdict.NOT_CLARKE,
    ),
    "vmap, over the variable": (vmap(torch.relu), 0, Verdict.BOULIGAND),
    "vmap of grad": (
        lambda w: vmap(grad(lambda x: (squared(x * w)).sum()))(torch.stack([ones()] * 2)),
        0,
        Verdict.SMOOTH,
    ),
    "vjp": (lambda w: vjp(squared, w)[1](ones())[0], 0, Verdict.BOULIGAND),
    "jacrev": (jacrev(squared), 0, Verdict.BOULIGAND),
    "jvp": (lambda w: jvp(lambda x: x**3, (w,), (ones(),))[1], 1, Verdict.SMOOTH),
    "jvp, whose tangent varies": (lambda w: jvp(squared, (ones(),), (w,))[1], 0, Verdict.SMOOTH),
    "jvp at a step times what vanishes": (
        lambda w: jvp(squared, (w,), (ones(),))[1],  # 2 relu(w): right, and not proved
        0,
        Verdict.UNDECIDED,
    ),
    "jacfwd": (jacfwd(lambda x: x**3), 1, Verdict.SMOOTH),
    "linearize": (lambda w: linearize(torch.sin, ones())[1](1 * w), 0, Verdict.SMOOTH),
    "hessian": (hessian(lambda x: (x**3).sum()), 1, Verdict.UNDECIDED),
    "functionalize": (functionalize(lambda x: x.clone().relu_()), 0, Verdict.BOULIGAND),
    "is_grads_batched": (
        lambda w: autograd.grad(
            squared(w), w, torch.eye(3, dtype=w.dtype), is_grads_batched=True, create_graph=True
        )[0],
        0,
        Verdict.BOULIGAND,
    ),
    "functional.jacobian": (
        lambda w: autograd.functional.jacobian(squared, w, create_graph=True),
        0,
        Verdict.BOULIGAND,
    ),
    "functional.jvp": (
        lambda v: autograd.functional.jvp(both, ones() * 0, v, create_graph=True)[1],
        0,
        Verdict.SMOOTH,
    ),
    "functional.hvp": (
        lambda v: autograd.functional.hvp(lambda x: squared(x).sum(), ones(), v, create_graph=True)[
            1
        ],
        0,
        Verdict.SMOOTH,
    ),
    "to a GradientEdge": (
        lambda w: autograd.grad(
            squared(w).sum(), [autograd.graph.get_gradient_edge(w)], create_graph=True
        )[0],
        0,
        Verdict.BOULIGAND,
    ),
    "vmap of a Function": (vmap(Squared.apply), 1, Verdict.SMOOTH),
    "vmap of a wrong Function": (vmap(Wrong.apply), 1, Verdict.NOT_CLARKE),
    "vmap of grad of a wrong Function": (
        vmap(grad(lambda x: Wrong.apply(x) * x)),
        1,
        Verdict.NOT_CLARKE,
    ),
    "vmap of a straight-through Function": (vmap(Rounded.apply), 1, Verdict.SURROGATE),
}


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
@pytest.mark.parametrize("name", ROWS)
def test_row(name):
    function, at, verdict = ROWS[name]
    x = (at * ones()).requires_grad_()
    report = clarke.check(lambda w: function(w).sum(), (x,), seconds=30)
    assert report.verdict is verdict, report.reason
    assert x.grad is None


def test_what_transforms_ask_of_shapes_is_no_branch():
    report = clarke.check(
        lambda w: jvp(torch.sin, (w,), (ones(),))[1].sum(), ones().requires_grad_()
    )
    assert "read into Python" not in report.reason
