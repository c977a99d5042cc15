"""Branches of Python at a tie: a witness on the side that ran, and values on the other."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch

import clarke
from clarke import Verdict
from reference.forgery import altered

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Function = Callable[[torch.Tensor], torch.Tensor]

_PROGRAMS = 24


def at(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64, requires_grad=True)


def greater(x: torch.Tensor) -> torch.Tensor:
    if x[0] > x[1]:
        return x[0]
    return x[1]


def greater_or_equal(x: torch.Tensor) -> torch.Tensor:
    if x[0] >= x[1]:
        return x[0]
    return x[1]


def leaky_loop(x: torch.Tensor) -> torch.Tensor:
    total = x.sum() * 0
    for v in x:
        total = total + v if v > 0 else total + 0.01 * v
    return total


def clipped(x: torch.Tensor) -> torch.Tensor:
    size = x.norm()
    return (x / size).sum() if size > 1 else x.sum()


def nested(x: torch.Tensor) -> torch.Tensor:
    y = torch.relu(x[0] - x[1])
    if x[0] > 0:
        return y + x[0]
    return y * 2 if x[1] >= 0 else y


def jumping(x: torch.Tensor) -> torch.Tensor:
    return x[0] + 1 if x[0] > 0 else x[0]


def steep(x: torch.Tensor) -> torch.Tensor:
    return x[0].sqrt() if x[0] > 0 else x[0]


def at_one_point(x: torch.Tensor) -> torch.Tensor:
    return 3 * x[0] if x[0] == 0 else x[0]


def surrogate(x: torch.Tensor) -> torch.Tensor:
    y = x[0] + (2 * x[0] - x[0]).detach()
    return y if x[1] > 0 else x[0] + y


@pytest.mark.parametrize(
    ("function", "point", "gradient"),
    [
        (greater, (1, 1), (0, 1)),
        (greater_or_equal, (1, 1), (1, 0)),
        (leaky_loop, (0, 2, -3, 0), (0.01, 1, 0.01, 0.01)),
        (max, (2, 2, 2), (1, 0, 0)),
        (min, (0, 0), (1, 0)),
        (lambda x: sum(w * v for w, v in zip((3, 2, 1), sorted(x), strict=True)), (1, 1, 0), None),
        (clipped, (0.6, 0.8), (1, 1)),
        (clipped, (1, 0), (1, 1)),
        (nested, (0, 0), (0, 0)),
        (lambda x: x[x.argmax()], (1, 1), (1, 0)),
        (lambda x: x[int(x.argmin())], (0, 2, 0), (1, 0, 0)),
        (
            lambda x: sum(
                r[i] for r, i in zip(x.view(2, 2), x.view(2, 2).argmax(1).tolist(), strict=True)
            ),
            (1, 1, 0, 3),
            (1, 0, 0, 1),
        ),
    ],
)
def test_the_side_that_ran(
    function: Function, point: Sequence[float], gradient: Sequence[float] | None
) -> None:
    report = clarke.check(function, (at(*point),))
    assert report.verdict is Verdict.BOULIGAND
    if gradient is not None:
        assert report.gradient[0].tolist() == list(gradient)
    assert report.certificate is not None
    assert report.certificate.verify()


def looked_up(x: torch.Tensor) -> torch.Tensor:
    return (1.0, 5.0)[int(x.argmax())] * (1 + x[0])


@pytest.mark.parametrize("function", [jumping, steep, looked_up])
def test_the_other_side_is_steep(function: Function) -> None:
    assert clarke.check(function, (at(0, 0),)).verdict is Verdict.NOT_LIPSCHITZ


def test_a_branch_of_one_point_is_not_the_function_around_it() -> None:
    report = clarke.check(at_one_point, (at(0),))
    assert report.verdict is Verdict.NOT_CLARKE
    assert report.element is not None
    assert report.element[0].tolist() == [1]
    assert report.certificate is not None
    assert report.certificate.verify()
    assert "is otherwise beside the point" in " ".join(str(report).split())


def test_what_is_detached_on_the_side_shows() -> None:
    assert not clarke.check(surrogate, (at(1, 0),)).verdict.correct


def test_a_witness_across_the_branch_is_rejected() -> None:
    certificate = clarke.check(greater, (at(1, 1),)).certificate
    assert certificate is not None
    (witness,) = certificate.witnesses
    turned = replace(witness, direction=tuple(-d for d in witness.direction))
    twice = (witness, turned)
    for forged in (
        altered(certificate, witnesses=(turned,)),
        altered(certificate, witnesses=twice, weights=(1.0, 0.0)),
        altered(
            certificate,
            witnesses=(replace(witness, rows=witness.rows[:0], kinks=witness.kinks[:0]),),
        ),
    ):
        assert not forged.sealed().verify()


def _expression(rng: random.Random, size: int) -> str:
    kind = rng.choice(["line", "line", "line", "square", "relu"])
    parts = [f"{rng.randint(-2, 2)}*x[{i}]" for i in range(size)]
    line = " + ".join(parts)
    if kind == "square":
        return f"({line})*({line}) + x[{rng.randrange(size)}]"
    return f"torch.relu({line})" if kind == "relu" else f"({line})"


def _program(rng: random.Random, size: int) -> str:
    """Branches whose sides mostly meet on their tie: one is the other and what is compared."""
    lines = ["def f(x):", "    y = x.sum() * 0"]
    for _ in range(rng.randint(1, 3)):
        tested = _expression(rng, size)
        value = _expression(rng, size)
        sign = rng.choice([">", ">=", "<", "<="])
        apart = rng.choice(["", "", "", " + 1"])
        factor = rng.randint(-2, 2)
        lines += [
            f"    t = {tested}",
            f"    if t {sign} 0:",
            f"        y = y + {value} + {factor}*t{apart}",
            "    else:",
            f"        y = y + {value}",
        ]
    return "\n".join([*lines, "    return y"])


def _function(source: str) -> Function:
    names: dict[str, object] = {"torch": torch}
    exec(source, names)  # noqa: S102 - a program of this file
    return names["f"]  # type: ignore[return-value]


def compare(seed: int) -> tuple[Verdict, bool]:
    """The verdict on a random program, and whether samples nearby contradict it."""
    rng = random.Random(seed)  # noqa: S311 - a test's
    size = rng.randint(1, 3)
    source = _program(rng, size)
    function = _function(source)
    point = [rng.choice([0, 0, 1, -1]) for _ in range(size)]
    report = clarke.check(function, (at(*point),))
    own = report.gradient[0]
    generator = torch.Generator().manual_seed(seed)
    here = float(function(at(*point)).detach())
    nearest, farthest = float("inf"), 0.0
    for _ in range(300):
        moved = at(*point).detach() + 1e-6 * torch.randn(size, generator=generator).double()
        moved.requires_grad_()
        value = function(moved)
        (gradient,) = torch.autograd.grad(value, moved, allow_unused=True, materialize_grads=True)
        nearest = min(nearest, float((gradient - own).abs().max()))
        farthest = max(farthest, abs(float(value.detach()) - here))
    continuous = farthest < 1e-3
    if report.verdict is Verdict.BOULIGAND:
        return report.verdict, nearest > 1e-3 or not continuous
    if report.verdict is Verdict.NOT_LIPSCHITZ:
        return report.verdict, continuous
    return report.verdict, report.verdict in (Verdict.SMOOTH, Verdict.CLARKE) and nearest > 1e-3


def test_random_branches_against_samples() -> None:
    found = [compare(seed) for seed in range(_PROGRAMS)]
    assert not [i for i, (_, wrong) in enumerate(found) if wrong]
    assert sum(v is Verdict.BOULIGAND for v, _ in found) >= _PROGRAMS // 8
