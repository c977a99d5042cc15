"""Steps of torch's optimizers are not recorded; everything around them is."""

import threading

import pytest
import torch
from torch import nn
from torch.optim import optimizer as torch_optimizer
from torch.utils._python_dispatch import _get_current_dispatch_mode

import clarke
from clarke.capture import Recorder


class Watched(torch.optim.SGD):
    """Torch's SGD, which notes the dispatch mode that it runs under."""

    modes = ()

    def step(self, closure=None):
        type(self).modes = (*type(self).modes, _get_current_dispatch_mode())
        return super().step(closure)


@pytest.fixture
def watched(monkeypatch):
    monkeypatch.setattr(Watched, "modes", ())
    monkeypatch.setattr(Watched, "__module__", "torch.optim.sgd")
    return Watched


def modules():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    with torch.no_grad():
        net[0].bias.zero_()
    return net, torch.tensor([[0.0, 0.0], [1.0, -1.0]])


def train(watching, net, optimizer, inputs, steps=3):
    for _ in range(steps):
        optimizer.zero_grad()
        net(inputs).square().sum().backward()
        optimizer.step()
    return [s.verdict for s in watching.steps]


def test_a_step_runs_without_the_recorder_and_the_next_is_recorded(watched):
    net, inputs = modules()
    with clarke.audit() as watching:
        optimizer = watched(net.parameters(), lr=0.1, momentum=0.9)
        verdicts = train(watching, net, optimizer, inputs)
        assert isinstance(_get_current_dispatch_mode(), Recorder)
    assert watched.modes == (None,) * 3
    assert verdicts[0] is clarke.Verdict.BOULIGAND
    assert set(verdicts) <= {clarke.Verdict.BOULIGAND, clarke.Verdict.SMOOTH}


@pytest.mark.parametrize("kind", ["other class", "own hook", "global hook"])
def test_where_other_code_may_run_the_recorder_stays(watched, kind, monkeypatch):
    net, inputs = modules()
    optimizer = watched(net.parameters(), lr=0.1)
    handle = None
    if kind == "other class":
        monkeypatch.setattr(watched, "__module__", "somebody.elses")
    elif kind == "own hook":
        optimizer.register_step_pre_hook(lambda *_: None)
    else:
        handle = torch_optimizer.register_optimizer_step_post_hook(lambda *_: None)
    try:
        with clarke.audit() as watching:
            net(inputs).sum().backward()
            optimizer.step()
    finally:
        if handle is not None:
            handle.remove()
    assert isinstance(watched.modes[0], Recorder)
    assert watching.steps[0].verdict is clarke.Verdict.BOULIGAND


def test_a_closure_is_audited():
    w = torch.tensor([0.0, 1.0], requires_grad=True)
    optimizer = torch.optim.LBFGS([w], max_iter=2)

    def closure():
        optimizer.zero_grad()
        loss = (torch.relu(w) - torch.relu(-w)).sum() + w.square().sum()
        loss.backward()
        return loss

    with pytest.warns(clarke.WrongGradientWarning), clarke.audit() as watching:
        optimizer.step(closure)
    assert watching.steps[0].verdict is clarke.Verdict.NOT_CLARKE
    assert len(watching.steps) > 1


@pytest.mark.parametrize("kind", [torch.optim.LBFGS, torch.optim.Adam])
@pytest.mark.parametrize("by_name", [False, True])
def test_of_a_step_with_a_closure_the_closure_alone_is_recorded(kind, by_name):
    w = torch.tensor([3.0, 1.0], requires_grad=True)
    optimizer = kind([w], lr=0.5)
    watched, outside = [], []

    def closure():
        optimizer.zero_grad()
        watched.append(isinstance(_get_current_dispatch_mode(), Recorder))
        loss = (w * w * torch.relu(w)).sum()
        loss.backward()
        return loss

    with clarke.audit() as watching:
        for _ in range(2):
            before = watching._recorder.count
            optimizer.step(closure=closure) if by_name else optimizer.step(closure)
            outside.append(watching._recorder.count - before)
            (w * 2).sum().backward()
    assert all(watched)
    # Three operations and what Autograd saves of them, each time: none of the optimizer's.
    assert max(outside) <= 5 * len(watched)
    assert {s.verdict for s in watching.steps} == {clarke.Verdict.SMOOTH}


def test_a_closure_finds_what_the_optimizer_has_moved_to_a_kink():
    """The steps between two closures are not recorded, but what they write to is noted."""
    w = torch.tensor([1.0], requires_grad=True)
    optimizer = torch.optim.LBFGS([w], lr=1.0, max_iter=2, tolerance_grad=0, tolerance_change=0)
    points = []

    def closure():
        optimizer.zero_grad()
        points.append(float(w.detach()))
        loss = (torch.relu(w) - torch.relu(-w)).sum()
        loss.backward()
        return loss

    with pytest.warns(clarke.WrongGradientWarning), clarke.audit() as watching:
        optimizer.step(closure)
    assert points == [1.0, 0.0]
    verdicts = [s.verdict for s in watching.steps]
    assert verdicts == [clarke.Verdict.SMOOTH, clarke.Verdict.NOT_CLARKE]


def test_after_a_closure_that_raises_everything_is_recorded():
    w = torch.tensor([1.0], requires_grad=True)
    optimizer = torch.optim.LBFGS([w])

    def closure():
        raise ZeroDivisionError

    with clarke.audit() as watching:
        with pytest.raises(ZeroDivisionError):
            optimizer.step(closure)
        (w * w).sum().backward()
    assert [s.verdict for s in watching.steps] == [clarke.Verdict.SMOOTH]


def test_a_step_that_raises_leaves_the_audit_able_to_go_on(watched):
    net, inputs = modules()
    optimizer = watched(net.parameters(), lr=0.1)
    with clarke.audit() as watching:
        net(inputs).sum().backward()
        optimizer.param_groups[0]["lr"] = "high"
        with pytest.raises(TypeError):
            optimizer.step()
        optimizer.param_groups[0]["lr"] = 0.1
        (torch.relu(net[0].bias) - torch.relu(-net[0].bias)).sum().backward()  # out of sight
        net.zero_grad()
        net(inputs).sum().backward()
    assert _get_current_dispatch_mode() is None
    undecided, right = (clarke.Verdict.UNDECIDED, clarke.Verdict.BOULIGAND)
    assert [s.verdict for s in watching.steps] == [right, undecided, right]


def test_an_audit_left_right_after_a_step_that_raised_leaves_no_mode(watched):
    net, inputs = modules()
    optimizer = watched(net.parameters(), lr=0.1)
    optimizer.param_groups[0]["lr"] = "high"
    net(inputs).sum().backward()
    with pytest.raises(TypeError), clarke.audit():
        optimizer.step()
    assert _get_current_dispatch_mode() is None
    assert not torch_optimizer._global_optimizer_pre_hooks
    assert not torch_optimizer._global_optimizer_post_hooks


@pytest.mark.parametrize("by", ["optimizer", "hand"])
def test_what_a_step_overwrites_is_noticed(by):
    w = torch.tensor([0.0], requires_grad=True)
    optimizer = torch.optim.SGD([w], lr=1.0)
    w.grad = torch.tensor([-1.0])
    with clarke.audit() as watching:
        loss = (torch.relu(w + 0) - torch.relu(-(w + 0))).sum()  # at 0: AD gives 0, it is 1
        if by == "optimizer":
            optimizer.step()
        else:
            with torch.no_grad():
                w.add_(1.0)
        assert w.item() == 1
        loss.backward()
    assert watching.steps[0].verdict in (clarke.Verdict.NOT_CLARKE, clarke.Verdict.UNDECIDED)


def test_other_threads_step_as_they_would():
    net, inputs = modules()
    other = nn.Linear(2, 1)
    elsewhere = torch.optim.SGD(other.parameters(), lr=0.1)
    seen = []

    def step():
        other(inputs).sum().backward()
        elsewhere.step()
        seen.append(_get_current_dispatch_mode())

    with clarke.audit() as watching:
        thread = threading.Thread(target=step)
        thread.start()
        thread.join()
        net(inputs).sum().backward()
        assert isinstance(_get_current_dispatch_mode(), Recorder)
    assert seen == [None]
    assert [s.verdict for s in watching.steps] == [clarke.Verdict.BOULIGAND]


def test_where_steps_are_not_seen_any_leaf_may_be_an_optimizers():
    """A compiled program takes the hooks away that tell which leaves are stepped."""
    torch.compile(lambda x: x + 1, backend="eager")(torch.zeros(1))
    z = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.SGD([z], lr=0.0)
    with clarke.audit(lambda report: None) as audit:
        for _ in range(2):
            loss = (torch.relu(z) - torch.relu(-z)).sum()
            torch.autograd.grad(loss, [z], create_graph=True)
            loss.backward()
            optimizer.step()
    assert audit.steps[-1].verdict is clarke.Verdict.NOT_CLARKE
