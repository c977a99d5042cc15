"""Steps that hold values constant: as the whole ladder says, without climbing it."""

import pytest
import torch
from torch import nn

import clarke
from clarke.audit import turn
from clarke.verdict import Verdict

SMOOTH, SURROGATE, UNDECIDED = Verdict.SMOOTH, Verdict.SURROGATE, Verdict.UNDECIDED


def without_gradients(compute):
    with torch.no_grad():
        return compute()


class Target:
    """A target of a slow copy, which follows by ``.data``."""

    def __init__(self):
        self.net, self.slow = nn.Linear(3, 2), nn.Linear(3, 2)

    def __call__(self, step):
        torch.manual_seed(step)
        seen = torch.randn(5, 3)
        goal = (0.5 + self.slow(seen).amax(1)).detach()
        for s, f in zip(self.slow.parameters(), self.net.parameters(), strict=True):
            s.data.copy_(0.9 * s.data + 0.1 * f.data)
        return (self.net(seen).amax(1) - goal).square().mean()


class Rollout:
    """A policy's own actions, without gradients; the surroundings stop at a wall."""

    def __init__(self):
        self.net, self.state = nn.Linear(2, 3), torch.zeros(4, 2)

    def __call__(self, step):
        with torch.no_grad():
            action = self.net(self.state).argmax(1)
        torch.manual_seed(step)
        action = torch.where(torch.rand(4) < 0.5, action, 2)
        self.state = (self.state + action[:, None]).clamp(-2, 2)
        return (self.net(self.state).gather(1, action[:, None]) - 1).square().mean()


class Carried:
    """A recurrent state that is cut from the step before; dropout writes to its mask."""

    def __init__(self):
        self.cell, self.drop, self.state = nn.RNN(2, 3), nn.Dropout(0.3), None

    def __call__(self, step):
        torch.manual_seed(step)
        state = None if self.state is None else self.state.detach()
        out, self.state = self.cell(torch.randn(4, 5, 2), state)
        return self.drop(out).square().mean()


class Codebook:
    """The nearest of some vectors, which have moved behind autograd's back."""

    def __init__(self):
        self.net, self.book = nn.Linear(2, 2), nn.Parameter(torch.randn(6, 2))

    def __call__(self, step):
        torch.manual_seed(step)
        self.book.data.copy_(0.9 * self.book.data)
        z = self.net(torch.randn(7, 2))
        nearest = self.book[torch.cdist(z, self.book).argmin(1)]
        return (z - nearest.detach()).square().mean()


class Formula:
    """One leaf and a function of it."""

    def __init__(self, start, function):
        self.x, self.function = torch.tensor(start, requires_grad=True), function

    def __call__(self, _step):
        return self.function(self.x).sum()


def formula(*start):
    return lambda function: lambda: Formula(start, function)


QUICK = {
    "target": Target,
    "rollout": Rollout,
    "carried": Carried,
    "codebook": Codebook,
}
OTHERS = {
    "semi-gradient": (formula(1.0, 2.0)(lambda x: x * x.detach()), SURROGATE),
    "without gradients": (
        formula(1.0, 2.0)(lambda x: x * without_gradients(lambda: x * 2)),
        SURROGATE,
    ),
    "straight-through": (formula(0.2, 0.7)(lambda x: x + (x.round() - x).detach()), SURROGATE),
    "clamp and floor": (formula(1.0, 2.0)(lambda x: x * x.detach().clamp(-1, 1).floor()), SMOOTH),
    "floor": (formula(1.0, 1.5)(lambda x: x * x.detach().floor()), SMOOTH),
    "detached relu": (formula(0.0, 1.0)(lambda x: x.exp() * x.detach().relu().sign()), None),
    "mask at a tie": (formula(0.0, 1.0)(lambda x: x * (x.detach() > 0)), UNDECIDED),
    "mask off a tie": (formula(0.5, 1.0)(lambda x: x * (x.detach() > 0)), SMOOTH),
    "index": (formula(3.2, 1.5)(lambda x: x[x.detach().floor().long() % 2]), SMOOTH),
}


def verdicts(make, *, quick, steps=4):
    torch.manual_seed(0)
    program = make()
    with clarke.audit(lambda _: None, seconds=60, settings=clarke.Settings(quick=quick)) as audit:
        for step in range(steps):
            program(step).backward()
    return [s.verdict for s in audit.steps]


@pytest.fixture
def climbed(monkeypatch):
    found = []
    ladder = turn.judge
    monkeypatch.setattr(turn, "judge", lambda *a, **k: found.append(1) or ladder(*a, **k))
    return found


@pytest.mark.parametrize("name", QUICK)
def test_constants_from_elsewhere_take_no_ladder(name, climbed):
    assert verdicts(QUICK[name], quick=True) == [SMOOTH] * 4
    assert not climbed
    assert verdicts(QUICK[name], quick=False, steps=2) == [SMOOTH] * 2
    assert climbed


@pytest.mark.parametrize("name", OTHERS)
def test_what_moves_with_the_variables_is_told_as_by_the_ladder(name):
    make, right = OTHERS[name]
    found = verdicts(make, quick=True, steps=3)
    assert found == verdicts(make, quick=False, steps=1) * 3
    assert right in (None, found[0])


def test_what_was_constant_and_moves_later_is_not_taken_for_known(climbed):
    """One form, operation by operation: what was cut is another's first, then one's own."""
    own, other = (torch.tensor([0.3, 0.7], requires_grad=True) for _ in range(2))
    with clarke.audit(lambda _: None, seconds=60) as audit:
        for source in (other, other, other, own, other, own):
            (own * (2 * source).detach()).sum().backward()
    found = [s.verdict for s in audit.steps]
    assert found == [SMOOTH, SMOOTH, SMOOTH, SURROGATE, SMOOTH, SURROGATE]
    assert not climbed  # only the rate is looked at


def test_results_without_gradients_are_remembered_with_their_line():
    net, x = nn.Linear(2, 2), torch.randn(3, 2)
    with clarke.audit(lambda _: None, seconds=60) as audit:
        with torch.no_grad():
            seen = net(x)
        (net(x) * (seen > seen.flip(0))).sum().backward()
    assert audit.steps[0].verdict in (SMOOTH, UNDECIDED)  # the middle row is compared with itself
    assert audit.steps[0].verdict is verdict_of_ladder(net, x)


def verdict_of_ladder(net, x):
    with clarke.audit(lambda _: None, seconds=60, settings=clarke.Settings(quick=False)) as audit:
        with torch.no_grad():
            seen = net(x)
        (net(x) * (seen > seen.flip(0))).sum().backward()
    return audit.steps[0].verdict
