"""A program whose constants, masks, hooks or Functions change: each step has its own verdict."""

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - as everybody calls it

import clarke
from clarke import Verdict
from reference.functions import square

KINK, OFF = [0.0, 2.0], [1.0, 2.0]
RIGHT = {Verdict.SMOOTH, Verdict.BOULIGAND, Verdict.CLARKE}
WRONG = {Verdict.NOT_CLARKE}
UNPROVED = {Verdict.NOT_CLARKE, Verdict.UNDECIDED}  # a hook's gradient is nobody's proof


def twins(x, sign):
    return (x.relu() + sign * (-x).relu()).sum() + x.sum()


def by_tensor(x, step):
    return twins(x, torch.tensor(-1.0 if step in (2, 4) else 1.0, dtype=x.dtype))


def by_number(x, step):
    return twins(x, -1 if step in (2, 4) else 1)


def by_slope(x, step):
    slope = 0.1 if step in (2, 4) else 1.5  # at 0.1 it is linear
    return F.leaky_relu(x, slope).sum() - F.leaky_relu(-x, 0.1).sum()


def by_index(x, step):
    y = x[torch.tensor([0, 0] if step in (2, 4) else [1, 1])]
    return y[0].relu() - (-y[1]).relu() + x.sum()


def by_mask(x, step):
    y = x[torch.tensor([step in (2, 4), True])]
    return y.relu().sum() - (-y).relu().sum()


def by_bound(x, step):
    return x.clamp(min=0.0 if step in (2, 4) else -1.0).sum() - (-x).clamp(min=0).sum()


def by_hook(x, step):
    y = x * 1
    if step in (2, 4):
        y.register_hook(lambda g: g * 0.5)
    return (y * y).sum() + y.sum()


def by_function(x, step):
    own = square(0.6 if step in (2, 4) else 1.0)
    return own.apply(x).sum() + x.sum()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    ("function", "wrong"),
    [
        (by_tensor, WRONG),
        (by_number, WRONG),
        (by_slope, WRONG),
        (by_index, WRONG),
        (by_mask, WRONG),
        (by_bound, WRONG),
        (by_hook, UNPROVED),
        (by_function, WRONG),
    ],
)
def test_wrong_at_the_second_and_fourth_step_alone(function, wrong, dtype):
    w = torch.nn.Parameter(torch.tensor(OFF, dtype=dtype))
    with clarke.audit(lambda _: None, seconds=20) as audit:
        for step in range(6):
            w.grad = None
            with torch.no_grad():
                w.copy_(torch.tensor(KINK if step in (2, 3, 4) else OFF))
            function(w, step).backward()
    told = [s.verdict for s in audit.steps]
    assert set(told[2:5:2]) <= wrong
    # At the kink between them the hook, the slope and the sign are others.
    assert {*told[:2], told[5]} <= RIGHT
    assert told[3] in RIGHT
