"""Answers about a set in a condition and on a screen."""

from __future__ import annotations

import pytest
import torch

import clarke
from reference.leaves import zeros


def steps(x: torch.Tensor) -> torch.Tensor:
    """A long way down; many kinks."""
    return (torch.arange(1, 30).double() * x[0] + x[1]).abs().sum()


def undecided(v: torch.Tensor) -> torch.Tensor:
    """Higher orders decide."""
    return v[0].abs() + v[1] ** 3


def test_an_answer_in_a_condition_is_what_it_says() -> None:
    up, down = (
        clarke.subdifferential(f, (zeros(2),))
        for f in (steps, lambda x: torch.relu(x[0]) + 2 * x[0])
    )
    assert up.is_stationary()
    assert up.is_local_minimum()
    assert not down.is_stationary()
    assert not down.is_local_minimum()


def test_an_undecided_answer_is_no_condition() -> None:
    found = clarke.subdifferential(undecided, (zeros(2),))
    with pytest.raises(clarke.UnsupportedError, match=r"Look at \.minimum, which is None"):
        bool(found.is_local_minimum())
    cusp = clarke.subdifferential(
        lambda v: torch.relu(v[1] ** 2 - torch.relu(v[0])) + v[0], (zeros(2),)
    )
    with pytest.raises(clarke.UnsupportedError, match=r"Look at \.stationary, which is None"):
        bool(cusp.is_stationary())


@pytest.mark.parametrize("show", [str, repr])
def test_answers_are_shown_in_a_line(show: object) -> None:
    found = clarke.subdifferential(lambda x: steps(x) - x[1].abs(), (zeros(2),))
    ball = clarke.goldstein(steps, (zeros(2),), eps=0.5)
    for answer in (
        found,
        found.is_stationary(),
        found.is_local_minimum(),
        found.contains(torch.zeros(2)),
        found.frechet(torch.zeros(2)),
        found.certificate("min_norm"),
        ball,
        ball.near_stationary(0.1),
    ):
        shown = show(answer)  # type: ignore[operator]
        assert 9 < len(shown) < 400, shown
        assert " object at 0x" not in shown


def test_a_stationarity_says_where_it_falls() -> None:
    peak = clarke.subdifferential(lambda x: -x.abs().sum(), (zeros(1),)).is_stationary()
    assert str(peak) == "stationary; falls with slope -1 along .descent"
    ball = clarke.goldstein(steps, (zeros(2),), eps=0.5)
    assert str(ball).endswith("within 0.5, all of them")
