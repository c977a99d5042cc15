"""Where others are at work on a program (modes, classes of tensors, traces), it runs as without."""

import contextlib
import warnings

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.overrides import TorchFunctionMode
from torch.testing._internal.two_tensor import TwoTensor
from torch.utils._python_dispatch import TorchDispatchMode

import clarke
from clarke.capture import passing, signs
from clarke.verdict import Verdict

WAYS = {
    "all": lambda: clarke.audit("raise", on_nonfinite=None),
    "confirmed": lambda: clarke.audit("raise", on_nonfinite=None, confirm_every=1),
    "some": lambda: clarke.audit("raise", on_nonfinite=None, every=2),
    "finite": lambda: clarke.audit(on_nonfinite="raise", only_nonfinite=True),
}


class Operations(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.seen.append(str(func))
        return func(*args, **(kwargs or {}))


class Functions(TorchFunctionMode):
    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.seen.append(func.__name__)
        return func(*args, **(kwargs or {}))


def network():
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1))


def trained(steps=1):
    """All that a small training computes; differentiated in three ways."""
    net, x, found = network(), torch.arange(6.0).view(2, 3), []
    optimizer = torch.optim.Adam(net.parameters(), lr=0.1)
    for _ in range(steps):
        loss = net(x).square().mean() + net[0].bias.relu().max()
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        found += [loss.detach(), *torch.autograd.grad(net(x).abs().sum(), net[0].weight)]
        net(x).sum().backward()
    return [*found, *(p.detach() for p in net.parameters())]


def same(left, right):
    return all(torch.equal(a, b) for a, b in zip(left, right, strict=True))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("mode", [Operations, Functions])
@pytest.mark.parametrize("place", ["outside", "inside", "left before it", "left after it"])
def test_a_mode_sees_what_it_would(mode, place, way):
    def run(audit):
        watching = mode()
        if place == "outside":
            with watching, audit:
                return watching.seen, trained()
        if place == "inside":
            with audit, watching:
                return watching.seen, trained()
        first, second = (watching, audit) if place == "left before it" else (audit, watching)
        first.__enter__()
        second.__enter__()
        found = trained()
        first.__exit__(None, None, None)
        found += trained(1)
        second.__exit__(None, None, None)
        return watching.seen, found

    seen, found = run(contextlib.nullcontext())
    audited, under_audit = run(WAYS[way]())
    assert audited == seen
    assert same(found, under_audit)


class Doubled(torch.Tensor):
    """A wrapper that computes by code of its own."""

    @staticmethod
    def __new__(cls, inner):
        return torch.Tensor._make_wrapper_subclass(
            cls, inner.shape, dtype=inner.dtype, requires_grad=inner.requires_grad
        )

    def __init__(self, inner):
        self.inner = inner

    def __repr__(self):
        return "Doubled"

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        bare = [a.inner if isinstance(a, cls) else a for a in args]
        out = func(*bare, **(kwargs or {}))
        return cls(out) if isinstance(out, torch.Tensor) else out


def fake():
    with FakeTensorMode():
        layer = nn.Linear(2, 2)
        layer(torch.zeros(3, 2)).relu().sum().backward()
    return [layer.weight.grad.shape]


def meta():
    layer = nn.Linear(2, 2, device="meta")
    layer(torch.zeros(3, 2, device="meta")).relu().sum().backward()
    return [layer.weight.grad.shape]


def traced():
    def slope(x):
        x = x.detach().requires_grad_()
        return torch.autograd.grad(torch.relu(2 * x).sum(), x)[0]

    return [make_fx(slope)(torch.zeros(3)).code]


def wrapped():
    w = Doubled(torch.tensor([0.0, 1.0])).requires_grad_()
    (torch.relu(w) * 2 + w.abs()).sum().backward()
    return w.grad.inner.tolist()


def wrapped_weight():
    """The loss is an ordinary number; the weights are not."""
    w = TwoTensor(torch.zeros(3), torch.ones(3)).requires_grad_()
    return [g.a.tolist() for g in torch.autograd.grad(torch.relu(w).sum(), w)]


def jagged():
    a = torch.zeros(2, 3, requires_grad=True)
    nested = torch.nested.as_nested_tensor([a, torch.ones(1, 3)], layout=torch.jagged)
    torch.relu(nested * 2).values().sum().backward()
    return a.grad.tolist()


def nested():
    a = torch.zeros(2, 3, requires_grad=True)
    both = torch.nested.as_nested_tensor([a, torch.ones(1, 3)])
    torch.nested.to_padded_tensor(torch.relu(both), 0.0).sum().backward()
    return a.grad.tolist()


def transformed():
    w = torch.zeros(2, requires_grad=True)
    slopes = torch.vmap(torch.func.grad(lambda v: v.relu().square()))(torch.arange(-1.0, 2.0))
    batched = torch.autograd.grad(w.relu(), w, torch.eye(2), is_grads_batched=True)
    return [slopes.tolist(), batched[0].tolist()]


ODD = {
    fake: None,
    meta: "on the meta device",
    traced: None,
    wrapped: "Doubled",
    wrapped_weight: "TwoTensor",
    jagged: "NestedTensor",
    nested: "nested",
    transformed: "torch.func",
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("program", ODD)
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_what_shows_no_values_runs_as_without(program, way):
    wanted = program()
    with warnings.catch_warnings(), WAYS[way]() as audit:
        warnings.simplefilter("error")
        found = [program(), program()]
    assert found == [wanted] * 2
    for step in audit.steps:
        assert step.verdict in {None, Verdict.UNDECIDED}
        if step.verdict is not None:
            assert ODD[program] in step.reason
    assert ODD[program] is None or way == "finite" or audit.summary().judged


@pytest.mark.parametrize("way", WAYS)
def test_tensors_can_be_swapped(way):
    """As `module.to` does for classes of parameters of their own, and for all where it is told."""

    def run(audit):
        net, other, x = network(), network(), torch.arange(6.0).view(2, 3)
        net[0].bias = nn.Parameter(torch.full((4,), -9.0))
        with audit:
            net(x).sum().backward()
            torch.__future__.set_swap_module_params_on_conversion(True)
            try:
                net.double()
            finally:
                torch.__future__.set_swap_module_params_on_conversion(False)
            net(x.double()).sum().backward()
            net.zero_grad()
            net.float()
            torch.utils.swap_tensors(net[0].weight, other[0].weight)
            net(x).sum().backward()
        return [p.grad for p in net.parameters()]

    audit = WAYS[way]()
    assert same(run(contextlib.nullcontext()), run(audit))
    assert all(s.correct for s in audit.steps if s.verdict is not None)
    assert torch.utils.weakref.__name__ == "weakref"


def fails(*_args, **_kwargs):
    raise LookupError("on purpose")


@pytest.mark.parametrize("place", [(signs.ZeroFinder, "find"), (passing.Passing, "_bind_outputs")])
def test_a_failure_of_the_recorder_is_nobodys_but_clarkes(place, monkeypatch):
    """Before an operation has run, or behind it: it runs once. The next step is judged again."""

    def run(audit):
        w, log = torch.tensor([0.0, 2.0], requires_grad=True), Operations()
        with audit, log:
            w.clone().relu_().sum().backward()
            with monkeypatch.context() as broken:
                broken.setattr(*place, fails)
                w.clone().relu_().sum().backward()
            w.clone().relu_().sum().backward()
        assert w.grad.tolist() == [0, 3]
        return log.seen

    audit = clarke.audit()
    assert run(contextlib.nullcontext()) == run(audit)
    assert [s.verdict for s in audit.steps] == [
        Verdict.BOULIGAND,
        Verdict.UNDECIDED,
        Verdict.BOULIGAND,
    ]
    assert "clarke itself failed while recording" in audit.steps[1].reason
    assert "LookupError" in audit.steps[1].reason


def test_what_an_operation_raises_is_raised_once():
    asked = Operations()
    w = torch.ones(2, requires_grad=True)
    with clarke.audit(), asked, pytest.raises(RuntimeError, match="must match the size"):
        w + torch.ones(3)
    assert asked.seen.count("aten.add.Tensor") == 1
