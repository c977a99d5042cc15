"""An ordinary step goes a shorter way to its verdict, which tells the same as the long one."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import pytest
import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from clarke import audit
from clarke.audit import turn
from clarke.audit.arrived import arrived

Program = Callable[[], list[torch.Tensor]]


def _net(*, frozen: bool = False) -> nn.Sequential:
    torch.manual_seed(1)
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1))
    net[0].weight.requires_grad_(not frozen)
    return net


def _branches() -> list[torch.Tensor]:
    net = _net()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    for number in range(9):
        optimizer.zero_grad()
        out = net(torch.full((2, 3), float(number % 3)))  # zero inputs: kinks that matter, or not
        (out.abs().sum() if number % 2 else out.square().mean()).backward()
        optimizer.step()
    return [*net.parameters()]


def _accumulates() -> list[torch.Tensor]:
    net = _net()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        for part in range(3):
            net(torch.full((2, 3), float(part))).abs().sum().backward()
        optimizer.step()
    return [*net.parameters()]


def _frozen() -> list[torch.Tensor]:
    net = _net(frozen=True)
    for number in range(6):
        net.zero_grad()
        net[0].bias.requires_grad_(number % 3 != 2)
        net(torch.ones(2, 3)).sum().backward()
    return [p.grad for p in net.parameters() if p.grad is not None]


def _not_finite() -> list[torch.Tensor]:
    x = torch.ones(2, requires_grad=True)
    for number in range(6):
        x.grad = None
        y = x * torch.tensor([1.0, float(number != 4)])
        y.sqrt().sum().backward()  # its value is finite, its gradient at zero is not
    assert x.grad is not None
    return [x.grad]


def _large() -> list[torch.Tensor]:
    x = torch.ones(4, requires_grad=True)
    for _ in range(4):
        x.grad = None
        (x * 3e38).mul(0.999).mean().mul(0).sum().backward()
        x.grad = None
        (x * 3e38).sub(3e38).sum().backward()  # the sum of its gradient overflows
    assert x.grad is not None
    return [x.grad]


def _by_grad() -> list[torch.Tensor]:
    net = _net()
    found: list[torch.Tensor] = []
    for _ in range(4):
        found = [*torch.autograd.grad(net(torch.ones(2, 3)).sum(), [*net.parameters()])]
    return found


def _hooked() -> list[torch.Tensor]:
    x, y = torch.ones(3, requires_grad=True), torch.ones(3, requires_grad=True)
    y.register_hook(lambda g: g + 1)
    for _ in range(4):
        x.grad = y.grad = None
        ((x * 2).relu().sum() + (y * 0).sum()).backward()
    assert x.grad is not None
    return [x.grad]


PROGRAMS: dict[str, Program] = {
    "branches": _branches,
    "accumulates": _accumulates,
    "frozen": _frozen,
    "not finite": _not_finite,
    "large": _large,
    "by grad": _by_grad,
    "hooked": _hooked,
}


def _told(program: Program, **how: Any) -> tuple[Any, ...]:
    """All that an audit tells of a program, but for times."""
    with audit(**how) as watching:
        left = program()
    steps = [replace(s, seconds=0.0).to_dict() for s in watching.steps]
    reports = [replace(r, seconds=0.0).to_dict() for r in watching.reports]
    summary = replace(watching.summary(), seconds=0.0, firsts=())
    return steps, json.dumps(reports, default=str), asdict(summary), [x.tolist() for x in left]


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize("how", [{}, {"every": 2}, {"on_wrong": "repair"}], ids=str)
@pytest.mark.filterwarnings("ignore")
def test_same_as_the_long_way(
    name: str, how: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    short = _told(PROGRAMS[name], **how)
    monkeypatch.setattr(turn, "arrived", lambda _leaves: None)
    assert str(short) == str(_told(PROGRAMS[name], **how))


class _Functions(TorchFunctionMode):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen.append(str(func))
        return func(*args, **(kwargs or {}))


class _Operators(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen.append(str(func))
        return func(*args, **(kwargs or {}))


def test_no_mode_of_the_users_sees_it() -> None:
    leaves = [torch.ones(2, requires_grad=True), torch.ones(1, requires_grad=True)]
    for leaf in leaves:
        leaf.grad = torch.full_like(leaf, 2.0)
    with _Functions() as functions, _Operators() as operators:
        found = arrived(leaves)
    assert found is not None
    assert [g.tolist() for g in found] == [[2.0, 2.0], [2.0]]
    assert not functions.seen
    assert not operators.seen


@pytest.mark.parametrize("bad", [None, float("nan"), float("inf")])
def test_what_is_no_ordinary_gradient_takes_the_long_way(bad: float | None) -> None:
    leaf, other = torch.ones(2, requires_grad=True), torch.ones(2, requires_grad=True)
    leaf.grad = torch.ones(2)
    other.grad = None if bad is None else torch.tensor([1.0, bad])
    assert arrived([leaf, other]) is None


def test_known_programs_go_the_short_way(monkeypatch: pytest.MonkeyPatch) -> None:
    went: list[bool] = []

    def counted(leaves: Any) -> Any:
        found = arrived(leaves)
        went.append(found is not None)
        return found

    monkeypatch.setattr(turn, "arrived", counted)
    net = _net()
    with audit() as watching:
        for _ in range(5):
            net.zero_grad()
            net(torch.ones(2, 3)).sum().backward()
    assert went == [True] * 5
    assert all(s.correct for s in watching.steps)
