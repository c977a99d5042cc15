"""A check leaves the user's world as it was, after success and after an exception at any stage."""

import random
import sys

import numpy as np
import pytest
import torch
import torch.nn.modules.module as torch_module
from torch import nn
from torch.overrides import _len_torch_function_stack
from torch.utils._python_dispatch import _len_torch_dispatch_stack

import clarke


class Network(nn.Module):
    """Everything with state: buffers, dropout, a counter that is replaced instead of written."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.3), nn.Linear(6, 1)
        )
        self.register_buffer("calls", torch.zeros(()))
        self.fail = None

    def forward(self, x):
        self.calls = self.calls + 1
        random.random()  # noqa: S311 - the point is to draw from the global generators
        np.random.rand()  # noqa: NPY002 - as above
        self.eval()
        self.train()
        y = self.net(x)
        if self.fail is not None:
            raise self.fail
        return y.square().mean()


@pytest.fixture
def world():
    model = Network().double()
    x = torch.randn(5, 4, dtype=torch.float64)
    x[:, 0] = 0.0
    model(x).backward()  # gradients that a check could disturb
    model.net[0].weight.requires_grad_(False)
    model.net[3].eval()
    return model, x


def state(model):
    hooks = {
        n: dict(r)
        for n, r in vars(torch_module).items()
        if n.startswith("_global_") and isinstance(r, dict)
    }
    return {
        "values": {n: p.detach().clone() for n, p in model.state_dict().items()},
        "objects": {n: id(t) for n, t in (*model.named_parameters(), *model.named_buffers())},
        "memory": {n: p.data_ptr() for n, p in model.named_parameters()},
        "versions": {n: p._version for n, p in model.named_parameters()},
        "grads": {
            n: None if p.grad is None else (id(p.grad), p.grad.clone())
            for n, p in model.named_parameters()
        },
        "flags": {n: p.requires_grad for n, p in model.named_parameters()},
        "training": {n: m.training for n, m in model.named_modules()},
        "rng": (torch.get_rng_state(), random.getstate(), np.random.get_state()[1]),  # noqa: NPY002
        "hooks": hooks,
        "own hooks": [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()],
        "modes": (_len_torch_function_stack(), _len_torch_dispatch_stack()),
        "grad mode": torch.is_grad_enabled(),
        "dtype": torch.get_default_dtype(),
        "entries": (torch.Tensor.backward, torch.autograd.grad, torch.autograd.backward),
        "trace": sys.gettrace(),
    }


def same(left, right):
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[k], right[k]) for k in left)
    if isinstance(left, (tuple, list)):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, torch.Tensor):
        return torch.equal(left, right)
    if isinstance(left, np.ndarray):
        return np.array_equal(left, right)
    return left == right


def changed(before, after):
    return [key for key in before if not same(before[key], after[key])]


def test_the_comparison_notices_a_change(world):
    model, x = world
    before = state(model)
    model(x)
    assert changed(before, state(model)) == ["values", "objects", "training", "rng"]


def test_success(world):
    model, x = world
    before = state(model)
    report = clarke.check(lambda: model(x))
    assert report.correct
    assert changed(before, state(model)) == []


def test_inputs_keep_values_gradients_and_flags():
    x = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    x.grad = torch.ones_like(x)
    grad, memory = x.grad, x.data_ptr()
    assert clarke.check(lambda x: torch.relu(x).sum(), (x,)).correct
    assert x.grad is grad
    assert grad.tolist() == [1, 1, 1]
    assert x.tolist() == [0, 0, 0]
    assert x.data_ptr() == memory
    assert x._version == 0
    assert x.requires_grad


@pytest.mark.parametrize("error", [RuntimeError("boom"), KeyboardInterrupt(), SystemExit(3)])
def test_the_function_raises(world, error):
    model, x = world
    model.fail = error
    before = state(model)
    with pytest.raises(type(error)):
        clarke.check(lambda: model(x))
    assert changed(before, state(model)) == []


class Explodes(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        raise ZeroDivisionError("in backward")


def test_the_backward_pass_raises(world):
    model, x = world
    before = state(model)
    with pytest.raises(ZeroDivisionError):
        clarke.check(lambda: Explodes.apply(model(x)))
    assert changed(before, state(model)) == []


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize(
    ("module", "stage"),
    [
        ("prepare", "_scalar"),
        ("prepare", "collect_trace"),
        ("prepare", "gradient_of"),
        ("check", "decide"),
        ("check", "build_report"),
        ("decide.ladder", "find_relevant"),
        ("decide.witnessed", "confirm"),
    ],
)
def test_clarke_itself_raises(world, monkeypatch, module, stage, error):
    model, x = world

    def broken(*args, **kwargs):
        raise error("broken on purpose")

    before = state(model)
    monkeypatch.setattr(sys.modules[f"clarke.{module}"], stage, broken)
    with pytest.raises(error):
        clarke.check(lambda: model(x))
    monkeypatch.undo()
    assert changed(before, state(model)) == []


def test_a_failure_beside_the_point(world):
    """The program runs at the point and fails when it is run again to confirm."""
    model, x = world
    runs = []

    def program():
        runs.append(1)
        if len(runs) > 1:
            raise LookupError("no second time")
        return model(x)

    before = state(model)
    report = clarke.check(program)  # the point beside is not usable, no more
    assert len(runs) >= 2
    assert report.verdict is clarke.Verdict.UNDECIDED
    assert report.reason
    assert changed(before, state(model)) == []


def test_the_graph_of_the_caller_survives():
    x = torch.ones(2, dtype=torch.float64, requires_grad=True)
    features = (x * 2).exp()
    clarke.check(lambda: torch.relu(features).sum())
    features.sum().backward()
    assert x.grad is not None
