"""Products by index: torch's forward mode drops their tangents, so that kinks behind them did not
count.
"""

import pytest
import torch

import clarke
from clarke import Verdict

INDEX = torch.tensor([0, 0, 1, 1])
PRODUCTS = {
    "scatter_reduce": lambda x: torch.ones_like(x).scatter_reduce(0, INDEX, x, "prod"),
    "without self": lambda x: torch.ones_like(x).scatter_reduce(
        0, INDEX, x, "prod", include_self=False
    ),
    "in place": lambda x: torch.ones_like(x).scatter_reduce_(0, INDEX, x, "prod"),
    "with itself": lambda x: (x * 1).scatter_reduce(0, INDEX, x, "prod"),
    "index_reduce": lambda x: torch.ones_like(x).index_reduce(0, INDEX, x, "prod"),
    "segment_reduce": lambda x: torch.segment_reduce(x, "prod", lengths=torch.tensor([2, 2])),
}
POINTS = ((2.0, 0.5, 1.0, 1.0), (2.0, 0.5, 0.0, 1.0))


@pytest.mark.parametrize("name", PRODUCTS)
@pytest.mark.parametrize("at", POINTS)
def test_a_kink_behind_a_product_counts(name, at):
    """Of the identity, written as two ReLUs at the product's own value, autograd says 0."""
    x = torch.tensor(at, dtype=torch.float64, requires_grad=True)
    here = PRODUCTS[name](x).detach()

    def identity(x):
        product = PRODUCTS[name](x)
        return (torch.relu(product - here) - torch.relu(here - product)).sum()

    found = clarke.check(identity, x, seconds=60)
    assert found.verdict is Verdict.NOT_CLARKE
    (right,) = torch.autograd.grad(PRODUCTS[name](x).sum(), x)
    torch.testing.assert_close(found.element[0], right, check_dtype=False)
    with clarke.audit(seconds=60) as audit, pytest.warns(clarke.WrongGradientWarning):
        identity(x).backward()
    assert audit.steps[0].verdict is Verdict.NOT_CLARKE


@pytest.mark.parametrize("name", [p for p in PRODUCTS if p != "with itself"])
def test_the_absolute_value_of_a_product_that_is_zero(name):
    x = torch.tensor(POINTS[1], dtype=torch.float64, requires_grad=True)
    found = clarke.subdifferential(lambda x: PRODUCTS[name](x).abs().sum(), x)
    assert found.complete
    assert {float(v[2]) for v in found.vertices()} == {-1.0, 1.0}
