"""Views of variables made under ``no_grad``: they seem to require a gradient, and get none."""

import pytest
import torch

import clarke
from clarke import Verdict

VIEWS = {
    "transposed": lambda w: w.t(),
    "viewed": lambda w: w.view(3, 3),
    "a row": lambda w: w[0],
    "copied": lambda w: w.clone(),
    "detached": lambda w: w.detach(),
}


def loss(w, view, through):
    h = through(w)
    with torch.no_grad():
        constant = view(h)
    return (h * constant).sum()


@pytest.mark.parametrize("through", [lambda w: w, lambda w: 2 * w], ids=["leaf", "result"])
@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
def test_what_was_viewed_without_gradients_is_held_constant(view, through):
    """The function changes at twice the rate that autograd says, in audits as in checks."""
    w = torch.randn(3, 3, dtype=torch.float64, requires_grad=True)
    with clarke.audit(seconds=10) as audit:
        for _ in range(2):
            w.grad = None
            loss(w, view, through).backward()
    assert {s.verdict for s in audit.steps} == {Verdict.SURROGATE}
    report = clarke.check(lambda w: loss(w, view, through), (w,))
    assert report.verdict is Verdict.SURROGATE


def test_a_view_of_a_constant_that_requires_a_gradient_is_a_variable():
    w = torch.zeros(3, 3, dtype=torch.float64)[0].requires_grad_()
    with clarke.audit(seconds=10) as audit:
        (w * w + w).sum().backward()
    assert audit.steps[0].verdict is Verdict.SMOOTH
    assert torch.equal(w.grad, torch.ones_like(w))
