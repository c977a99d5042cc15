"""A cast of what is whole already jumps only where that was made whole."""

import pytest
import torch

import clarke
from clarke import Verdict

T = torch.float64

AWAY = [(0.3, 1.4), (2.25, -0.75)]
WHOLE = {
    "a detached constant": lambda x: (x * x.detach().floor().long()).sum(),
    "a detached index": lambda x: x[x.detach().floor().long().clamp(0, 1)].sum(),
    "an index": lambda x: x[x.floor().long().clamp(0, 1)].sum(),
    "int": lambda x: (x * x.floor().int()).sum(),
    "rounded": lambda x: (x * x.detach().round().to(torch.int16)).sum(),
    "upwards": lambda x: (x * x.detach().ceil().bool()).sum(),
    "a sign": lambda x: (x * x.detach().sign().long()).sum(),
    "clamped between": lambda x: (x * x.floor().clamp(0, 3).neg().add(1).long()).sum(),
    "there and back": lambda x: x[x.argmax().float().long()],
}


@pytest.mark.parametrize("program", WHOLE.values(), ids=WHOLE)
@pytest.mark.parametrize("at", AWAY)
def test_away_from_its_jumps_it_is_constant(program, at):
    x = torch.tensor(at, dtype=T, requires_grad=True)
    report = clarke.check(program, x)
    assert report.verdict is Verdict.SMOOTH, report.reason
    if report.certificate is not None:
        assert report.certificate.verify()
    x.grad = None
    with clarke.audit() as watch:
        program(x).backward()
    assert watch.steps[0].verdict is Verdict.SMOOTH


@pytest.mark.parametrize(
    "program",
    [
        WHOLE["a detached constant"],
        WHOLE["int"],
        # What was cut off on the way, or is not whole, may jump at the cast.
        lambda x: (x * x.detach().floor().clamp(0, 3).long()).sum(),
        lambda x: (x * (x.floor() / 2).long()).sum() * 0 + (x * x.detach().long()).sum(),
    ],
)
def test_at_its_jumps_it_is_not_called_right(program):
    x = torch.tensor([2.0, 0.5], dtype=T, requires_grad=True)
    assert clarke.check(program, x).correct is not True


@pytest.mark.parametrize("count", [1, 2, 5, 7])
@pytest.mark.parametrize("dtype", [torch.float32, T])
def test_roundings_beside_zeros_are_no_values(count, dtype):
    x = torch.zeros(count, dtype=dtype, requires_grad=True)
    for program in (
        lambda x: (x - x.mean()).sum(),
        lambda x: (3 * x - x - 2 * x).sum(),
        lambda x: x.softmax(0).sum(),
    ):
        assert clarke.check(program, x).verdict is Verdict.SMOOTH
