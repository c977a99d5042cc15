"""Edits of what a known program takes for granted: detached values, memory, leaves, indices."""

import random

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - the usual name

import clarke
from clarke import Verdict


class Edited:
    """Message passing over a small graph, with repeated edges; whole numbers put it at kinks."""

    def __init__(self, seed):
        self.random = random.Random(seed)  # noqa: S311 - which edits is no secret
        torch.manual_seed(seed)
        self.embed, self.message, self.head = nn.Linear(2, 3), nn.Linear(6, 3), nn.Linear(3, 2)
        for p in self.parameters():
            p.data = torch.randint(-2, 3, p.shape).to(p.dtype)
        self.x = torch.randint(-2, 3, (4, 2)).float()
        self.source = torch.tensor([0, 1, 1, 2, 3, 3])
        self.target = torch.tensor([1, 2, 2, 0, 0, 0])
        self.cut, self.order, self.memory, self.hooked, self.first = "", "rows", "own", False, False
        self.include, self.clip = False, 1.0

    def parameters(self):
        return [p for m in (self.embed, self.message, self.head) for p in m.parameters()]

    def edit(self):
        """Change one thing, or nothing."""
        names = [n for n in dir(self) if n.startswith("change_")]
        name = self.random.choice([None, *names])
        if name is not None:
            getattr(self, name)(self.random.choice)

    def change_cut(self, choose):
        self.cut = choose(["", "detach", "data", "no_grad", "data_of_saved"])

    def change_order(self, choose):
        self.order = choose(["rows", "columns", "expanded"])

    def change_memory(self, choose):
        self.memory = choose(["own", "added in place", "written in part"])

    def change_leaf(self, choose):
        layer = choose([self.embed, self.message, self.head])
        layer.bias = nn.Parameter(torch.randint(-2, 3, layer.bias.shape).float())

    def change_grad(self, choose):
        parameter = choose(self.parameters())
        parameter.requires_grad_(not parameter.requires_grad)

    def change_hook(self, choose):
        self.hooked = choose([True, False])

    def change_edges(self, choose):
        """Where autograd counts it, and where nothing does."""
        index = choose([self.source, self.target])
        if choose([True, False]):
            index[choose(range(6))] = choose(range(4))
        else:
            index.numpy()[choose(range(6))] = choose(range(4))

    def change_include(self, choose):
        self.include, self.clip = choose([True, False]), choose([1.0, 0.0, -0.0, 2.0])

    def change_values(self, choose):
        parameter = choose(self.parameters())
        parameter.data.copy_(torch.randint(-2, 3, parameter.shape).float())

    def loss(self):
        x = {"rows": self.x, "columns": self.x.t().contiguous().t(), "expanded": self.x[:1]}[
            self.order
        ].expand(4, 2)
        h = torch.relu(self.embed(x))
        if self.hooked and h.requires_grad:
            h.register_hook(lambda g: g * 1.0)
        if self.memory == "added in place":
            h = (h + 0).add_(1)
        elif self.memory == "written in part":
            h = torch.cat([h[:1] * 2, h[1:]])
        if self.cut == "detach":
            h = h + h.detach() * h.detach()
        elif self.cut == "data":
            h = h * h.data
        elif self.cut == "no_grad":
            with torch.no_grad():
                scale = h.abs().sum() + 1
            h = h / scale
        message = self.message(torch.cat([h[self.source], h[self.target]], 1))
        index = self.target[:, None].expand_as(message)
        joined = torch.zeros(4, 3).scatter_reduce(
            0, index, message, "amax", include_self=self.include
        )
        bent = torch.tanh(joined)
        if self.cut == "data_of_saved":
            bent = bent * bent.data
        return F.leaky_relu(self.head(bent)).clamp(-self.clip, 5).sum()

    def step(self):
        for p in self.parameters():
            p.grad = None
        loss = self.loss()
        if loss.requires_grad:
            loss.backward()


def told(steps):
    """Verdicts and kinks; of a surrogate that was measured at an earlier call none are counted."""
    return [(s.verdict, s.joint, () if s.verdict is Verdict.SURROGATE else s.kinks) for s in steps]


@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(s, marks=pytest.mark.slow) for s in range(1, 12))]
)
def test_an_edited_program_is_judged_as_by_an_audit_that_knows_none(seed):
    program, kept = Edited(seed), clarke.audit(lambda _: None, seconds=20)
    for number in range(12):
        before = len(kept.steps)
        with kept:
            program.step()
        with clarke.audit(lambda _: None, seconds=20) as fresh:
            program.step()
        assert told(kept.steps[before:]) == told(fresh.steps), number
        program.edit()


def test_what_data_gives_is_known_as_cut_off():
    """Autograd copies what it saves in the same way; only that nobody reads is not recorded."""
    w = torch.tensor([0.5, 2.0], requires_grad=True)
    with clarke.audit(lambda _: None) as audit:
        for cut in (False, True, False, True):
            w.grad = None
            y = torch.tanh(w)
            (y * (y.data if cut else 2.0)).sum().backward()
    smooth, surrogate = Verdict.SMOOTH, Verdict.SURROGATE
    assert [s.verdict for s in audit.steps] == [smooth, surrogate, smooth, surrogate]


def test_what_data_gives_may_be_read_after_the_graph_was_freed():
    w = torch.tensor([0.5, 2.0], requires_grad=True)
    with clarke.audit(lambda _: None) as audit:
        y = torch.tanh(w)
        kept = y.data
        y.sum().backward()
        w.grad = None
        (w * kept).sum().backward()
    assert [s.verdict for s in audit.steps] == [Verdict.SMOOTH, Verdict.SMOOTH]


def test_leaves_that_hold_a_gradient_are_watched_beside_fresh_ones():
    """A critic's gradient stays in ``.grad`` while its generator's is computed."""
    torch.manual_seed(0)
    make, tell = nn.Linear(2, 2), nn.Linear(2, 1)
    x = torch.randn(3, 2)
    with clarke.audit(lambda _: None) as audit:
        for _ in range(3):
            tell.zero_grad()
            tell(make(x).detach()).sum().backward()
            make.zero_grad()
            tell(make(x)).relu().sum().backward()
        tell.weight.grad = None
        make.zero_grad()
        (tell(make(x)).sum() / torch.zeros(())).backward()
    found = [s.verdict for s in audit.steps]
    assert found[:6] == [Verdict.SMOOTH] * 6
    assert found[6] in (Verdict.NONFINITE, Verdict.NOT_LIPSCHITZ)
