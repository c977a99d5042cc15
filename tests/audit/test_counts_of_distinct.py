"""Which numbers are distinct: constants beside the point, unless two of them part there."""

import pytest
import torch

import clarke
from clarke.verdict import Verdict

RIGHT = (Verdict.SMOOTH, Verdict.BOULIGAND)
POINTS = {
    "apart": [0.3, 1.6, 1.7, -2.2],
    "at a half": [0.5, 1.6, 1.7, -2.2],
    "equal": [1.6, 1.6, 1.7, -2.2],
}
PROGRAMS = {
    "rounded": lambda w: (w * w.detach().round().unique(return_inverse=True)[1]).sum(),
    "detached": lambda w: (w * w.detach().unique(return_inverse=True)[1]).sum(),
    "differentiated": lambda w: (w * w.unique(return_inverse=True)[1]).sum(),
    "counts": lambda w: w.sum() * w.detach().round().unique(return_counts=True)[1].float().amax(),
    "whole": lambda w: w.sum() * w.detach().long().unique().numel(),
}
JUMPS = {("rounded", "at a half"), ("counts", "at a half")}
JUMPS |= {("detached", "equal"), ("differentiated", "equal")}


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("name", PROGRAMS)
def test_of_unique(name, point):
    w = torch.tensor(POINTS[point], dtype=torch.float64, requires_grad=True)
    report = clarke.check(PROGRAMS[name], (w,))
    if (name, point) in JUMPS:
        assert report.verdict not in RIGHT
    else:
        assert report.verdict in RIGHT


@pytest.mark.parametrize(
    "divide", [lambda w: w // 0.7, lambda w: torch.floor_divide(w, torch.full_like(w, 0.7))]
)
def test_of_quotients_rounded_down(divide):
    w = torch.tensor([0.3, 1.6, 3.2], requires_grad=True)
    table = torch.arange(6.0, requires_grad=True)
    report = clarke.check(lambda w, t: (t[divide(w).long()] * w.sum()).sum(), (w, table))
    assert report.verdict is Verdict.SMOOTH
