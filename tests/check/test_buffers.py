"""Buffers that got their shape from a variable, filled through views: replays fill them as well."""

import pytest
import torch
from torch.nn import functional as F  # noqa: N812 - the usual name

import clarke
from clarke.verdict import Verdict
from reference.leaves import leaf

WEIGHTS = torch.tensor([1.0, 2.0, 4.0, 8.0], dtype=torch.float64)


def by_index(x):
    buffer = torch.zeros_like(x)
    buffer[1:] = 2 * x[1:]
    buffer[0] = 3 * x[1]
    return (buffer * WEIGHTS).sum()


def by_copy(x):
    buffer = x.new_zeros(4)
    buffer[1:].copy_(x[1:])
    return (buffer * WEIGHTS).sum()


def by_kept_view(x):
    buffer = torch.empty_like(x)
    view = buffer[:2]
    view.copy_(x[:2])
    buffer[2:] = torch.relu(x[2:])
    return (buffer * WEIGHTS).sum()


def around(x):
    padded = F.pad(x[None, None], (1, 1), mode="circular")
    return (padded * torch.arange(6.0, dtype=x.dtype)).sum()


@pytest.mark.parametrize(
    ("program", "verdict"),
    [
        (by_index, Verdict.SMOOTH),
        (by_copy, Verdict.SMOOTH),
        (by_kept_view, Verdict.BOULIGAND),
        (around, Verdict.SMOOTH),
    ],
)
def test_right_programs(program, verdict):
    report = clarke.check(program, (leaf(0.0, 1.0, 0.0, 2.0),))
    assert report.verdict is verdict
    assert report.certificate.verify()


def test_wrong_programs_have_a_right_element():
    def through_views(x):
        buffer = torch.zeros_like(x)
        buffer.view(2, 2)[0] = torch.relu(x[:2]) - torch.relu(-x[:2])
        return (buffer * WEIGHTS).sum()

    report = clarke.check(through_views, (leaf(0.0, 1.0, 0.0, 2.0),))
    assert report.verdict is Verdict.NOT_CLARKE
    assert report.element[0].tolist() == [1, 2, 0, 0]

    def with_padding(x):
        return around(x) + (torch.relu(x) - torch.relu(-x)).sum()

    report = clarke.check(with_padding, (leaf(0.0, 1.0, 0.0, 2.0),))
    assert report.verdict is Verdict.NOT_CLARKE
    assert report.element[0].tolist() == [7, 3, 4, 5]
