"""The training under audit is the training without: bit for bit, and nothing stays behind."""

import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import clarke


class Net(nn.Module):
    """Conv, BatchNorm, in-place ReLU, maxpool, dropout, checkpointed block, linear."""

    def __init__(self, reentrant=None):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.act = nn.ReLU(inplace=True)
        self.pool = nn.MaxPool2d(2)
        self.drop = nn.Dropout(0.3)
        self.block = nn.Sequential(nn.Linear(36, 12), nn.ReLU(), nn.Dropout(0.1))
        self.head = nn.Linear(12, 3)
        self.reentrant = reentrant

    def forward(self, x):
        x = self.drop(self.pool(self.act(self.norm(self.conv(x)))).flatten(1))
        if self.reentrant is None:
            x = self.block(x)
        else:
            x = checkpoint(self.block, x, use_reentrant=self.reentrant)
        return self.head(x)


def train(steps=5, *, watch=None, reentrant=None, each=lambda net, step: None):
    torch.manual_seed(3)
    random.seed(3)
    np.random.seed(3)  # noqa: NPY002 - the global generator is what must not change
    net = Net(reentrant)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    grads = []

    def loop():
        for step in range(steps):
            x = torch.randint(0, 3, (8, 1, 6, 6)).float()
            y = torch.randint(0, 3, (8,))
            loss = nn.functional.cross_entropy(net(x), y)
            optimizer.zero_grad(set_to_none=step % 2 == 0)
            loss.backward()
            grads.append([p.grad.clone() for p in net.parameters()])
            each(net, step)
            optimizer.step()

    if watch is None:
        loop()
    else:
        with watch:
            loop()
    state = np.random.get_state()[1]  # noqa: NPY002 - as above
    return net, grads, optimizer, torch.get_rng_state(), state, random.random()  # noqa: S311 - as above


def assert_same(left, right):
    (net, grads, opt, rng, numpy_rng, rand), (net2, grads2, opt2, rng2, numpy_rng2, rand2) = (
        left,
        right,
    )
    for a, b in zip(net.state_dict().values(), net2.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    for a, b in zip(grads, grads2, strict=True):
        assert all(torch.equal(p, q) for p, q in zip(a, b, strict=True))
    for a, b in zip(opt.state.values(), opt2.state.values(), strict=True):
        assert all(torch.equal(a[k], b[k]) for k in a)
    assert torch.equal(rng, rng2)
    assert np.array_equal(numpy_rng, numpy_rng2)
    assert rand == rand2
    assert [m.training for m in net.modules()] == [m.training for m in net2.modules()]


@pytest.mark.parametrize("reentrant", [None, False, True])
def test_five_steps_are_bit_identical(reentrant):
    plain = train(reentrant=reentrant)
    watch = clarke.audit()
    audited = train(watch=watch, reentrant=reentrant)
    assert_same(plain, audited)
    assert len(watch.steps) == 5
    assert all(s.verdict is not None for s in watch.steps)
    assert all(s.correct for s in watch.steps), [s.reason for s in watch.steps]


@pytest.mark.parametrize("options", [{"every": 2}, {"sample": 0.5}, {"confirm_every": 2}])
def test_options_change_nothing_either(options):
    assert_same(train(), train(watch=clarke.audit("raise", **options)))


def test_evaluation_in_between_is_bit_identical():
    outputs = []

    def evaluate(net, step):
        net.eval()
        with torch.inference_mode() if step % 2 else torch.no_grad():
            outputs.append(net(torch.ones(2, 1, 6, 6)).clone())
        net.train()

    plain = train(each=evaluate)
    watch = clarke.audit()
    audited = train(watch=watch, each=evaluate)
    assert_same(plain, audited)
    assert all(torch.equal(a, b) for a, b in zip(outputs[:5], outputs[5:], strict=True))
    assert all(s.correct for s in watch.steps)


def hooks_of(net):
    return {
        name: (p._backward_hooks, p._post_accumulate_grad_hooks)
        for name, p in net.named_parameters()
    }


@pytest.mark.parametrize("ending", ["success", "failure", "crash", "backward fails"])
def test_nothing_stays_behind(ending):
    # The fixture clean_torch checks global hooks, modes and entry points after every test.
    net = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1))
    before, engine = hooks_of(net), torch.autograd._engine_run_backward
    x = torch.ones(3, 2)

    def fail(*_):
        raise ValueError("on purpose")

    handle = net[1].register_full_backward_hook(fail) if ending == "backward fails" else None

    def loop():
        with clarke.audit("raise") as watch:
            net(x.clone().requires_grad_()).sum().backward()
            assert torch.autograd._engine_run_backward is not engine
            if ending == "crash":
                raise KeyboardInterrupt
            if ending == "failure":
                w = torch.zeros((), requires_grad=True)
                (torch.relu(w) - torch.relu(-w)).backward()
        return watch

    expected = {
        "crash": KeyboardInterrupt,
        "failure": clarke.WrongGradientError,
        "backward fails": ValueError,
    }.get(ending)
    if expected is None:
        assert loop().steps[0].correct
    else:
        with pytest.raises(expected):
            loop()
    if handle is not None:
        handle.remove()
    assert hooks_of(net) == before
    assert torch.autograd._engine_run_backward is engine


def test_the_users_own_hooks_run_and_stay():
    w = torch.ones(2, requires_grad=True)
    seen = []
    w.register_hook(lambda g: seen.append(g.clone()) or g * 10)
    w.register_post_accumulate_grad_hook(lambda p: seen.append(p.grad.clone()))
    with clarke.audit() as watch:
        (w * 3).sum().backward()
    assert [s.tolist() for s in seen] == [[3, 3], [30, 30]]
    assert w.grad.tolist() == [30, 30]
    # What AD computed is judged, not what the hook on the leaf made of it.
    assert watch.steps[0].verdict is clarke.Verdict.SMOOTH
    assert len(w._backward_hooks) == 1


def by_tensor(y):
    y.register_hook(lambda g: -g)


def by_tensor_that_dies(y):
    (y * 1).register_hook(lambda g: -g)


def by_node(y):
    y.grad_fn.register_hook(lambda inputs, outputs: tuple(-g for g in inputs if g is not None))


def by_node_before(y):
    y.grad_fn.register_prehook(lambda outputs: tuple(-g for g in outputs))


@pytest.mark.parametrize("way", [by_tensor, by_node, by_node_before])
def test_a_gradient_changed_on_the_way_is_not_called_correct(way):
    w = torch.ones(2, requires_grad=True)
    with clarke.audit() as watch:
        y = w.exp()
        z = y.sum()
        way(y)
        del y
        z.backward()
    assert w.grad[0] < 0
    assert watch.steps[0].verdict is clarke.Verdict.UNDECIDED
    assert "register_hook" not in vars(torch.autograd.function._HookMixin)
    assert torch.Tensor.register_hook.__module__ == "torch._tensor"


def test_a_hook_elsewhere_changes_nothing():
    w = torch.ones(2, requires_grad=True)
    with clarke.audit() as watch:
        by_tensor_that_dies(w * 2)
        w.exp().sum().backward()
    assert watch.steps[0].verdict is clarke.Verdict.SMOOTH


def test_the_users_modes_do_not_see_the_replays():
    from torch.utils.flop_counter import FlopCounterMode

    net = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 1))

    def flops():
        counter = FlopCounterMode(display=False)
        with counter:
            net(torch.ones(3, 4)).sum().backward()
        return counter.get_total_flops()

    plain = flops()
    with clarke.audit() as watch:
        assert flops() == plain
    assert watch.steps[0].correct


@pytest.mark.parametrize("wrap", [torch.no_grad, torch.enable_grad, torch.autograd.detect_anomaly])
@pytest.mark.filterwarnings("ignore:Anomaly Detection")
def test_backward_called_under_a_mode(wrap):
    w = torch.zeros(3, requires_grad=True)
    with clarke.audit() as watch:
        loss = (torch.relu(w) - torch.relu(2 * w)).sum()
        with wrap():
            loss.backward()
    assert watch.steps[0].verdict is clarke.Verdict.BOULIGAND
