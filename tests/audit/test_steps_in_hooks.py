"""Optimizers that step while autograd runs, one parameter after the other, or in compiled code.

When the verdict is due, parameters are others than those that the gradient was taken at.
"""

import warnings

import pytest
import torch
from torch import nn

import clarke


def right(x):
    return torch.relu(x)


def wrong(x):
    return torch.relu(x) - torch.relu(-x)


class Gated(nn.Module):
    def __init__(self, kink):
        super().__init__()
        self.layer, self.gate, self.kink = nn.Linear(2, 2), nn.Parameter(torch.zeros(2)), kink

    def forward(self, x):
        return (torch.tanh(self.layer(x)) * (2 + self.kink(self.gate))).sum()


def stepping(model, name="SGD", *, to_none=True):
    """An optimizer of its own for every parameter, which clears the gradient it has used."""
    own = {p: getattr(torch.optim, name)([p], 0.1) for p in model.parameters()}

    def step(p):
        own[p].step()
        own[p].zero_grad(set_to_none=to_none)

    return step


def stepping_all_at_the_last(model):
    """One optimizer for all, when the last gradient has come."""
    optimizer, missing = torch.optim.SGD(model.parameters(), 0.1), set(model.parameters())

    def step(p):
        missing.discard(p)
        if not missing:
            optimizer.step()
            optimizer.zero_grad()
            missing.update(model.parameters())

    return step


def fused_by_hand(_):
    """As LOMO: the update is written out, and nothing of the gradient is kept."""

    @torch.no_grad()
    def step(p):
        p.sub_(p.grad, alpha=0.1)
        p.grad = None

    return step


HOOKS = {
    "sgd": stepping,
    "adam": lambda m: stepping(m, "Adam"),
    "zeroed": lambda m: stepping(m, to_none=False),
    "all at the last": stepping_all_at_the_last,
    "by hand": fused_by_hand,
}


def trained(kink, hooks, watching=None, steps=2):
    torch.manual_seed(0)
    model = Gated(kink)
    step = HOOKS[hooks](model)
    for p in model.parameters():
        p.register_post_accumulate_grad_hook(step)
    batches = torch.randn(steps, 5, 2)
    if watching is None:
        for x in batches:
            model(x).backward()
    else:
        with watching:
            for x in batches:
                model(x).backward()
    return [p.detach().clone() for p in model.parameters()], [p.grad for p in model.parameters()]


QUICK = "sgd", "by hand"
ALL = [h if h in QUICK else pytest.param(h, marks=pytest.mark.slow) for h in HOOKS]


@pytest.mark.parametrize("hooks", ALL)
@pytest.mark.parametrize(
    ("kink", "verdict"), [(right, "BOULIGAND"), (wrong, "NOT_CLARKE")], ids=["right", "wrong"]
)
def test_gradients_that_a_hook_has_used(kink, verdict, hooks):
    plain, _ = trained(kink, hooks)
    watching = clarke.audit(lambda _: None, seconds=30)
    seen, _ = trained(kink, hooks, watching)
    assert all(map(torch.equal, plain, seen))
    told = [(s.verdict.name, s.joint.name) for s in watching.steps]
    assert told == [(verdict, verdict)] * 2, [s.reason for s in watching.steps]


def test_a_proof_is_about_the_parameters_as_they_were():
    watching = clarke.audit(lambda _: None, seconds=30)
    trained(wrong, "sgd", watching, steps=1)
    (report,) = watching.reports
    assert report.certificate.verify()
    assert any(float(e.abs().max()) > 0.1 for e in report.element)


@pytest.mark.parametrize("hooks", ALL)
def test_what_was_used_cannot_be_repaired(hooks):
    """A correct gradient that came too late would be added to the next one."""
    plain, left = trained(wrong, hooks)
    watching = clarke.audit("repair", seconds=30)
    with pytest.warns(clarke.WrongGradientWarning):
        seen, kept = trained(wrong, hooks, watching)
    assert all(map(torch.equal, plain, seen))
    for a, b in zip(left, kept, strict=True):
        assert (a is None and b is None) or torch.equal(a, b)
    assert not any(s.repaired for s in watching.steps)


def test_hooks_that_only_look_leave_repairs_possible():
    model = Gated(wrong)
    norms = []
    for p in model.parameters():
        p.register_post_accumulate_grad_hook(lambda p: norms.append(p.grad.norm()))
    with clarke.audit("repair", seconds=30) as audit:
        model(torch.ones(2, 2)).backward()
    assert audit.steps[0].repaired
    assert bool(model.gate.grad.all())
    assert len(norms) == 3


def test_what_is_written_unseen_is_read_anew():
    """As by a kernel of the user's own, which tells autograd of it."""
    weight = torch.zeros(2, requires_grad=True)
    with clarke.audit(lambda _: None, seconds=30) as audit:
        for shift in (0.0, 1.0, -1.0):
            weight.detach().numpy()[:] += shift
            torch.autograd.graph.increment_version(weight)
            weight.grad = None
            wrong(weight).sum().backward()
    assert [s.verdict.name for s in audit.steps] == ["NOT_CLARKE", "SMOOTH", "NOT_CLARKE"]


@pytest.mark.slow
@pytest.mark.usefixtures("nothing_compiled")
def test_what_a_compiled_optimizer_writes_is_read_anew():
    """Its second step runs in code that nobody records; parameters are others afterwards."""
    torch.manual_seed(0)
    model = Gated(wrong)
    optimizer = torch.optim.SGD(model.parameters(), 0.01, foreach=False)
    step = torch.compile(optimizer.step, backend="aot_eager")
    watching = clarke.audit(lambda _: None, seconds=30)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        with watching:
            for _ in range(4):
                optimizer.zero_grad()
                model(torch.ones(2, 2)).backward()
                step()
    assert not [w for w in told if "clarke" in w.filename]
    assert [s.verdict.name for s in watching.steps] == ["NOT_CLARKE"] * 4
