"""Branches of Python that hold at the point and nowhere around it: what runs beside is judged."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest
import torch

import clarke
from clarke import Verdict

if TYPE_CHECKING:
    from collections.abc import Callable

    Function = Callable[[torch.Tensor], torch.Tensor]


def at(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64, requires_grad=True)


def distance_unless_equal(x: torch.Tensor) -> torch.Tensor:
    a, b = x[:2], x[2:]
    return (a * 0).sum() + (b * 0).sum() if torch.equal(a, b) else (a - b).norm()


def mean_of_positive(x: torch.Tensor) -> torch.Tensor:
    losses = (x - x.roll(1)).abs()
    picked = losses[losses > 0]
    return picked.mean() if len(picked) else x.sum() * 0


def of_all(x: torch.Tensor) -> torch.Tensor:
    return (x - x.roll(1)).abs().mean()


def sum_unless_equal(x: torch.Tensor) -> torch.Tensor:
    return 2 * x.sum() - 2 if (x[0] == x[1]).all() else x.sum()


def ratio(x: torch.Tensor) -> torch.Tensor:
    spread = ((x - x.mean()) ** 2).sum()
    return x[0] * 0 + 1 if spread == 0 else 1 - (x[0] - x[1]) ** 2 / spread


def on_a_thin_side(x: torch.Tensor) -> torch.Tensor:
    """The branch holds on a cone of its own, which rays hardly meet."""
    return 3 * x[0] if torch.relu(1000 * x[1].abs() - x[0]) == 0 else x[0]


def with_a_number(x: torch.Tensor) -> torch.Tensor:
    return 3 * x[0] if x[0].item() == 0 else x[0]


def counted(x: torch.Tensor) -> torch.Tensor:
    """A number that Python takes along is another one at every point."""
    return x.sum() * x.abs().sum().item() if x[0] == 0 else x.sum() * x[1].item()


def test_a_norm_that_is_left_out_where_its_ends_are_equal() -> None:
    report = clarke.check(distance_unless_equal, (at(1, 2, 1, 2),))
    assert report.verdict is Verdict.CLARKE
    assert report.certificate is not None
    assert report.certificate.verify()


def test_the_mean_of_what_a_mask_picks_is_that_of_all_beside() -> None:
    report = clarke.check(mean_of_positive, (at(1, 1, 1),))
    assert report.correct
    assert report.correct == clarke.check(of_all, (at(1, 1, 1),), gradient=report.gradient).correct


def test_a_wrong_gradient_on_a_branch_without_room() -> None:
    report = clarke.check(sum_unless_equal, (at(1, 1),))
    assert report.gradient[0].tolist() == [2, 2]
    assert report.verdict is Verdict.NOT_CLARKE
    assert report.element is not None
    assert report.element[0].tolist() == [1, 1]


def test_a_quotient_that_is_left_out_where_it_has_no_limit() -> None:
    assert clarke.check(ratio, (at(1, 1, 1),)).verdict is Verdict.NOT_LIPSCHITZ


@pytest.mark.parametrize("function", [on_a_thin_side, with_a_number])
def test_what_may_have_room_is_never_called_wrong(function: Function) -> None:
    assert clarke.check(function, (at(0, 0),)).verdict is not Verdict.NOT_CLARKE


def test_numbers_of_the_point_are_no_program_beside() -> None:
    assert not clarke.check(counted, (at(0, 1),)).correct


def _piece(rng: random.Random) -> Function:
    a, b, c = (rng.choice([-2.0, -1.0, 0.0, 1.0, 2.0]) for _ in range(3))
    kind = rng.choice(["line", "abs", "relu", "square", "max"])

    def piece(x: torch.Tensor) -> torch.Tensor:
        line = a * (x[0] - 1) + b * (x[1] - 1)
        match kind:
            case "abs":
                line = line.abs()
            case "relu":
                line = torch.relu(line)
            case "square":
                line = line * line + line
            case "max":
                line = torch.stack([line, c * (x[1] - 1)]).amax()
        return line + c * (x[0] - 1)

    return piece


@pytest.mark.parametrize("seed", range(16))
def test_the_verdict_is_that_of_the_gradient_on_the_program_beside(seed: int) -> None:
    rng = random.Random(seed)  # noqa: S311 - no secrets
    here, beside = _piece(rng), _piece(rng)
    equal = rng.choice([lambda x: (x[0] == x[1]).all(), lambda x: not (x[0] != 1).any()])
    report = clarke.check(lambda x: here(x) if equal(x) else beside(x), (at(1, 1),))
    truth = clarke.check(beside, (at(1, 1),), gradient=report.gradient)
    assert truth.correct is not None
    assert report.correct == truth.correct
