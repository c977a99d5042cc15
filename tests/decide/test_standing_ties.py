"""Ties that stay beside the point, in every bit: the index that they give is a constant."""

import pytest
import torch
from torch.nn import functional as F  # noqa: N812 - as everybody names it

import clarke
from clarke import Verdict

FACTORS = torch.tensor([1.0, 3.0, 5.0], dtype=torch.float64)


def overlaps(boxes, others):
    low = torch.max(boxes[:, None, :2], others[None, :, :2])
    high = torch.min(boxes[:, None, 2:], others[None, :, 2:])
    sides = (high - low).clamp(min=0)
    shared = sides[..., 0] * sides[..., 1]
    one, two = ((b[:, 2] - b[:, 0]) * (b[:, 3] - b[:, 1]) for b in (boxes, others))
    return shared / (one[:, None] + two[None] - shared)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_boxes_that_meet_none_take_the_first(dtype):
    others = torch.tensor([[5.0, 5, 6, 6], [0, 0, 1, 1]], dtype=dtype)
    boxes = torch.tensor([[0.25, 0.25, 0.9, 0.8], [2, 2, 3, 3], [7, 7, 8, 8.5]], dtype=dtype)

    def loss(boxes):
        best, which = overlaps(boxes, others).max(1)
        return F.smooth_l1_loss(boxes, others[which]) + (1 - best).mean()

    report = clarke.check(loss, boxes.requires_grad_())
    assert report.verdict is Verdict.SMOOTH
    assert report.certificate.verify()


STANDING = {
    "equal functions": lambda x: torch.stack([x[0] ** 2, x[0] ** 2, x[0] - 3]),
    "units that are off": lambda x: torch.relu(x - 5),
    "one value for all": lambda x: x[:1].expand(3),
}
MOVING = {
    "different functions": lambda x: torch.stack([x[0], x[1], x[0] - 3]),
    "units at their kink": lambda x: torch.relu(x - 1),
    "equal to second order": lambda x: torch.stack(
        [x[0] ** 3, 3 * x[0] * (x[0] - 1) + 1, x[0] - 3]
    ),
}


@pytest.mark.parametrize("index", ["max", "argmax", "gathered"])
@pytest.mark.parametrize("name", [*STANDING, *MOVING])
def test_an_index_is_a_constant_where_its_tie_stays(name, index):
    def f(x):
        values = (STANDING | MOVING)[name](x)
        which = values.max(0).indices if index == "max" else values.argmax(0)
        if index == "gathered":
            return x.sum() * FACTORS.gather(0, which[None])[0]
        return x.sum() * FACTORS[which]

    report = clarke.check(f, torch.ones(3, dtype=torch.float64, requires_grad=True))
    if name in STANDING:
        assert report.verdict is Verdict.SMOOTH
    else:
        assert report.verdict in {Verdict.UNDECIDED, Verdict.NOT_LIPSCHITZ}
