"""Programs that an audit knows from earlier steps: what it says is what a new audit would say."""

import random

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - the usual name

import clarke
from clarke import Verdict
from clarke.fast.judge import QuickJudge
from clarke.fast.repertoire import KEPT


class Edited:
    """A program that is edited at random between its steps; whole numbers put it at kinks."""

    def __init__(self, seed):
        self.random = random.Random(seed)  # noqa: S311 - which edits is no secret
        torch.manual_seed(seed)
        self.first, self.second = nn.Linear(3, 4), nn.Linear(4, 2)
        self.head = nn.Linear(4, 4)
        for p in (*self.first.parameters(), *self.second.parameters(), *self.head.parameters()):
            p.data = torch.randint(-2, 3, p.shape).to(p.dtype)
        self.net = nn.ModuleList([self.first, self.second, self.head])
        self.length, self.branch, self.dropped = 2, 0, False
        self.scale, self.parts, self.shared = 1.0, 1, False
        self.inputs = torch.randint(-2, 3, (5, 3)).float()
        self.read = False

    def edit(self):
        """Change one thing, or nothing."""
        edits = [f for name, f in vars(self.Edits).items() if not name.startswith("_")]
        edit = self.random.choice([None, None, *edits])
        if edit is not None:
            edit(self, self.random.choice)

    class Edits:
        """What may change."""

        def length(self, choose):
            self.length = choose([1, 2, 3])

        def branch(self, choose):
            self.branch = choose([0, 1, 2, 3])

        def frozen(self, choose):
            parameter = choose(list(self.net.parameters()))
            parameter.requires_grad_(not parameter.requires_grad)

        def dropout(self, choose):
            self.dropped = not self.dropped

        def number(self, choose):
            self.scale = choose([1.0, 0.0, -0.0, 2.0, 3])

        def accumulation(self, choose):
            self.parts = choose([1, 2])

        def sharing(self, choose):
            self.shared = not self.shared

        def values(self, choose):
            with torch.no_grad():
                parameter = choose(list(self.net.parameters()))
                parameter.copy_(torch.randint(-2, 3, parameter.shape).to(parameter.dtype))

        def memory(self, choose):
            layer = choose([self.first, self.head])
            layer.weight.data = torch.randint(-2, 3, layer.weight.shape).to(layer.weight.dtype)

        def batch(self, choose):
            self.inputs = torch.randint(-2, 3, (choose([2, 5]), 3)).float()

        def type(self, choose):
            self.net.to(choose([torch.float32, torch.float64]))

        def reading(self, choose):
            self.read = not self.read

        def hook(self, choose):
            self.hooked = choose([True, False])

    hooked = False

    def loss(self):
        x = self.inputs.to(self.first.weight.dtype)
        h = F.relu(self.first(x))
        for _ in range(self.length):
            h = F.relu(self.head(h)) if self.branch != 1 else torch.sin(self.head(h))
        if self.dropped:
            h = F.dropout(h, 0.5)
        if self.hooked and h.requires_grad:
            h.register_hook(lambda g: g * 1.0)
        if self.branch == 2:
            h = torch.maximum(h, h.clamp(-1, 1) * self.scale)
        if self.read and bool((h > 0).any()):
            h = h + 1
        out = self.second(h)
        if self.shared:
            out = out + self.second(F.leaky_relu(h))
        if self.branch == 3:
            return out.max(1).values.sum() * self.scale
        return (out * self.scale).abs().sum()

    def step(self, seed):
        """One optimizer step's backward calls, if anything is trained at all."""
        self.net.zero_grad()
        torch.manual_seed(seed)
        for _ in range(self.parts):
            loss = self.loss()
            if loss.requires_grad:
                loss.backward()


def told(audit):
    """What an audit says of its last steps."""
    return facts(audit.steps)


def facts(steps):
    return [(s.verdict, s.joint, s.theorem, s.kinks) for s in steps]


def assert_told_alike(known, fresh):
    """What an audit says that has seen other programs before, and one that has not."""
    if len(fresh) == 1:
        assert facts(known) == facts(fresh)
    # Before gradients have added up once, nobody expects a second part: what is needed of the first
    # may be gone, which depends on what was known.
    assert [s.verdict for s in known] == [s.verdict for s in fresh]
    sums = [{one.joint, two.joint} - {Verdict.UNDECIDED} for one, two in zip(known, fresh)]  # noqa: B905
    assert all(len(found) <= 1 for found in sums)


@pytest.mark.parametrize(
    "seed", [0, 1, 2, *(pytest.param(s, marks=pytest.mark.slow) for s in range(3, 8))]
)
def test_no_stale_program_ever_gives_a_verdict(seed, monkeypatch):
    recalled = 0
    original = QuickJudge.recall  # of an audit that has seen the program

    def counting(*args, **kwargs):
        nonlocal recalled
        recalled += 1
        return original(*args, **kwargs)

    monkeypatch.setattr(QuickJudge, "recall", counting)
    program, kept = Edited(seed), clarke.audit(lambda _: None, seconds=20)
    for number in range(16):
        before = len(kept.steps)
        with kept:
            program.step(number)
        again = recalled
        with clarke.audit(lambda _: None, seconds=20) as fresh:
            program.step(number)
        assert recalled - again <= program.parts - 1  # a second part may be the first again
        assert_told_alike(kept.steps[before:], fresh.steps)
        program.edit()


def test_alternating_programs_are_all_known():
    first, second = Edited(1), Edited(2)
    second.branch, second.length = 3, 1
    with clarke.audit(lambda _: None, seconds=20) as audit:
        for number in range(4):
            first.step(number)
            second.step(number)
    known = audit._quick.repertoire._known
    assert sum(len(some) for some in known.values()) == 2


def test_programs_that_never_come_again_are_not_kept_for_ever():
    w = torch.ones(3, requires_grad=True)
    with clarke.audit() as audit:
        for number in range(3 * KEPT):
            x = w
            for _ in range(number):
                x = x * 1.5
            x.sum().backward()
            w.grad = None
    assert {s.verdict for s in audit.steps} == {Verdict.SMOOTH}
    known = audit._quick.repertoire._known
    assert sum(len(some) for some in known.values()) <= KEPT


def test_a_known_program_whose_gradient_overflows_is_judged_in_full():
    overflow = torch.full((1,), 1e-30, requires_grad=True)
    with clarke.audit(lambda _: None) as audit:
        for value in (2.0, 2.0, 1e-30):
            overflow.grad = None
            overflow.data.fill_(value)
            (1.0 / torch.relu(overflow)).sum().backward()
    assert [s.verdict for s in audit.steps[:2]] == [Verdict.SMOOTH] * 2
    assert audit.steps[2].verdict is Verdict.NONFINITE


def test_proofs_of_known_programs_verify():
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1))
    x = torch.randn(6, 3)
    found = []
    audit = clarke.audit()
    audit.subscribe(lambda _step, report: found.append(report.certificate.verify()))
    with audit:
        for _ in range(3):
            net.zero_grad()
            net(x).square().sum().backward()
    assert found == [True] * 3


def test_detached_values_of_the_variables_themselves_are_none_of_a_known_program():
    """The same operations, once on another network's output and once on the network's own."""
    own, other = nn.Linear(2, 2), nn.Linear(2, 2)
    x = torch.randn(3, 2)

    def step(net):
        target = torch.relu(net(x)).detach()
        (own(x) * target).sum().backward()
        own.zero_grad()

    with clarke.audit(lambda _: None) as kept:
        for net in (other, other, own, other, own):
            step(net)
    with clarke.audit(lambda _: None) as fresh:
        step(own)
    with clarke.audit(lambda _: None) as apart:
        step(other)
    verdicts = [s.verdict for s in kept.steps]
    assert verdicts[0] is verdicts[1] is verdicts[3] is apart.steps[0].verdict
    assert verdicts[2] is verdicts[4] is fresh.steps[0].verdict
