"""Variables in units so far apart that in sums of all of them the smaller ones leave no trace."""

import pytest
import torch

import clarke
from clarke import Verdict

LARGE = (1e13, 1e17)


def zeros(size):
    return torch.zeros(size, dtype=torch.float64, requires_grad=True)


def small(x, s):
    """Values that share what a variable of large units contributes."""
    return torch.stack([s * x[0] + x[1], s * x[0] + 2 * x[1], s * x[0] + 3 * x[1]])


KINKS = {
    "where": (lambda x, s: torch.where(x[1] > 0, s * x[0] + x[1], s * x[0]), 2),
    "where of two": (lambda x, s: torch.where(x[1] > 0, *small(x, s)[:2]), 2),
    "maximum": (lambda x, s: torch.maximum(*small(x, s)[:2]), 2),
    "amax of three": (lambda x, s: small(x, s).amax(), 2),
    "two relus": (lambda x, s: torch.relu(s * x[0] + x[1]) - torch.relu(s * x[0]), 4),
    "pool": (
        lambda x, s: torch.nn.functional.max_pool1d(small(x, s)[None, None, :2], 2).sum(),
        2,
    ),
    "nested": (lambda x, s: torch.relu(torch.maximum(*small(x, s)[:2])), 3),
}


@pytest.mark.parametrize("name", KINKS)
def test_kinks_that_turn_in_a_variable_of_small_units(name):
    function, vertices = KINKS[name]
    verdicts = set()
    for scale in (1.0, 1e17):
        found = clarke.check(lambda x, s=scale: function(x, s), (zeros(2),), seconds=60)
        whole = clarke.subdifferential(lambda x, s=scale: function(x, s), (zeros(2),), seconds=60)
        assert whole.complete
        assert len(list(whole.found())) == vertices
        verdicts.add(found.verdict)
    assert len(verdicts) == 1
    assert verdicts <= {Verdict.BOULIGAND, Verdict.CLARKE}


@pytest.mark.slow
def test_many_such_kinks():
    def function(x):
        return torch.maximum(1e17 * x[0] + x[1:], 1e17 * x[0] + 3 * x[1:]).sum()

    found = clarke.check(function, (zeros(70),), seconds=None)
    assert found.verdict is Verdict.CLARKE


JUMPS = {
    "a branch": lambda x, s: torch.where(x[1] > 0, s * x[0] + 1, s * x[0]),
    "a mask": lambda x, s: s * x[0] + 1.0 * (x[1] > 0),
    "a sign": lambda x, s: s * x[0] + torch.sign(x[1]),
    "below a kink": lambda x, s: torch.relu(s * x[0] + 1.0 * (x[1] > 0)),
    "floor": lambda x, s: s * x[0] + torch.floor(x[1]),
    # Values that round to the point's own are no sign of continuity
    "round at a half": lambda x, s: s * x[0] + torch.round(x[1] + 0.5),
    "floor at one": lambda x, s: s * x[0] + torch.floor(x[1] + 1),
}


@pytest.mark.parametrize("name", JUMPS)
@pytest.mark.parametrize("scale", LARGE)
def test_jumps_beside_a_large_term(name, scale):
    found = clarke.check(lambda x: JUMPS[name](x, scale), (zeros(2),), seconds=60)
    assert found.verdict is Verdict.NOT_LIPSCHITZ


def test_a_jump_beside_a_large_element():
    """It is no rounding of another element of the same tensor."""
    x = torch.tensor([0.0, 1e13], dtype=torch.float64, requires_grad=True)
    found = clarke.check(lambda x: torch.where(x > 0, x + 1, x).sum(), (x,), seconds=60)
    assert found.correct is None
    assert found.verdict is not Verdict.SMOOTH


TORN = {
    "another slope": lambda x, s: torch.where(x[1] > 0, s * x[0] + x[1], s * x[0] + 3 * x[2]),
    "a slope or none": lambda x, s: torch.where(x[1] > 0, s * x[0], s * x[0] + 3 * x[2]),
    "a product with a mask": lambda x, s: s * x[0] + x[2] * (x[1] > 0),
}


@pytest.mark.parametrize("name", TORN)
@pytest.mark.parametrize("scale", LARGE)
def test_jumps_on_the_surface_of_a_tie(name, scale):
    """Both sides agree at the point, and nowhere else on the line between them."""
    function = TORN[name]
    found = clarke.check(lambda x: function(x, scale), (zeros(3),), seconds=60)
    assert found.verdict in {Verdict.NOT_LIPSCHITZ, Verdict.UNDECIDED}
    with pytest.raises(clarke.errors.ClarkeError):
        clarke.subdifferential(lambda x: function(x, scale), (zeros(3),), seconds=60)
