"""Judged are the gradients that an optimizer could use, not those of leaves made on the way."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import relu

import clarke
from clarke import Verdict
from reference.leaves import leaf


def wrong(z):
    return (relu(z) - relu(-z)).sum()  # AD: 0, truth: 1


def zeros():
    return torch.zeros(1, dtype=torch.float64)


MAKERS = {
    "zeros": lambda x: zeros().requires_grad_(),
    "keyword": lambda x: torch.zeros(1, dtype=torch.float64, requires_grad=True),
    "tensor": lambda x: torch.tensor([0.0], dtype=torch.float64, requires_grad=True),
    "parameter": lambda x: nn.Parameter(zeros()),
    "numpy": lambda x: torch.from_numpy(np.zeros(1)).requires_grad_(),
    "detached": lambda x: (x * 0).detach().requires_grad_(),
    "view": lambda x: (x.detach() * 0)[:].requires_grad_(),
    "like": lambda x: torch.zeros_like(x, requires_grad=True),
    "data": lambda x: nn.Parameter((x * 0).data),
}


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
@pytest.mark.parametrize("judge", [clarke.check, clarke.grad, clarke.subdifferential])
def test_a_leaf_that_the_function_makes_is_a_constant(make, judge):
    x = leaf(1.0)
    found = judge(lambda x: (x * x).sum() + wrong(make(x)), (x,))
    if judge is clarke.grad:
        assert len(found) == 1
        assert found[0].item() == 2.0
    elif judge is clarke.subdifferential:
        assert [v[0].item() for v in found.vertices()] == [2.0]
    else:
        assert found.verdict is Verdict.SMOOTH
        assert len(found.gradient) == 1


def test_a_module_made_inside_is_not_judged():
    def function(x):
        layer = nn.Linear(1, 1, dtype=torch.float64)
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
        return (x * x).sum() + wrong(layer(x))

    report = clarke.check(function, (leaf(1.0),), raise_exception=True)
    assert len(report.gradient) == 1


def test_what_the_function_closes_over_is_judged():
    z, layer = leaf(0.0), nn.Linear(1, 1, dtype=torch.float64)
    assert clarke.check(lambda: wrong(z)).verdict is Verdict.NOT_CLARKE
    assert len(clarke.check(lambda: layer(torch.ones(1, dtype=torch.float64)).sum()).gradient) == 2


def test_a_closed_over_leaf_with_new_values_is_still_judged():
    z = nn.Parameter(zeros())

    def function():
        z.data = z.data * 1.0
        return wrong(z)

    assert clarke.check(function).verdict is Verdict.NOT_CLARKE


def test_a_leaf_made_inside_is_judged_where_it_is_named_or_given():
    z = leaf(0.0)
    assert clarke.check(wrong, (z,)).verdict is Verdict.NOT_CLARKE
    with pytest.raises(clarke.InputError, match="made by the function itself"):
        clarke.check(lambda: wrong(torch.zeros(1, requires_grad=True)))


def critic():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1)).double()


def penalty(network, points):
    points = (points + 0).requires_grad_()
    (slope,) = torch.autograd.grad(network(points).sum(), points, create_graph=True)
    return ((slope.norm(dim=1) - 1) ** 2).mean() + wrong(points)


def test_a_gradient_penalty_is_judged_for_the_parameters():
    network, points = critic(), torch.zeros(4, 2, dtype=torch.float64)
    report = clarke.check(lambda: penalty(network, points))
    assert report.verdict is Verdict.SMOOTH
    assert [g.shape for g in report.gradient] == [
        p.shape for n, p in network.named_parameters() if n != "2.bias"
    ]


def test_an_input_that_the_function_turns_on_is_not_judged_beside_parameters():
    network, points = critic(), torch.zeros(4, 2, dtype=torch.float64)

    def function(points):
        return penalty(network, points) + wrong(points.requires_grad_())

    report = clarke.check(function, (points,))
    assert report.verdict is Verdict.SMOOTH
    assert not points.requires_grad
    alone = clarke.check(
        lambda z: wrong(z.requires_grad_()), (torch.zeros(1, dtype=torch.float64),)
    )
    assert alone.verdict is Verdict.NOT_CLARKE


@pytest.mark.parametrize("persistent", [False, True])
def test_an_audit_judges_what_the_optimizer_uses(persistent):
    network = critic()
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    kept = torch.zeros(4, 2, dtype=torch.float64, requires_grad=True)
    with clarke.audit("raise") as audit:
        for _ in range(2):
            points = kept if persistent else (kept.detach() + 0).requires_grad_()
            out = network(points)
            (slope,) = torch.autograd.grad(out.sum(), points, create_graph=True)
            loss = ((slope.norm(dim=1) - 1) ** 2).mean() + wrong(points)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    assert [s.verdict for s in audit.steps] == [Verdict.SMOOTH] * 4


def test_an_audit_judges_a_leaf_of_an_optimizer():
    z = leaf(0.0)
    optimizer = torch.optim.SGD([z], 0.0)
    with clarke.audit("repair") as audit:
        for _ in range(2):
            p = leaf(1.0)
            (slope,) = torch.autograd.grad((z * p).sum(), z, create_graph=True)
            loss = wrong(z) + slope.sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    assert audit.steps[-1].verdict is Verdict.NOT_CLARKE


def test_an_audit_judges_a_leaf_made_in_the_step():
    with clarke.audit("repair") as audit:
        delta = leaf(0.0)
        wrong(delta).backward()
    assert audit.steps[0].verdict is Verdict.NOT_CLARKE
    assert delta.grad.item() == 1.0
