"""Known programs that write in place: what an audit says of them is what a new audit would say."""

import random

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - the usual name

import clarke
from clarke import Verdict
from clarke.fast.judge import QuickJudge


class Writing:
    """A recurrent program that writes in place, edited at random; whole numbers put it at kinks."""

    def __init__(self, seed):
        self.random = random.Random(seed)  # noqa: S311 - which edits is no secret
        torch.manual_seed(seed)
        self.cell, self.head = nn.Linear(3, 3), nn.Linear(3, 1)
        self.parameters = [*self.cell.parameters(), *self.head.parameters()]
        self.x = torch.zeros(0)
        self.values()
        self.length, self.where, self.late, self.alias, self.twice = 2, "sum", False, 0, False

    def values(self):
        with torch.no_grad():
            for p in self.parameters:
                p.copy_(torch.randint(-2, 3, p.shape).to(p.dtype))
        self.x = torch.randint(-2, 3, (4, 3)).float()

    def edit(self):
        draw = self.random.choice
        what = draw(["length", "where", "late", "alias", "twice", "values", "nothing", "nothing"])
        if what == "length":
            self.length = draw([1, 2, 3])
        elif what == "where":
            self.where = draw(["sum", "relu", "view", "part", "none"])
        elif what == "alias":
            self.alias = draw([0, 1, 2])
        elif what == "values":
            self.values()
        elif what != "nothing":
            setattr(self, what, not getattr(self, what))

    def loss(self):
        h = self.x
        for _ in range(self.length):
            z = self.cell(h)
            if self.where == "sum":
                z.add_(h)
            elif self.where == "view":
                z.view(-1).mul_(2)
            elif self.where == "part":
                z[0].add_(1)
            h = F.relu(z, inplace=self.where == "relu")
            if self.twice:
                h = h * 1.0
                h.add_(1).sub_(1)
        out = self.head(h)
        other = (out, out.view(-1), out * 1.0)[self.alias]
        loss = (out.sum() + out.abs().sum()) * 1.0
        if self.late:
            with torch.no_grad():
                other.detach().clone().add_(1)
            other.add_(1)  # what the loss has read before; nothing that autograd still needs
        return loss

    def step(self):
        for p in self.parameters:
            p.grad = None
        try:
            self.loss().backward()
        except RuntimeError as error:  # autograd needs what was overwritten
            assert "modified by an inplace operation" in str(error)  # noqa: PT017 - only sometimes


def told(audit):
    return [(s.verdict, s.joint, s.theorem, s.kinks) for s in audit.steps]


@pytest.mark.parametrize(
    "seed", [*range(4), *(pytest.param(s, marks=pytest.mark.slow) for s in range(4, 24))]
)
def test_no_stale_program_that_writes_gives_a_verdict(seed):
    program, kept = Writing(seed), clarke.audit(lambda _: None, seconds=20)
    for number in range(16):
        before = len(kept.steps)
        with kept:
            program.step()
        with clarke.audit(lambda _: None, seconds=20) as fresh:
            program.step()
        assert told(kept)[before:] == told(fresh), (number, vars(program))
        program.edit()


def test_recurrent_networks_are_known(monkeypatch):
    """torch's own RNN adds in place in every step of it."""
    recalled = []
    original = QuickJudge.recall

    def noting(*args, **kwargs):
        recalled.append(1)
        return original(*args, **kwargs)

    monkeypatch.setattr(QuickJudge, "recall", noting)
    torch.manual_seed(0)
    net = nn.RNN(3, 4, nonlinearity="relu", batch_first=True)
    with clarke.audit() as audit:
        for length in (3, 3, 5, 3, 5, 5):
            net.zero_grad()
            net(torch.randn(2, length, 3))[0].square().sum().backward()
    assert {s.verdict for s in audit.steps} == {Verdict.SMOOTH}
    assert len(recalled) == 4  # all but the first of each length


def test_a_write_to_what_others_read_is_told_from_one_to_a_copy():
    """The same operations one after the other, once on a value and once on one like it."""
    w = torch.ones(2, requires_grad=True)

    def step(own):
        w.grad = None
        first, second = w * 1.0, w * 1.0
        (first if own else second).sub_(1)  # then the ReLU stands at zero
        torch.relu(first).sum().backward()

    with clarke.audit(lambda _: None) as kept:
        for own in (False, False, True, False, True, True):
            step(own=own)
    smooth = [s.verdict is Verdict.SMOOTH for s in kept.steps]
    assert smooth == [True, True, False, True, False, False]


def test_a_tie_between_clamped_sides_is_looked_at_again_when_the_clamp_begins_to_act():
    """Both sides of the minimum are one function as long as nothing is clipped."""
    ratio = torch.tensor([0.9, 1.1], requires_grad=True)

    def step(values, high):
        ratio.grad = None
        ratio.data.copy_(torch.tensor(values))
        torch.minimum(ratio * 1.0, ratio.clamp(0.8, high) * 1.0).sum().backward()

    with clarke.audit(lambda _: None) as audit:
        step([0.9, 1.1], 1.2)
        step([0.9, 1.1], 1.2)
        step([0.9, 1.2], 1.2)  # at the bound: equal there, not beside it
        step([0.9, 1.3], 1.2)
        step([0.9, 1.1], 1.1)  # another bound, of the same program
        step([0.9, 1.1], 1.2)
    verdicts = [s.verdict for s in audit.steps]
    smooth, limit = Verdict.SMOOTH, Verdict.BOULIGAND
    assert verdicts[0] is verdicts[1] is verdicts[3] is verdicts[5] is smooth
    assert verdicts[2] is not smooth
    assert verdicts[4] is not smooth
    assert verdicts[2] in (limit, Verdict.CLARKE, Verdict.NOT_CLARKE)


def test_numbers_by_name_are_looked_at_again():
    """What `alpha` is, is no part of a known program; the tie is between other functions then."""
    x = torch.tensor([1.0, 2.0], requires_grad=True)
    y = torch.zeros(2, requires_grad=True)

    def step(alpha):
        x.grad = y.grad = None
        torch.minimum(torch.add(x, y, alpha=alpha), torch.add(x, y, alpha=1)).sum().backward()

    with clarke.audit() as audit:
        for alpha in (1, 1, 2, 1, 2):
            step(alpha)
    smooth = [s.verdict is Verdict.SMOOTH for s in audit.steps]
    assert smooth == [True, True, False, True, False]


def test_a_program_without_a_plan_is_taken_in_once():
    """What it overwrites others have read, so that it is analysed anew every time."""
    w = torch.ones(3, requires_grad=True)
    with clarke.audit() as audit:
        for _ in range(5):
            w.grad = None
            x = w * 2.0
            y = x + 1.0
            x.mul_(3.0)
            (x + y).sum().backward()
    assert {s.verdict for s in audit.steps} == {Verdict.SMOOTH}
    known = audit._quick.repertoire._known
    assert sum(len(some) for some in known.values()) == 1
