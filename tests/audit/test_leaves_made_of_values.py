"""Leaves that hold what was computed from differentiated values, as in adversarial training."""

from __future__ import annotations

import pytest
import torch

import clarke
from clarke import Verdict

pytestmark = pytest.mark.filterwarnings("ignore")


def without_gradients(compute):
    with torch.no_grad():
        return compute()


def written(tensor, write):
    write(tensor)
    return tensor


def set_second(z, x):
    z[1] = x.detach()[1]


def add_second(z, x):
    z[1:].add_(x.detach()[1:])


# All of them make a leaf with the values of x, which are 0 and 1.
WAYS = {
    "detach": lambda x: x.detach().requires_grad_(),
    "detach and clone": lambda x: x.detach().clone().requires_grad_(),
    "clone and detach": lambda x: x.clone().detach().requires_grad_(),
    "data": lambda x: x.data.clone().requires_grad_(),
    "arithmetic on detached values": lambda x: (x.detach() * 2 - x.detach()).requires_grad_(),
    "detached result": lambda x: (x * 2 - x).detach().requires_grad_(),
    "without gradients": lambda x: without_gradients(lambda: x * 2.0 - x).requires_grad_(),
    "clamped without gradients": lambda x: without_gradients(
        lambda: torch.clamp(x + 0.0, 0, 1)
    ).requires_grad_(),
    "added in place": lambda x: written(
        x.detach().clone(), lambda z: z.add_(1).sub_(1)
    ).requires_grad_(),
    "clamped in place": lambda x: written(
        x.detach().clone(), lambda z: z.clamp_(0, 1)
    ).requires_grad_(),
    "copied": lambda x: written(torch.empty(2), lambda z: z.copy_(x.detach())).requires_grad_(),
    "a slice added": lambda x: written(torch.zeros(2), lambda z: add_second(z, x)).requires_grad_(),
    "an entry set": lambda x: written(torch.zeros(2), lambda z: set_second(z, x)).requires_grad_(),
    "noise and values": lambda x: written(
        torch.empty_like(x).uniform_(0, 0), lambda z: z.add_(x.detach())
    ).requires_grad_(),
    "a parameter": lambda x: torch.nn.Parameter(x.detach().clone()),
    "a parameter of what was written": lambda x: torch.nn.Parameter(
        written(torch.zeros(2), lambda z: add_second(z, x))
    ),
    "read before": lambda x: written(x.detach().clone(), lambda z: (z.sum(), z.requires_grad_())),
    "concatenated": lambda x: torch.cat([x.detach()[:1], x.detach()[1:]]).requires_grad_(),
    "of a kink": lambda x: torch.relu(x).detach().requires_grad_(),
    "rounded": lambda x: x.detach().round().requires_grad_(),
    "itself, written through data": lambda x: written(x, lambda z: z.data.mul_(1.0)),
    "itself, a slice written": lambda x: written(x, lambda z: z.detach()[:1].mul_(1.0)),
}


def identity(x):
    """Of which autograd says 0 at 0."""
    return (torch.relu(x) - torch.relu(-x)).sum()


FEW = ("detach", "without gradients", "added in place", "a slice added", "rounded")


@pytest.mark.parametrize(("way", "quick"), [*((w, True) for w in WAYS), *((w, False) for w in FEW)])
def test_a_leaf_is_judged_at_its_own_value(way, quick):
    x = torch.tensor([0.0, 1.0], requires_grad=True)
    with clarke.audit(settings=clarke.Settings(quick=quick), seconds=20) as audit:
        for _ in range(2):
            leaf = WAYS[way](x)
            leaf.grad = None
            identity(leaf).backward()
            assert leaf.grad.tolist() == [0, 1]
    assert [step.verdict for step in audit.steps] == [Verdict.NOT_CLARKE] * 2


@pytest.mark.parametrize("way", FEW)
def test_such_a_leaf_and_what_it_was_made_of_are_two_variables(way):
    """ReLU of one less that of the other's negative is right at (0, 0), were they two."""
    x = torch.tensor([0.0, 1.0], requires_grad=True)
    with clarke.audit(settings=clarke.Settings(quick=False), seconds=20) as audit:
        (torch.relu(WAYS[way](x)) - torch.relu(-x)).sum().backward()
    assert audit.steps[0].verdict in (Verdict.BOULIGAND, Verdict.SURROGATE)


@pytest.mark.parametrize("way", ["detach", "detach and clone", "added in place", "a slice added"])
def test_one_that_a_checked_function_makes_is_a_constant(way):
    x = torch.tensor([0.0, 1.0], requires_grad=True)
    assert clarke.check(lambda x: (WAYS[way](x) * x).sum(), x).verdict is Verdict.SURROGATE


def test_steps_on_an_image_are_known_programs():
    """Of projected gradient ascent no step goes up the ladder once the program is known."""
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU(), torch.nn.Linear(3, 1))
    image = torch.rand(2, 4)
    with clarke.audit() as audit:
        other = image.clone()
        for _ in range(4):
            other = other.detach().requires_grad_()
            (slope,) = torch.autograd.grad(net(other).sum(), other)
            with torch.no_grad():
                other = torch.clamp(other + 0.1 * slope.sign(), 0, 1)
    assert {step.verdict for step in audit.steps} == {Verdict.SMOOTH}
