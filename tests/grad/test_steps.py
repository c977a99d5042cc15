"""`clarke.grad` at comparisons: refused where what they choose between parts beside the point."""

import pytest
import torch

import clarke
from reference.leaves import leaf


def safe_norm(v):
    """The usual guard of a norm; at zero, its limits are unit vectors."""
    square = (v * v).sum()
    above = square > 0
    root = torch.sqrt(torch.where(above, square, torch.ones_like(square)))
    return torch.where(above, root, torch.zeros_like(square))


def divided(v):
    zero = v**2 == 0
    return torch.where(zero, 1 + 0 * v, (torch.exp(v) - 1) / torch.where(zero, 1.0, v)).sum()


FLAT = [
    (safe_norm, (0.0, 0.0)),
    (lambda v: torch.where(v**2 > 0, 2 * v, v).sum(), (0.0,)),
    (lambda v: torch.where(v**2 == 0, v, 2 * v).sum(), (0.0,)),
    (lambda v: ((v * v > 0) * v).sum(), (0.0,)),
    (divided, (0.0,)),
]
STEPS = [
    (lambda v: ((v > 0).double() + v).sum(), (0.0,)),
    (lambda v: torch.where(v > 0, v + 1, v).sum(), (0.0,)),
    (lambda v: (v.sign() + v).sum(), (0.0,)),
    (lambda v: torch.where(v[1] > 0, v[0], 2 * v[0]), (0.0, 0.0)),
    (lambda v: torch.zeros(2, dtype=v.dtype).masked_scatter(v > 0, v).sum(), (0.0, 1.0)),
]


@pytest.mark.parametrize(("f", "at"), [*FLAT, *STEPS])
def test_what_parts_beside_the_point_is_refused_by_name(f, at):
    with pytest.raises(clarke.UnsupportedError, match=r"No gradient can be vouched for: \w+ at "):
        clarke.grad(f, (leaf(*at),))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_meets_at_the_tie_is_not(dtype):
    x = torch.tensor([0.0, 1.0], dtype=dtype, requires_grad=True)
    for f, kinked in (
        (lambda v: torch.where(v > 0, 2 * v, v).sum(), {1.0, 2.0}),
        (lambda v: ((v > 0) * v).sum(), {0.0, 1.0}),
        (lambda v: (v.sign() * v).sum(), {-1.0, 1.0}),
    ):
        found = clarke.grad(f, (x,))[0]
        assert found.dtype == dtype
        assert found[0].item() in kinked


NO_SECOND_DERIVATIVE_FORWARD = [
    torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.ReLU(), torch.nn.GroupNorm(2, 4)),
    torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.ReLU(), torch.nn.Mish()),
]


@pytest.mark.parametrize("net", NO_SECOND_DERIVATIVE_FORWARD, ids=["group norm", "mish"])
def test_operations_whose_backward_has_no_forward_derivative(net):
    net = net.double()
    torch.nn.init.zeros_(net[0].bias)
    x, weights = torch.zeros(1, 4, dtype=torch.float64), torch.arange(4.0)

    def loss():
        return (net(x) * weights).sum()

    assert clarke.check(loss).verdict.correct
    found = clarke.grad(loss)
    assert all(bool(torch.isfinite(g).all()) for g in found)


STORED = {
    "copied": lambda b, x: b.copy_(x.detach()),
    "computed": lambda b, x: b.copy_(x.detach() * 1),
    "a slice": lambda b, x: b[:3].copy_(x.detach()),
    "data": lambda b, x: b.data.copy_(x.data),
    "out": lambda b, x: torch.mul(x.detach(), 1, out=b),
}


@pytest.mark.parametrize("store", STORED.values(), ids=STORED)
def test_detached_values_in_a_buffer_decide_no_less(store):
    """Equal to x.sum() everywhere, with a comparison of detached values at a tie.

    Where the operations that wrote the buffer are known, its values tell that the rate is another.
    """

    def f(x):
        stored = torch.empty(3, dtype=x.dtype)
        store(stored, x)
        return torch.where(stored == 0, 0 * x, x).sum()

    x = leaf(0.0, 1.0, 2.0)
    declared = (clarke.Verdict.UNDECIDED, clarke.Verdict.SURROGATE)
    assert clarke.check(f, (x,)).verdict in declared
    for answer in (clarke.grad, clarke.subdifferential):
        with pytest.raises(clarke.ClarkeError):
            answer(f, (x,))
