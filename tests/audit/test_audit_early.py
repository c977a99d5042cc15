"""Verdicts that fall before autograd runs: what is let go, and what if that was too soon."""

import gc
import importlib
import math

import pytest
import torch
from torch import nn

import clarke
from clarke import Verdict
from clarke.capture import OpRecord

turn = importlib.import_module("clarke.audit.turn")


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(27, 2)
    )


def images():
    return torch.randint(0, 3, (4, 1, 6, 6), generator=torch.Generator().manual_seed(0)).float()


def test_no_recorded_value_is_held_while_autograd_runs(monkeypatch):
    held = []
    original = turn.run_call

    def spy(call, recorder):
        records = [o for o in gc.get_objects() if type(o) is OpRecord and id(o) not in others]
        held.append(sum(bool(len(o.kept) or len(o.kept_outputs)) for o in records))
        return original(call, recorder)

    monkeypatch.setattr(turn, "run_call", spy)
    older = [o for o in gc.get_objects() if type(o) is OpRecord]  # of other tests; kept alive here
    others = {id(o) for o in older}
    net = network()
    with clarke.audit() as watch:
        gc.collect()
        nn.functional.cross_entropy(net(images()), torch.zeros(4, dtype=torch.int64)).backward()
    with clarke.audit(settings=clarke.Settings(quick=False)):
        nn.functional.cross_entropy(net(images()), torch.zeros(4, dtype=torch.int64)).backward()
    assert watch.steps[0].correct
    assert held[0] == 0
    assert held[1] > 0  # the whole ladder comes afterwards


def test_gradients_that_turn_out_infinite_go_up_the_ladder():
    w = torch.tensor([1e-30], requires_grad=True)

    def loss():
        return (torch.relu(w * 1e30) * 1e30).sum()  # 1e30; its slope does not fit into float32

    with clarke.audit(seconds=None) as watch:
        value = loss()
        value.backward()
    assert math.isfinite(float(value))
    assert math.isinf(float(w.grad))
    assert watch.steps[0].verdict is Verdict.NONFINITE


@pytest.mark.parametrize("value", [torch.inf, torch.nan])
def test_a_loss_that_is_not_finite_is_not_judged_early(value):
    w = torch.tensor([1.0], requires_grad=True)
    with clarke.audit() as watch:
        (torch.relu(w).sum() + value).backward()
    assert watch.steps[0].verdict is not Verdict.SMOOTH


@pytest.mark.parametrize("kept", [False, True])
def test_a_subscriber_may_keep_the_gradient(kept):
    seen = []
    net = network()
    with clarke.audit() as watch:
        watch.subscribe(lambda _, report: seen.append(report.gradient), gradients=kept)
        nn.functional.cross_entropy(net(images()), torch.zeros(4, dtype=torch.int64)).backward()
    grads = [p.grad.clone() for p in net.parameters()]
    assert any(bool(g.any()) for g in grads)
    with torch.no_grad():
        for p in net.parameters():
            p.grad.zero_()
    same = all(torch.equal(a, b) for a, b in zip(seen[0], grads, strict=True))
    assert same is kept


def test_certificates_of_early_verdicts_compute_again_what_was_let_go():
    outcomes = []
    net = network()
    with clarke.audit(seconds=None) as watch:
        watch.subscribe(lambda _, r: outcomes.append((r.theorem, r.certificate.verify())))
        for _ in range(2):  # the second call adds to what .grad holds
            nn.functional.cross_entropy(net(images()), torch.zeros(4, dtype=torch.int64)).backward()
    assert [good for _, good in outcomes] == [True, True]


def test_a_graph_that_is_kept_can_be_differentiated_again():
    net = network()
    with clarke.audit() as watch:
        loss = nn.functional.cross_entropy(net(images()), torch.zeros(4, dtype=torch.int64))
        loss.backward(retain_graph=True)
        loss.backward()
    assert all(s.correct for s in watch.steps)


def test_a_hook_on_a_leaf_is_no_part_of_the_verdict():
    net = network()
    net[0].weight.register_hook(lambda g: g * torch.nan)
    with clarke.audit() as watch:
        nn.functional.cross_entropy(net(images()), torch.zeros(4, dtype=torch.int64)).backward()
    assert bool(net[0].weight.grad.isnan().all())
    assert watch.steps[0].correct  # AD's gradient was right; the user's hook came after it
