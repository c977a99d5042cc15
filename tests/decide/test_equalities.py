"""``==`` and ``!=`` at a tie: what holds there holds on a surface, on which values may jump."""

import pytest
import torch

import clarke
from clarke.verdict import Verdict


def leaf(*values):
    return torch.tensor(values, dtype=torch.float64, requires_grad=True)


JUMPING = {
    "equal": lambda x: torch.where(x[0] == 0, x[1], 0 * x[1]),
    "not equal": lambda x: torch.where(x[0] != 0, x[1], 2 * x[1]),
    "as a factor": lambda x: ((x[0] == 0).double() * x[1]).sum(),
    "a kink": lambda x: torch.where(x[0] == 0, x[1].relu(), x[0].abs()),
    "a sum": lambda x: torch.where(x.sum() == 0, x[0], x[1]),
    "both": lambda x: torch.where(x[0] == x[1], x[0], 0 * x[0]),
}
CONTINUOUS = {
    "of another slope": (lambda x: torch.where(x[0] == 0, x[1], x[1] + x[0]), [1.0, 1.0]),
    "each": (lambda x: torch.where(x == 0, 0 * x, x).sum(), [1.0, 1.0]),
    "a sum": (lambda x: torch.where(x.sum() == 0, x[0], -x[1]), [0.0, -1.0]),
    "two": (lambda x: torch.where(x[0] == x[1], x[0], (x[0] + x[1]) / 2), [0.5, 0.5]),
}


@pytest.mark.parametrize("name", JUMPING)
def test_a_jump_along_the_surface_is_no_wrong_gradient(name):
    report = clarke.check(JUMPING[name], (leaf(0.0, 0.0),))
    assert report.verdict is Verdict.NOT_LIPSCHITZ
    with pytest.raises(clarke.ClarkeError):
        clarke.subdifferential(JUMPING[name], (leaf(0.0, 0.0),))


@pytest.mark.parametrize("name", CONTINUOUS)
def test_where_values_meet_the_slope_beside_is_right(name):
    function, right = CONTINUOUS[name]
    report = clarke.check(function, (leaf(0.0, 0.0),))
    assert report.verdict is Verdict.NOT_CLARKE
    assert report.element[0].tolist() == right
    assert report.certificate.verify()
