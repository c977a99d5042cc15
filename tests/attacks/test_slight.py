"""What is slight beside the rest and yet counts: faint jumps, and digits that cancelled."""

import pytest
import torch

import clarke
from clarke import Verdict
from reference.leaves import leaf as point


def nothing(x):
    return torch.zeros((), dtype=x.dtype)


# Each is affine on both sides of a step and differs on the surface between them by `e` times a
# coordinate: zero, and only zero, makes the function continuous.
FAINT = {
    "any of several comparisons": lambda x, e: torch.where(
        (x > 0).any(), torch.relu(x).sum() + e * x[1], nothing(x)
    ),
    "a step along a line": lambda x, e: torch.where(
        x[0] + x[1] > 0, x[0] + x[1] + e * x[0], nothing(x)
    ),
    "a count": lambda x, e: torch.where((x > 0).sum() >= 2, x.min() + e * x.max(), nothing(x)),
}


@pytest.mark.parametrize("name", FAINT)
@pytest.mark.parametrize("size", [1e-5, 1e-8])
def test_a_faint_jump_is_one(name, size):
    found = clarke.check(lambda x: FAINT[name](x, size), (point(0.0, 0.0),), seconds=60)
    assert found.verdict is Verdict.NOT_LIPSCHITZ


@pytest.mark.slow
@pytest.mark.parametrize("name", FAINT)
@pytest.mark.parametrize("size", [4e-10, 1e-10])
def test_a_jump_that_could_be_an_error_is_not_taken_for_none(name, size):
    found = clarke.check(lambda x: FAINT[name](x, size), (point(0.0, 0.0),), seconds=60)
    assert found.verdict in (Verdict.UNDECIDED, Verdict.NOT_LIPSCHITZ)


@pytest.mark.parametrize("name", FAINT)
@pytest.mark.parametrize("beside", [0.0, 1e8])
def test_branches_that_meet(name, beside):
    found = clarke.check(
        lambda x: FAINT[name](x, 0.0) + beside * x[0] - 0.1 * x[1], (point(0.0, 0.0),), seconds=60
    )
    assert found.correct


QUOTIENTS = {
    "exp": (lambda x: (torch.exp(x) - 1) / x, 0.5),
    "log": (lambda x: torch.log(1 + x) / x, -0.5),
    "sqrt": (lambda x: (torch.sqrt(1 + x) - 1) / x, -0.125),
}


@pytest.mark.parametrize("name", QUOTIENTS)
@pytest.mark.parametrize(
    ("dtype", "sizes"),
    [
        (torch.float64, [3e-13, 3e-11, 3e-10, 3e-9, 3e-7, 3e-4]),
        (torch.float32, [3e-6, 3e-5, 3e-3, 3e-2]),
    ],
)
def test_quotients_of_which_digits_cancelled(name, dtype, sizes):
    function, slope = QUOTIENTS[name]
    said = []
    for size in sizes:
        found = clarke.check(lambda x: function(x).sum(), (point(size, dtype=dtype),))
        off = abs(found.gradient[0].item() - slope)
        assert found.correct is not False
        assert off <= 0.25 * abs(slope) or found.verdict is Verdict.UNDECIDED, size
        said.append(found.verdict)
    assert said[-1] is Verdict.SMOOTH


@pytest.mark.parametrize("slope", [1e-6, 1e-9, 1e-12])
def test_a_slight_slope_is_no_minimum(slope):
    x = point(0.0, 0.0)
    found = clarke.subdifferential(lambda x: x[0].abs() + slope * x[1], (x,)).is_local_minimum()
    assert found.minimum is not True


@pytest.mark.parametrize("beside", [0.0, 1e6])
def test_a_flat_floor_is_a_minimum(beside):
    def function(x):
        return x.abs().sum() - x.abs().max() + beside * torch.relu(x[0] + x[1])

    assert clarke.subdifferential(function, (point(0.0, 0.0),)).is_local_minimum().minimum
