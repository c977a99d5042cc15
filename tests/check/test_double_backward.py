"""Gradients of gradients: the results that autograd keeps for its backward pass are followed."""

import pytest
import torch
from torch.nn import functional as F  # noqa: N812 - the usual name

import clarke
from clarke.verdict import Verdict

ACTIVATIONS = {
    "exp": torch.exp,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "softmax": lambda z: torch.stack([z, 2 * z]).softmax(0)[0],
    "sqrt": torch.sqrt,
    "rsqrt": torch.rsqrt,
    "reciprocal": torch.reciprocal,
    "norm": lambda z: torch.cat([z, z * z]).norm(),
    "logsumexp": lambda z: torch.cat([z, 2 * z]).logsumexp(0),
    "softplus": F.softplus,
    "square": lambda z: z**2,
}


def slope(act, w, x):
    (found,) = torch.autograd.grad(act(w * x).sum(), x, create_graph=True)
    return found


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_a_kink_in_a_slope(name):
    act = ACTIVATIONS[name]
    w = torch.tensor([1.5], dtype=torch.float64, requires_grad=True)
    x = torch.tensor([1.0], dtype=torch.float64, requires_grad=True)
    at_kink = slope(act, w, x).item()

    def penalty(w, x):
        return F.leaky_relu(slope(act, w, x) - at_kink, 0.1).sum()

    report = clarke.check(penalty, (w, x))
    assert report.verdict is Verdict.BOULIGAND
    assert report.certificate.verify()

    def wrong(w, x):
        gap = slope(act, w, x) - at_kink
        return (torch.relu(gap) - torch.relu(-gap)).sum()  # gap itself, but AD says 0

    report = clarke.check(wrong, (w, x))
    assert report.verdict is Verdict.NOT_CLARKE
    expected = torch.autograd.grad(slope(act, w, x).sum(), (w, x))
    for found, right in zip(report.element, expected, strict=True):
        torch.testing.assert_close(found, right)


def norm_penalty(power):
    def penalty(w):
        x = torch.tensor([1.0, 2.0], dtype=torch.float64, requires_grad=True)
        (slopes,) = torch.autograd.grad((torch.relu(w @ x) ** power).sum(), x, create_graph=True)
        return (slopes**2).sum()

    return penalty


def test_gradient_penalty_at_a_tie():
    w = torch.tensor([[2.0, -1.0]], dtype=torch.float64, requires_grad=True)
    # The slope of a ReLU is a step; the slope of its square is none.
    assert clarke.check(norm_penalty(1), (w,)).verdict is Verdict.NOT_LIPSCHITZ
    assert clarke.check(norm_penalty(2), (w,)).verdict is Verdict.SMOOTH


def test_gradient_penalty_of_a_leaky_relu_at_a_tie():
    w = torch.tensor([[2.0, -1.0]], dtype=torch.float64, requires_grad=True)

    def penalty(w):
        x = torch.tensor([1.0, 2.0], dtype=torch.float64, requires_grad=True)
        value = F.leaky_relu(w @ x, 0.1).sum()
        (slopes,) = torch.autograd.grad(value, x, create_graph=True)
        return (slopes**2).sum()

    assert clarke.check(penalty, (w,)).verdict is Verdict.NOT_LIPSCHITZ


def test_gradient_penalty_away_from_ties():
    w = torch.tensor([[1.0, -1.0], [0.5, 2.0]], dtype=torch.float64, requires_grad=True)
    x = torch.tensor([1.0, 2.0], dtype=torch.float64, requires_grad=True)

    def penalty(w, x):
        (slopes,) = torch.autograd.grad(torch.relu(w @ x).sum(), x, create_graph=True)
        return (slopes.norm() - 1) ** 2

    assert clarke.check(penalty, (w, x)).verdict is Verdict.SMOOTH
    with clarke.audit() as audit:
        penalty(w, x).backward()
    assert audit.reports[-1].verdict is Verdict.SMOOTH


def test_what_autograd_hides_is_not_guessed():
    w = torch.tensor([1.0], dtype=torch.float64, requires_grad=True)
    x = torch.tensor([2.0], dtype=torch.float64, requires_grad=True)

    def packed(w, x):
        with torch.autograd.graph.saved_tensors_hooks(torch.clone, torch.clone):
            value = torch.exp(w * x).sum()
        (found,) = torch.autograd.grad(value, x, create_graph=True)
        return torch.relu(found - 1).sum()

    assert clarke.check(packed, (w, x)).verdict in (Verdict.UNDECIDED, Verdict.SMOOTH)
